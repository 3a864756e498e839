"""``braidwater demo``: two models on real data, from a DuckDB file to predictions, saved models and a report.

The data ship with scikit-learn: the breast cancer table of Wisconsin (569 rows, 30 measurements of cell nuclei) and 1797
scans of handwritten digits, 8 × 8 pixels each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

import braidwater as bw
from braidwater.cli.models import coefficients, scalars
from braidwater.cli.output import print_figures
from braidwater.report import Record, Report
from braidwater.report.html import figure
from braidwater.report.models import estimator
from braidwater.tables import Table

# six of the thirty measurements: all of them separate the classes, and then no standard error exists
MEASUREMENTS = ("mean_texture", "mean_area", "mean_smoothness", "mean_concave_points", "mean_symmetry", "texture_error")
EPOCHS = 12


@dataclass
class Trained:
    """A model of the demo with all that the report shows of it."""

    model: Any
    record: Record
    evaluation: dict[str, Any]
    plan: Any
    seconds: float
    rows: int


def demo(output: str) -> None:
    """Run all steps and say what was made. About half a minute on two cores."""
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    database = str(folder / "demo.duckdb")
    started = time.perf_counter()
    _heading("Write two tables into a DuckDB file")
    write_data(database)
    with bw.progress():
        cancer = _logistic_regression(database, folder)
        digits = _cnn(database, folder)
    _heading("Write the report")
    page = make_report(database, cancer, digits).write(folder / "report.html")
    typer.echo(f"{page}\nDone in {time.perf_counter() - started:.0f} s.")


def write_data(database: str) -> None:
    """The tables ``cancer`` (measurements and diagnosis) and ``digits`` (64 pixels as a list, and the digit)."""
    import numpy as np
    import pyarrow as pa
    from sklearn.datasets import load_breast_cancer, load_digits

    found = load_breast_cancer()
    columns = {name.replace(" ", "_"): found.data[:, j] for j, name in enumerate(found.feature_names)}
    columns["diagnosis"] = [str(found.target_names[code]) for code in found.target]
    scans = load_digits()
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(scans.data.astype(np.uint8).ravel()), 64)
    for name, data in (("cancer", pa.table(columns)), ("digits", pa.table({"pixels": pixels, "digit": scans.target}))):
        rows = bw.write_table(data, f"{database}::{name}")
        typer.echo(f"{database}::{name}  {len(rows):,} rows, {len(rows.column_names)} columns")


def _logistic_regression(database: str, folder: Path) -> Trained:
    _heading("Logistic regression: is the tumour malignant?")
    train, test = bw.train_test_split(bw.table(f"{database}::cancer"), test=0.2, seed=0)
    model = bw.LogisticRegression()
    features = {name: bw.Numeric(standardise=True) for name in MEASUREMENTS}
    trained = _train(model, train, test, {"label": "diagnosis", "features": features})
    typer.echo(model.summary())
    _finish(trained, test, f"{database}::cancer_predictions", folder / "logistic-regression")
    return trained


def _cnn(database: str, folder: Path) -> Trained:
    _heading("Convolutional net with two workers: which digit is it?")
    train, test = bw.train_test_split(bw.table(f"{database}::digits"), test=0.2, seed=0)
    build = estimator("cnn")
    model = build(epochs=EPOCHS, batch_size=64, learning_rate=5e-3, schedule="cosine", strategy=bw.AllReduce(workers=2))
    pixels = bw.Image((8, 8), scale=1 / 16)  # the scans have 17 shades, from 0 to 16
    trained = _train(model, train, test, {"label": "digit", "features": {"pixels": pixels}})
    _finish(trained, test, f"{database}::digits_predictions", folder / "cnn")
    return trained


def _train(model: Any, train: Table, test: Table, arguments: dict[str, Any]) -> Trained:
    """Plan, print the plan, fit with the measurements beside it, evaluate on the rows held out."""
    plan = bw.explain(model, train, **arguments)
    typer.echo(f"{plan}\n")
    record = Record()
    with record.recording(), plan.measuring(), _timed() as taken:
        model.fit(train, **arguments)
    evaluation = model.evaluate(test)
    return Trained(model, record, evaluation, plan, taken[0], len(train))


def _finish(trained: Trained, test: Table, predictions: str, folder: Path) -> None:
    """Write predictions back beside the data, print the metrics, save the model."""
    bw.write_table(trained.model.predict(test), predictions)
    metrics = scalars(trained.evaluation)
    print_figures({f"{name} (held-out rows)": value for name, value in metrics.items()})
    trained.model.save(folder, metrics=metrics)
    typer.echo(f"predictions in {predictions}\nmodel in {folder}")


def make_report(database: str, cancer: Trained, digits: Trained) -> Report:
    """The page with both models."""
    report = Report("braidwater demo", f"Two models, trained where the data lies: {database}")
    report.section(
        "Logistic regression",
        f"Breast cancer, {cancer.rows:,} rows to train on. Coefficients are log-odds of a malignant tumour against a benign one "
        "for one standard deviation of each measurement.",
    )
    _metrics(report, cancer)
    values, errors = coefficients(cancer.model)
    report.coefficients(MEASUREMENTS, [values[n] for n in MEASUREMENTS], [errors[n] for n in MEASUREMENTS])
    _confusion(report, cancer)
    columns = cancer.model.coefficients_.to_dict()
    heads = ["coefficient", "standard_error", "statistic", "p_value", "low", "high"]
    rows = [[name, *(columns[head][name] for head in heads)] for name in values]
    report.table(["", "coefficient", "std. error", "z", "p", "2.5 %", "97.5 %"], rows)
    report.record(cancer.record)
    report.section(
        "Convolutional net",
        f"Handwritten digits, {digits.rows:,} scans to train on; two processes that average their gradients after each step.",
    )
    _metrics(report, digits)
    report.record(digits.record)
    _confusion(report, digits)
    report.section("Plans", "What was estimated before each training, and what it came to.")
    report.text(str(cancer.plan))
    report.text(str(digits.plan))
    return report


def _metrics(report: Report, trained: Trained) -> None:
    metrics = {name.replace("_", " "): value for name, value in scalars(trained.evaluation).items()}
    report.metrics(
        {**metrics, "held-out rows": int(trained.evaluation["rows"]), "seconds to train": figure(trained.seconds)}
    )


def _confusion(report: Report, trained: Trained) -> None:
    counts = [[int(count) for count in row] for row in trained.evaluation["confusion"]]
    report.confusion(counts, list(trained.model.classes_), "Confusion matrix of the held-out rows")


def _heading(text: str) -> None:
    typer.echo(f"\n── {text}")


@contextmanager
def _timed() -> Iterator[list[float]]:
    """A list that holds the seconds of the block once it is left."""
    taken: list[float] = []
    started = time.perf_counter()
    yield taken
    taken.append(time.perf_counter() - started)
