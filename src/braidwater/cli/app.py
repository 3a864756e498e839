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
    str,
    typer.Argument(
        metavar="TABLE", help="A file, glob, folder, FILE.duckdb::TABLE, postgresql://…::TABLE, or ::SELECT …"
    ),
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
Engine = Annotated[
    str | None,
    typer.Option(
        help="Who does the work: postgresql://USER@HOST/DATABASE, spark://HOST:PORT; this machine where left out.",
        metavar="ADDRESS",
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(help="How nets are spread over workers: auto, all_reduce, 'averaging(every=8)' ...", metavar="NAME"),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(help="A package of yours that the model's module may be imported from.", metavar="PACKAGE"),
]
Metric = Annotated[str | None, typer.Option(help="What trials are compared by.", metavar="NAME")]
Direction = Annotated[str | None, typer.Option(help="auto, minimize or maximize.", metavar="WAY")]
Folds = Annotated[int | None, typer.Option(help="Compare trials by cross validation, instead of --test.", metavar="N")]
Storage = Annotated[
    str | None, typer.Option(help="An SQLite file or postgresql://… that keeps the study.", metavar="PLACE")
]
StudyName = Annotated[str | None, typer.Option(help="The study's name in the storage.", metavar="NAME")]
Resume = Annotated[
    bool | None,
    typer.Option("--resume/--no-resume", help="Go on with the study that is in the storage.", show_default=False),
]
TrialTimeout = Annotated[float | None, typer.Option(help="Seconds after which a trial is ended.", metavar="S")]
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
    engine: Engine = None,
    strategy: Strategy = None,
    output: Annotated[str | None, typer.Option(help="The folder to save the model in.", metavar="MODEL_DIR")] = None,
    report: Annotated[str | None, typer.Option(help="Write a report with pictures.", metavar="FILE.html")] = None,
    tensorboard: Annotated[str | None, typer.Option(help="Write curves for TensorBoard.", metavar="DIR")] = None,
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
    engine: Engine = None,
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
def search(
    estimator: Estimator,
    table: MaybeRows = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            help="A hyperparameter to try: 1e-4..1e-1:log, 16..256:step=16, [32]|[64,32].", metavar="NAME=RANGE"
        ),
    ] = None,
    label: Label = None,
    features: Features = None,
    exclude: Exclude = None,
    set_: Settings = None,
    nulls: Nulls = None,
    metric: Metric = None,
    direction: Direction = None,
    trials: Annotated[
        int | None, typer.Option(help="The most trials; 50 where no bound is given.", metavar="N")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="The most wall time.", metavar="S")] = None,
    epochs: Annotated[int | None, typer.Option(help="The most epochs over all trials.", metavar="N")] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="tpe, random, grid, cmaes, gp, nsga2, qmc, differential_evolution.", metavar="NAME"),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="asha, hyperband, median, wilcoxon, population_based.", metavar="NAME")
    ] = None,
    test: Test = None,
    folds: Folds = None,
    seed: Seed = None,
    memory: Memory = None,
    workers: Workers = None,
    engine: Engine = None,
    hopper: Annotated[
        bool | None, typer.Option("--hopper", help="Nets hop from worker to worker; rows stay.", show_default=False)
    ] = None,
    storage: Storage = None,
    name: StudyName = None,
    resume: Resume = None,
    trial_timeout: TrialTimeout = None,
    report: Annotated[str | None, typer.Option(help="An HTML page about the search.", metavar="FILE")] = None,
    output: Annotated[
        str | None, typer.Option(help="The folder to save the best model in.", metavar="MODEL_DIR")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print what would be done, and do nothing.", show_default=False)
    ] = False,
    json: Json = False,
) -> None:
    """Try hyperparameters of ESTIMATOR on TABLE in parallel, and keep the best model; or do what JOB.toml says."""
    given = _given(locals())
    from braidwater.cli.search import search as run
    from braidwater.cli.search_job import search_job

    for option in ("param", "explain"):
        given.pop(option, None)
    run(*search_job(estimator, table, param or (), given), json=json, explain=explain)


@app.command()
@reported
def ablate(
    estimator: Estimator,
    table: MaybeRows = None,
    component: Annotated[
        list[str] | None,
        typer.Option(
            help="Columns to leave out together; every feature in turn where none is given.", metavar="[NAME=]a,b"
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Layers of a net to leave out; all: each in turn.", metavar="[NAME=]PATTERN"),
    ] = None,
    label: Label = None,
    features: Features = None,
    exclude: Exclude = None,
    set_: Settings = None,
    nulls: Nulls = None,
    metric: Metric = None,
    direction: Direction = None,
    repeats: Annotated[
        int | None, typer.Option(help="Trainings of each variant, each from another seed.", metavar="N")
    ] = None,
    test: Test = None,
    folds: Folds = None,
    seed: Seed = None,
    memory: Memory = None,
    workers: Workers = None,
    engine: Engine = None,
    storage: Storage = None,
    name: StudyName = None,
    resume: Resume = None,
    trial_timeout: TrialTimeout = None,
    report: Annotated[str | None, typer.Option(help="An HTML page about the ablation.", metavar="FILE")] = None,
    json: Json = False,
) -> None:
    """Train ESTIMATOR on TABLE with and without each component, and print what each is worth; or do what JOB.toml says."""
    given = _given(locals())
    from braidwater.cli.ablate import ablate as run
    from braidwater.cli.ablate_job import ablate_job

    for option in ("component", "layer"):
        given.pop(option, None)
    run(*ablate_job(estimator, table, component or (), layer or (), given), json=json)


@app.command()
@reported
def predict(
    model: Model,
    table: Rows,
    output: Annotated[str, typer.Option(help="A .parquet, .csv or .arrow file, or FILE.duckdb::TABLE.", metavar="OUT")],
    trust: Trust = None,
    engine: Engine = None,
    json: Json = False,
) -> None:
    """Write TABLE with the model's predictions to OUT."""
    from braidwater.cli.use import predict as run

    run(model, table, output, trust=trust or (), engine=engine, json=json)


@app.command()
@reported
def evaluate(model: Model, table: Rows, trust: Trust = None, engine: Engine = None, json: Json = False) -> None:
    """Print how well the model predicts the label of TABLE."""
    from braidwater.cli.use import evaluate as run

    run(model, table, trust=trust or (), engine=engine, json=json)


@app.command()
@reported
def describe(table: Rows, engine: Engine = None, json: Json = False) -> None:
    """Print what is in TABLE: counts, NULLs, means, quantiles, distinct values, correlations."""
    from braidwater.cli.use import describe as run

    run(table, engine=engine, json=json)


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
def doctor(
    spark: Annotated[
        str | None,
        typer.Option(help="Look at the workers of a Spark too: local[2], HOST:PORT, sc://HOST:PORT.", metavar="MASTER"),
    ] = None,
    json: Json = False,
) -> None:
    """Check the installation, measure the machine, and say what is missing."""
    from braidwater.cli.doctor import doctor as run

    run(json=json, spark=spark)


@app.command()
@reported
def simulate(
    batch: Annotated[int, typer.Option(help="Rows of a step over all workers.", metavar="ROWS")] = 8192,
    batch_per_worker: Annotated[
        int | None, typer.Option(help="Rows of a step of each worker, instead: weak scaling.", metavar="ROWS")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A module's import path, package.module:Class; or give figures.", metavar="MODULE"),
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(help="With --model: the width of a row, or its shape 3x224x224.", metavar="SHAPE")
    ] = None,
    outputs: Annotated[int, typer.Option(help="With --model: the number of outputs.", metavar="N")] = 1000,
    parameters: Annotated[float | None, typer.Option(help="Numbers that are learnt, such as 25e6.")] = None,
    bytes_per_parameter: Annotated[int, typer.Option(help="4 for float32, 2 for 16 bits.")] = 4,
    flops_per_row: Annotated[
        float | None, typer.Option(help="Operations of forward and backward of a row, such as 24e9.")
    ] = None,
    activations: Annotated[
        str | None, typer.Option(help="What a row keeps for its backward pass, such as 100MB.", metavar="SIZE")
    ] = None,
    depth: Annotated[int, typer.Option(help="Layers of equal size that the figures are of.", metavar="N")] = 16,
    strategy: Annotated[
        str, typer.Option(help="Strategies, by names and commas.", metavar="NAMES")
    ] = "all_reduce,sharded,pipeline,tensor_parallel",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the strategies: micro_batches=32, tensor=8.", metavar="NAME=VALUE"),
    ] = None,
    workers: Annotated[str, typer.Option(help="1,8,64 or 1,2,...,1024.", metavar="NUMBERS")] = "1,2,...,1024",
    bandwidth: Annotated[str, typer.Option(help="Of a node's line: 10GB/s, 25Gbit/s.", metavar="RATE")] = "10GB/s",
    latency: Annotated[str, typer.Option(help="Of a message between nodes.", metavar="TIME")] = "20us",
    flops: Annotated[float, typer.Option(help="Operations a second that a worker reaches in training.")] = 50e12,
    topology: Annotated[str, typer.Option(help="ring, tree or hierarchical.")] = "ring",
    node_workers: Annotated[int, typer.Option(help="Workers of a node.", metavar="N")] = 1,
    node_bandwidth: Annotated[str, typer.Option(help="Of the lines inside a node.", metavar="RATE")] = "100GB/s",
    node_latency: Annotated[str, typer.Option(help="Of a message inside a node.", metavar="TIME")] = "5us",
    overlap: Annotated[bool, typer.Option(help="Whether gradients travel while backward computes.")] = True,
    jitter: Annotated[float, typer.Option(help="Standard deviation of a step's time over its mean.")] = 0.0,
    memory: Annotated[str | None, typer.Option(help="Of a worker, such as 80GB.", metavar="SIZE")] = None,
    report: Annotated[str | None, typer.Option(help="A page with the curves.", metavar="FILE.html")] = None,
    json: Json = False,
) -> None:
    """Print what training would cost on a cluster that is not here: time, speed-up, bytes and memory by workers."""
    given = {name.rstrip("_"): value for name, value in locals().items()}
    from braidwater.cli.simulate import run

    run(given, json=json, report=report)


@app.command("sql")
@reported
def run_sql(
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="A script; - for standard input.")] = None,
    command: Annotated[str | None, typer.Option("-c", "--command", help="Statements to run.", metavar="SQL")] = None,
    database: Annotated[
        str, typer.Option(help="A DuckDB file or postgresql://USER@HOST/DATABASE.", metavar="PLACE")
    ] = ":memory:",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object a row.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Run SQL in which MADlib's functions can be called: FILE, -c, or a shell."""
    from braidwater.cli.sql import run

    run(file, command, database, as_json=json, as_csv=csv)


@app.command("dml", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@reported
def run_dml(
    context: typer.Context,
    script: Annotated[str, typer.Argument(help="A file in DML.", metavar="SCRIPT")],
    explain: Annotated[str | None, typer.Option(help="Show the plans: hops or runtime.", metavar="LEVEL")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Show what took how long.")] = False,
    lint: Annotated[bool, typer.Option("--lint", help="Look for mistakes without running.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse what SystemDS refuses.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Run operators as written, without the optimiser.")] = False,
    seed: Seed = None,
    memory: Memory = None,
    threads: Annotated[int | None, typer.Option(help="Threads; all cores where left out.", metavar="N")] = None,
    library: Annotated[
        list[str] | None, typer.Option(help="A folder with further functions, NAME.dml.", metavar="FOLDER")
    ] = None,
    engine: Engine = None,
) -> None:
    """Run a script in DML, the language of SystemML: braidwater dml SCRIPT [-args VALUE ...] [-nvargs NAME=VALUE ...]."""
    from braidwater.cli.dml import run

    run(
        script, context.args, explain=explain, stats=stats, lint=lint, strict=strict, plain=plain, seed=seed,
        memory=memory, threads=threads, library=library or (), engine=engine,
    )  # fmt: skip


postgres = typer.Typer(help="Train inside a PostgreSQL server.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(postgres, name="postgres")
Server = Annotated[str, typer.Argument(metavar="ADDRESS", help="postgresql://USER@HOST/DATABASE")]


@postgres.command("install")
@reported
def install_postgres(
    address: Server,
    grant: Annotated[
        list[str] | None,
        typer.Option(help="A role that may use it: it can run any Python as the server's user.", metavar="ROLE"),
    ] = None,
) -> None:
    """Make the schema braidwater with its functions. Needs a superuser and PL/Python."""
    from braidwater.cli.postgres import install

    install(address, grant=grant or ())


@postgres.command("uninstall")
@reported
def uninstall_postgres(address: Server) -> None:
    """Remove the schema braidwater with the packed blocks of all users."""
    from braidwater.cli.postgres import uninstall

    uninstall(address)


@postgres.command("doctor")
@reported
def examine_postgres(address: Server, json: Json = False) -> None:
    """Say what the server has, what is missing, and how to mend it."""
    from braidwater.cli.postgres import doctor

    doctor(address, json=json)


def _given(arguments: dict[str, object]) -> dict[str, object]:
    """The options that were given, by the names that they have in Python and in a job file."""
    others = ("estimator", "table", "json")
    return {name.rstrip("_"): value for name, value in arguments.items() if value is not None and name not in others}
