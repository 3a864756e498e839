"""An ensemble of the best trials of a study, put together on rows that they were not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidwater.blocks.base import Array
from braidwater.errors import OptionError, UnsupportedError
from braidwater.model_selection.base import cost
from braidwater.model_selection.ensembles.members import Members
from braidwater.model_selection.ensembles.model import COMBINATIONS, Combine, TrialEnsemble, stacking_features
from braidwater.model_selection.ensembles.selection import COSTS, cost_of, greedy_selection
from braidwater.model_selection.study import Study, model_folder
from braidwater.tables import table


def ensemble_of(
    study: Study,
    data: Any = None,
    *,
    label: str | None = None,
    combine: Combine = "greedy",
    members: int | None = None,
    size: int = 25,
    metric: str | None = None,
    **options: Any,
) -> TrialEnsemble:
    """The best trials of a study as one model; see `TrialEnsemble` for how their answers are combined.

    `data` are the rows on which ``"greedy"`` and ``"stacking"`` are fitted: those that were held out, where this process ran the
    search and nothing else is said, and never those that the models were trained on. `members` are the most models to
    choose from, best first: of those that the study kept (`search(keep=...)`). Greedy selection takes `size` times the model
    that makes `metric` best (the study's, where it is one of accuracy, log_loss, roc_auc, rmse, r2, mae), so it is at least as
    good as the best member on `data`; that figure is optimistic, and `evaluate` on other rows is not.

    `options` go to the ``load`` of the models (``trust``, ``module``). Cost: predictions of `data` by each model, in memory.
    """
    if combine not in COMBINATIONS:
        raise OptionError("combine", combine, f"one of {', '.join(COMBINATIONS)}")
    numbers = _kept_trials(study)[:members]
    if not numbers:
        raise UnsupportedError(f"Study {study.name!r} has no model of a finished trial. Search with keep=10 or so.")
    models = [study.model(number, **options) for number in numbers]
    label = label or study.label
    if label is None:
        raise OptionError("label", None, "the column that the models learnt")
    if combine in ("mean", "vote"):
        return TrialEnsemble(models, [1.0] * len(models), combine, label=label, trials=numbers)
    rows = study.held_out if data is None else table(data)
    if rows is None:
        raise OptionError("data", None, f"rows that the models were not trained on, for combine={combine!r}")
    found = Members.of(models)
    outputs, labels = found.outputs_and_labels(rows, label)
    if not len(labels):
        raise OptionError("data", rows.name, "a table with rows that all models answer")
    if combine == "stacking":
        stacker = _stacker(outputs, labels, found.classes)
        return TrialEnsemble(models, [1.0] * len(models), combine, label=label, trials=numbers, stacker=stacker)
    chosen = greedy_selection(outputs, labels, cost_of(metric or _metric_of(study, found)), size)
    taken = np.flatnonzero(chosen.counts).tolist()
    return TrialEnsemble(
        [models[place] for place in taken],
        chosen.counts[taken].tolist(),
        "greedy",
        label=label,
        trials=[numbers[place] for place in taken],
        costs=chosen.costs,
    )


def _kept_trials(study: Study) -> list[int]:
    """The numbers of complete trials whose models are there, best first."""
    ended = [trial for trial in study.trials if trial.state == "complete" and trial.value is not None]
    there = [trial for trial in ended if model_folder(study.folder, trial.number).is_dir()]
    return [
        one.number for one in sorted(there, key=lambda one: (cost(float(one.value or 0.0), study.sign), one.number))
    ]


def _metric_of(study: Study, members: Members) -> str:
    name = study.metrics[0].removeprefix("validation_")
    if name in COSTS:
        return name
    return "rmse" if members.classes is None else "log_loss"


def _stacker(outputs: Array, labels: Array, classes: list[Any] | None) -> Any:
    """A regression on the answers of the members, with a small penalty: they resemble each other."""
    from braidwater.estimators import LinearRegression, LogisticRegression

    features = stacking_features(outputs, classes is not None)
    if classes is None:
        return LinearRegression(alpha=1e-3 * float(np.var(features)) or 1e-3).fit(features, labels)
    if len(np.unique(labels)) < len(classes):
        raise OptionError("data", "rows with some of the classes only", "rows with every class, for combine='stacking'")
    # columns that are nearly parallel take hundreds of passes, over rows that lie in memory
    return LogisticRegression(alpha=1e-2, tol=1e-5, max_iter=2000).fit(features, labels)
