"""The page of a study: what was found, how the search went, and what each hyperparameter does."""

from __future__ import annotations

import json
from typing import Any

from braidwater.errors import UnsupportedError
from braidwater.model_selection.ablation.picture import add_effects
from braidwater.model_selection.ablation.result import is_ablation
from braidwater.model_selection.pictures import (
    history,
    importance_chart,
    parallel_coordinates,
    slice_chart,
    workers,
)
from braidwater.model_selection.study import Study
from braidwater.report import Report

_MOST_ROWS = 200


def make_report(study: Study) -> Report:
    """The best trial, the history, parallel coordinates, a slice for each hyperparameter, their importance, workers, trials."""
    trials, metric = study.trials, study.metrics[0]
    states = [trial.state for trial in trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    report = Report(f"Search: {study.name}", f"{len(trials)} trials ({counted}), compared by {metric}")
    shown = [trial for trial in trials if trial.value is not None and trial.state != "failed"]
    if is_ablation(study):
        add_effects(report, study)
    elif shown:
        best = study.best_trial
        report.section("Best trial", f"Trial {best.number} of {len(trials)}.")
        report.metrics(dict(zip(study.metrics, best.values or (), strict=True)) | {"seconds": best.seconds})
        report.table(["hyperparameter", "value"], [[name, _text(value)] for name, value in best.parameters.items()])
        report.section("History")
        report.figure(history(shown, metric, study.sign), f"{metric} of each trial")
        report.figure(parallel_coordinates(shown, metric, study.sign), "All hyperparameters", "Dark: the better fifth.")
        report.section("Hyperparameters", "Grey: trials that were not trained to the end.")
        for name in dict.fromkeys(name for trial in shown for name in trial.parameters):
            report.figure(slice_chart(shown, name, metric), name, narrow=True)
        shares = _importance(study)
        if shares:
            report.figure(importance_chart(shares), "Importance", "fANOVA: the share of the metric's spread.")
    report.section("Workers", "A bar is a trial. One that went on later is shown at its first beginning.")
    report.figure(workers(trials), "What each worker did")
    report.section("Trials", "" if len(trials) <= _MOST_ROWS else f"The first {_MOST_ROWS} of {len(trials)}.")
    columns = ["trial", "state", *study.metrics, "epochs", "seconds", "hyperparameters", "error"]
    report.table(columns, [_row(trial, len(study.metrics)) for trial in trials[:_MOST_ROWS]])
    return report


def _row(trial: Any, metrics: int) -> list[object]:
    error = "" if trial.error is None else trial.error.splitlines()[0]
    values = trial.values or (None,) * metrics
    told = ", ".join(f"{name} = {_text(value)}" for name, value in trial.parameters.items())
    return [trial.number, trial.state, *values, trial.epochs, trial.seconds, told, error]


def _importance(study: Study) -> dict[str, float]:
    try:
        return study.importance()
    except (UnsupportedError, ValueError, RuntimeError):  # too few trials, or all of one value
        return {}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
