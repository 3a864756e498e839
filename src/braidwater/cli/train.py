"""``braidwater train`` and ``braidwater explain``."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import typer

from braidwater.cli.job import Job
from braidwater.cli.models import (
    coefficients,
    fit_arguments,
    make_model,
    own_figures,
    scalars,
)
from braidwater.cli.output import print_figures, print_json
from braidwater.cli.place import place_of
from braidwater.errors import UnsupportedError
from braidwater.events import listen
from braidwater.options import options
from braidwater.report import Record, Report, progress
from braidwater.report import explain as explain_plan
from braidwater.report.explaining import target_of
from braidwater.tables import Table, table, train_test_split


def train(job: Job, *, json: bool) -> None:
    """Fit, evaluate, save and print."""
    with _session(job), place_of(job.engine, job.table, job.workers) as where:
        rows, held_out = _tables(job)
        model = make_model(job)
        arguments = fit_arguments(job, rows) | where
        record = Record()
        with progress(), listen(record), _tensorboard(job):
            started = time.perf_counter()
            model.fit(rows, **arguments)
            seconds = time.perf_counter() - started
            evaluation = _evaluate(model, rows if held_out is None else held_out, where)
        plan = getattr(model, "plan_", None)
        metrics = scalars(evaluation) or own_figures(model)
        trained = len(rows) if not record.passes else record.passes[0].rows
        values, errors = coefficients(model)
        summary = {
            "estimator": job.name,
            "rows": trained,
            "passes": len([one for one in record.passes if one.what != "evaluate"]),
            "seconds": seconds,
            "metrics": metrics,
            "evaluated_on": "training rows" if held_out is None else "held-out rows",
            "coefficients": values,
            "standard_errors": errors,
            "plan": None if plan is None else plan.to_json(),
        }
        saved = None if job.output is None else model.save(job.output, metrics=metrics)
        if job.report is not None:
            _report(job, summary, evaluation, record, plan).write(job.report)
    if json:
        print_json(summary | ({} if saved is None else {"output": str(saved)}))
        return
    if hasattr(model, "summary"):
        typer.echo(model.summary())
    print_figures({f"{name} ({summary['evaluated_on']})": value for name, value in metrics.items()})
    for what, place in (("saved to", saved), ("report in", job.report), ("TensorBoard files in", job.tensorboard)):
        if place is not None:
            typer.echo(f"{what} {place}")


def explain(job: Job, *, json: bool) -> None:
    """Print the plan of the job. Nothing is trained."""
    with _session(job), place_of(job.engine, job.table, job.workers) as where:
        from braidwater.planner import machine

        machine()  # measured once: a plan that was asked for is worth two seconds
        rows, _ = _tables(job)
        model = make_model(job)
        plan = _plan(model, rows, fit_arguments(job, rows) | where, job)
    if plan is None:
        raise UnsupportedError(f"{job.name} cannot be explained: it does not describe its work.")
    if json:
        print_json(plan.to_json())
    else:
        typer.echo(str(plan))


def _tensorboard(job: Job) -> Any:
    if job.tensorboard is None:
        return nullcontext()
    from braidwater.report import TensorBoard

    return TensorBoard(job.tensorboard)


def _session(job: Job) -> Any:
    changes = {name: value for name, value in (("memory", job.memory), ("workers", job.workers)) if value is not None}
    return options(**changes) if changes else nullcontext()


def _tables(job: Job) -> tuple[Table, Table | None]:
    """The rows to train on, and those that are held out."""
    rows = table(job.table)
    if job.test is None:
        return rows, None
    return train_test_split(rows, job.test, seed=job.seed)


def _plan(model: Any, rows: Table, arguments: dict[str, Any], job: Job) -> Any:
    if not hasattr(model, "work"):
        return None
    name = job.strategy if isinstance(job.strategy, str) else job.strategy.get("name", "auto")
    return explain_plan(model, rows, **arguments, workers=job.workers, strategy=name)


def _evaluate(model: Any, rows: Table, where: dict[str, Any]) -> dict[str, Any]:
    """Figures on `rows`, for a model that predicts a label."""
    if target_of(model) == "none" or not hasattr(model, "evaluate"):
        return {}
    return dict(model.evaluate(rows, **where))


def _report(job: Job, summary: dict[str, Any], evaluation: dict[str, Any], record: Record, plan: Any) -> Report:
    report = Report(f"{job.name} on {job.table}", f"{summary['rows']:,} rows, {summary['passes']} passes")
    report.section("Metrics", f"Computed on {summary['evaluated_on']}.")
    report.metrics(summary["metrics"])
    if "confusion" in evaluation:
        counts = [[int(count) for count in row] for row in evaluation["confusion"]]
        report.confusion(counts, evaluation.get("classes") or range(len(counts)))
    names = [name for name in summary["coefficients"] if name != "intercept"]
    if names:
        errors = [summary["standard_errors"][name] for name in names]
        report.coefficients(names, [summary["coefficients"][name] for name in names], errors)
    report.section("Training")
    report.record(record)
    if plan is not None:
        report.section("Plan")
        report.text(str(plan))
    return report
