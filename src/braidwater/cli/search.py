"""``braidwater search``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from braidwater.cli.job import Job
from braidwater.cli.models import fit_arguments, make_model
from braidwater.cli.output import print_figures, print_json
from braidwater.cli.place import place_of
from braidwater.errors import UserError
from braidwater.options import options
from braidwater.tables import table

if TYPE_CHECKING:
    from braidwater.model_selection import Study


def search(
    job: Job, space: Mapping[str, Any], settings: Mapping[str, Any], *, json: bool, explain: bool = False
) -> None:
    """Search, print the best trial, save its model; or `explain` what would be done."""
    from braidwater.model_selection import Budget, explain_search, watch
    from braidwater.model_selection import search as run

    given = dict(settings)
    bounds = {name: given.pop(name, None) for name in ("trials", "seconds", "epochs")}
    if set(bounds.values()) == {None}:
        bounds["trials"] = 50
    with session(job), place_of(job.engine, job.table, job.workers) as where:
        rows = table(job.table)
        model = make_model(job)
        validation = validation_of(model, job, given.pop("folds", None))
        given |= {"budget": Budget(**bounds), "validation": validation, "seed": job.seed}
        given |= fit_arguments(job, rows) | where
        if explain:
            known = {name: value for name, value in given.items() if name not in _OF_THE_RUN}
            typer.echo(str(explain_search(model, space, rows, **known)))
            return
        with watch():
            study = run(model, space, rows, **given)
        if job.report is not None:
            study.report().write(job.report)
        saved = None
        if job.output is not None:
            best_model = study.best_model(trust=[job.module.partition(".")[0]]) if job.module else study.best_model()
            saved = best_model.save(job.output, metrics=study.best_trial.metrics)
    if json:
        print_json(_document(study) | ({} if saved is None else {"output": str(saved)}))
        return
    best = study.best_trial
    print_figures({"trials": len(study.trials), "best trial": best.number})
    print_figures(dict(zip(study.metrics, best.values or (), strict=True)) | best.parameters)
    for what, place in (("saved to", saved), ("report in", job.report)):
        if place is not None:
            typer.echo(f"{what} {place}")


_OF_THE_RUN = ("storage", "name", "resume", "keep")  # settings that are none of a plan's


def session(job: Job) -> Any:
    """The options that the job asks for."""
    return options(
        **{name: value for name, value in (("memory", job.memory), ("workers", job.workers)) if value is not None}
    )


def validation_of(model: Any, job: Job, folds: int | None) -> Any:
    """Folds, stratified where a class is learnt; or the share of the rows that is held out."""
    if folds is None:
        return job.test or 0.2
    from braidwater.model_selection.folds import splitter_of

    if job.test is not None:
        raise UserError("Give either folds or test: trials are compared on the one or the other.")
    return splitter_of(folds, getattr(model, "target", "number"))


def parse_parameter(text: str) -> tuple[str, Any]:
    """``NAME=LOW..HIGH``, with ``:log`` or ``:step=S`` after it, or ``NAME=VALUE|VALUE|...`` with the values as TOML.

    >>> parse_parameter("learning_rate=1e-4..1e-1:log")
    ('learning_rate', Float(low=0.0001, high=0.1, log=True, step=None))
    >>> parse_parameter("hidden=[32]|[64,32]"), parse_parameter("batch_size=16..256:step=16")
    (('hidden', Choice(values=[[32], [64, 32]])), ('batch_size', Int(low=16, high=256, log=False, step=16)))
    """
    from braidwater.model_selection.space import Choice, Float, Int, as_parameter

    name, separator, wish = text.partition("=")
    name = name.strip()
    if not separator or not name or not wish:
        raise typer.BadParameter(f"{text!r} is not of the form NAME=LOW..HIGH or NAME=A|B.", param_hint="--param")
    low, dots, rest = wish.partition("..")
    if not dots or "|" in wish:
        return name, as_parameter(name, Choice([_value(part.strip()) for part in wish.split("|")]))
    high, *marks = rest.split(":")
    ends = [_value(low), _value(high)]
    flags = dict(mark.partition("=")[::2] for mark in marks)
    numbers = [*ends, *([_value(flags["step"])] if "step" in flags else [])]
    if not all(isinstance(one, (int, float)) for one in numbers) or set(flags) - {"log", "step"}:
        raise typer.BadParameter(f"{text!r} is no range of numbers, such as 1e-4..1e-1:log.", param_hint="--param")
    kind: Any = Int if all(isinstance(one, int) for one in numbers) else Float
    step = {"step": numbers[2]} if "step" in flags else {}
    return name, as_parameter(name, kind(*ends, log="log" in flags, **step))


def _value(text: str) -> Any:
    """A TOML value; a bare word is a text. TOML wants a digit on both sides of a point and knows 1e-4."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _document(study: Study) -> dict[str, Any]:
    best = study.best_trial
    return {
        "study": study.name,
        "metrics": list(study.metrics),
        "directions": list(study.directions),
        "best": {"trial": best.number, "values": best.values, "parameters": best.parameters, "metrics": best.metrics},
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "values": trial.values,
                "parameters": trial.parameters,
                "epochs": trial.epochs,
                "seconds": trial.seconds,
                "error": trial.error,
            }
            for trial in study.trials
        ],
    }
