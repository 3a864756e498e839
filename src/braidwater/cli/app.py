"""The commands and their options. What they do is imported when one of them runs, so that ``--help`` costs nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from braidwater.cli.failures import reported

app = typer.Typer(
    help="Train models where the data lies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Estimator = Annotated[
    str, typer.Argument(help="logistic_regression, linear_regression, k_means, pca, mlp, cnn; or JOB.toml.")
]
Rows = Annotated[
    str, typer.Argument(metavar="TABLE", help="A file, glob, folder, FILE.duckdb::TABLE or FILE.duckdb::SELECT …")
]
MaybeRows = Annotated[str | None, typer.Argument(metavar="TABLE", help="A file, glob, folder, or FILE.duckdb::TABLE.")]
Model = Annotated[str, typer.Argument(metavar="MODEL_DIR", help="A folder that train wrote.")]
Label = Annotated[str | None, typer.Option(help="The column to learn.", metavar="COLUMN")]
Features = Annotated[
    str | None, typer.Option(help="The columns to learn from; all others where left out.", metavar="a,b,c")
]
Exclude = Annotated[str | None, typer.Option(help="Columns to leave out.", metavar="d,e")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A hyperparameter, as TOML: alpha=0.1, hidden=[64,32].", metavar="NAME=VALUE"),
]
Nulls = Annotated[str | None, typer.Option(help="What NULLs are: refuse, drop, mean or mode.", metavar="POLICY")]
Test = Annotated[
    float | None, typer.Option(help="Hold this share of the rows out and evaluate on it.", metavar="FRACTION")
]
Seed = Annotated[int | None, typer.Option(help="Decides the split and everything random.", metavar="N")]
Memory = Annotated[str | None, typer.Option(help="What braidwater may hold at a time, such as 1GB.", metavar="SIZE")]
Workers = Annotated[int | None, typer.Option(help="Threads or processes; all cores where left out.", metavar="N")]
Strategy = Annotated[
    str | None, typer.Option(help="auto, single, all_reduce, averaging (nets) or data.", metavar="NAME")
]
Trust = Annotated[
    list[str] | None,
    typer.Option(help="A package of yours that the model's module may be imported from.", metavar="PACKAGE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from braidwater import __version__

        typer.echo(f"braidwater {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train models where the data lies."""


@app.command()
@reported
def train(
    estimator: Estimator,
    table: MaybeRows = None,
    label: Label = None,
    features: Features = None,
    exclude: Exclude = None,
    set_: Settings = None,
    nulls: Nulls = None,
    test: Test = None,
    seed: Seed = None,
    memory: Memory = None,
    workers: Workers = None,
    strategy: Strategy = None,
    output: Annotated[str | None, typer.Option(help="The folder to save the model in.", metavar="MODEL_DIR")] = None,
    json: Json = False,
) -> None:
    """Train ESTIMATOR on TABLE and save the model; or do what JOB.toml says."""
    given = _given(locals())
    from braidwater.cli.job import job_of
    from braidwater.cli.train import train as run

    run(job_of(estimator, table, "train", **given), json=json)


@app.command()
@reported
def explain(
    estimator: Estimator,
    table: MaybeRows = None,
    label: Label = None,
    features: Features = None,
    exclude: Exclude = None,
    set_: Settings = None,
    nulls: Nulls = None,
    test: Test = None,
    seed: Seed = None,
    memory: Memory = None,
    workers: Workers = None,
    strategy: Strategy = None,
    output: Annotated[
        str | None, typer.Option(help="Taken as train takes it; nothing is written.", metavar="MODEL_DIR")
    ] = None,
    json: Json = False,
) -> None:
    """Print what train would do with the same arguments, and what it would cost. Nothing is trained."""
    given = _given(locals())
    from braidwater.cli.job import job_of
    from braidwater.cli.train import explain as run

    run(job_of(estimator, table, "explain", **given), json=json)


@app.command()
@reported
def predict(
    model: Model,
    table: Rows,
    output: Annotated[str, typer.Option(help="A .parquet, .csv or .arrow file, or FILE.duckdb::TABLE.", metavar="OUT")],
    trust: Trust = None,
    json: Json = False,
) -> None:
    """Write TABLE with the model's predictions to OUT."""
    from braidwater.cli.use import predict as run

    run(model, table, output, trust=trust or (), json=json)


@app.command()
@reported
def evaluate(model: Model, table: Rows, trust: Trust = None, json: Json = False) -> None:
    """Print how well the model predicts the label of TABLE."""
    from braidwater.cli.use import evaluate as run

    run(model, table, trust=trust or (), json=json)


@app.command()
@reported
def describe(table: Rows, json: Json = False) -> None:
    """Print what is in TABLE: counts, NULLs, means, quantiles, distinct values, correlations."""
    from braidwater.cli.use import describe as run

    run(table, json=json)


@app.command()
@reported
def demo(
    output: Annotated[
        str, typer.Option(help="The folder for the table, models and report.", metavar="DIR")
    ] = "demo-output",
) -> None:
    """Train two models on real data from a DuckDB file, and write a report."""
    from braidwater.cli.demo import demo as run

    run(output)


@app.command()
@reported
def doctor(json: Json = False) -> None:
    """Check the installation, measure the machine, and say what is missing."""
    from braidwater.cli.doctor import doctor as run

    run(json=json)


def _given(arguments: dict[str, object]) -> dict[str, object]:
    """The options that were given, by the names that they have in Python and in a job file."""
    others = ("estimator", "table", "json")
    return {name.rstrip("_"): value for name, value in arguments.items() if value is not None and name not in others}
