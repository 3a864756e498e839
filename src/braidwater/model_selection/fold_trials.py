"""Trials that are validated by folds: each is worth the mean over the models of all folds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.blocks.base import Array
from braidwater.encoding.groups import GroupedEncoding
from braidwater.engines import Engine, Task
from braidwater.errors import UnsupportedError
from braidwater.estimators.base import TableEstimator, Training
from braidwater.model_selection.cross_validation import METRICS
from braidwater.model_selection.fold_fit import PART, fit_folds, fold_encoding, part_keys, parted
from braidwater.model_selection.fold_rows import FoldTable
from braidwater.model_selection.folds import Folds
from braidwater.model_selection.rows import RememberedTable, encode_once
from braidwater.model_selection.study import Study, trial_folder
from braidwater.model_selection.trial_run import (
    Found,
    MetricChoice,
    Packed,
    Setup,
    Stretch,
    metric_name,
    refuse_infinite,
    run_stretch,
)
from braidwater.model_selection.variants import SeveralFits, fit_arguments, is_trainer, variant

if TYPE_CHECKING:
    from braidwater.tables import Table

_SHARED = {
    "label",
    "features",
    "exclude",
    "sample_weight",
}  # what `fit` may be told where all folds are fitted in the same passes


@dataclass(frozen=True)
class FoldRows:
    """The folds of a search's rows: one table with the part of each row, or training and test rows fold by fold.

    `whole` are all rows, for the model of the best trial. The tables of all folds share the blocks of `parted`.
    """

    folds: Folds
    parted: RememberedTable
    pairs: Sequence[tuple[FoldTable, FoldTable]]
    whole: FoldTable

    @staticmethod
    def of(rows: Table, folds: Folds) -> FoldRows:
        """No row is copied: which part it is in follows from its number, the seed and the columns that the folds name."""

        together = RememberedTable(parted(rows, folds))

        def rows_of(chosen: Array, name: str) -> FoldTable:
            return FoldTable(rows, folds.parts, np.flatnonzero(chosen).tolist(), together, name)

        pairs = [
            (
                rows_of(folds.train[k], f"{rows.name} (train {k + 1})"),
                rows_of(folds.test[k], f"{rows.name} (test {k + 1})"),
            )
            for k in range(len(folds))
        ]
        return FoldRows(folds, together, pairs, rows_of(np.ones(len(folds.parts.sizes), bool), rows.name))

    def encode(
        self, example: Any, arguments: Mapping[str, Any], metrics: Sequence[MetricChoice], engine: Engine
    ) -> None:
        """Write the blocks that trials will read: one set for all folds, of which each reads its rows."""
        from braidwater.model_selection.searching import encode_for_trials

        if isinstance(example, SeveralFits):
            for model, own in example.fits:
                self.encode(model, own, metrics, engine)
            return
        if in_the_same_passes(example, arguments, metrics):
            template = variant(example, {})
            training = _opened(template, self.parted, arguments)
            encode_once(self.parted, fold_encoding(template, training, self.folds, _names(metrics)), engine)
            return
        if is_trainer(example) or isinstance(example, TableEstimator):
            self._encode_together(example, arguments, engine)
        for train, test in self.pairs:  # only what the shared blocks do not hold
            encode_for_trials(example, train, test, arguments, engine)

    def _encode_together(self, example: Any, arguments: Mapping[str, Any], engine: Engine) -> None:
        if is_trainer(example):
            given = {name: value for name, value in arguments.items() if name in ("label", "features", "weight")}
            encoding = example.encode(self.parted, exclude=[*(arguments.get("exclude") or ()), PART], **given)
        else:
            encoding = _opened(variant(example, {}), self.parted, arguments).encoding
        shared = GroupedEncoding(encoding, part_keys(self.folds))
        encode_once(self.parted, shared, engine)
        for table in (self.whole, *(table for pair in self.pairs for table in pair)):
            table.shared.append(shared)


def in_the_same_passes(model: Any, arguments: Mapping[str, Any], metrics: Sequence[MetricChoice]) -> bool:
    """Whether the models of all folds are fitted and tested together."""
    return (
        isinstance(model, TableEstimator)
        and {name for name, value in arguments.items() if value is not None} <= _SHARED
        and all(isinstance(metric, str) and metric in METRICS[model.target] for metric in metrics)
    )


def run_folds(setup: Setup, stretch: Stretch) -> Found:
    """Train and test on every fold: the mean of each metric, with the value of each fold and their standard deviation."""
    started = time.perf_counter()
    assert setup.folds is not None
    model = variant(setup.model, stretch.parameters)
    names = [metric_name(metric) for metric in setup.metrics]
    own = {**setup.arguments, **fit_arguments(setup.model, stretch.parameters)}
    alone, arguments = (model.model, model.arguments) if isinstance(model, SeveralFits) else (model, own)
    if in_the_same_passes(alone, arguments, setup.metrics):
        training = _opened(alone, setup.folds.parted, arguments)
        found = fit_folds(alone, training, setup.folds.folds, names, None)
        values = np.array([[float(one[name]) for name in names] for one in found.metrics])
        epochs = 0
    else:
        each = [
            run_stretch(replace(setup, rows=train, held_out=test, folds=None, saved=False), stretch)
            for train, test in setup.folds.pairs
        ]
        values = np.array([one.values for one in each])
        epochs = sum(one.epochs for one in each)
    means = values.mean(0)
    refuse_infinite(setup, means.tolist())
    metrics: dict[str, float] = {}
    for place, name in enumerate(names):
        metrics |= {name: float(means[place]), f"{name} (deviation)": float(values[:, place].std(ddof=1))}
        metrics |= {f"{name} (fold {k + 1})": float(value) for k, value in enumerate(values[:, place])}
    return Found(tuple(means.tolist()), metrics, epochs, time.perf_counter() - started)


def refit(study: Study, setup: Setup, engine: Engine) -> None:
    """Train the best trial's parameters once more, on all rows: the model that the study keeps."""
    ended = [trial for trial in study.trials if trial.values is not None and trial.state != "failed"]
    if not ended:
        return
    best = study.best_trial
    folder = trial_folder(study.folder, best.number)
    if (Path(folder) / "model").is_dir() or not hasattr(variant(setup.model, best.parameters), "save"):
        return
    stretch = Stretch(best.number, best.parameters, str(folder))
    rows = setup.rows if setup.folds is None else setup.folds.whole
    whole = Packed(replace(setup, rows=rows, folds=None, held_out=None, metrics=()))
    for outcome in engine.tasks([Task(f"trial {best.number} on all rows", run_stretch, (whole, stretch))]):
        if outcome.error is not None:
            raise UnsupportedError(
                f"The best trial, {best.number}, could not be trained on all rows: {outcome.error}"
            ) from outcome.error


def _opened(model: TableEstimator, rows: Table, arguments: Mapping[str, Any]) -> Training:
    given = {"features": None, "label": None, "sample_weight": None, **arguments}
    given["exclude"] = [*(arguments.get("exclude") or ()), PART]
    return model._open(rows, None, offset=None, engine=None, **given)


def _names(metrics: Sequence[MetricChoice]) -> list[str]:
    return [metric_name(metric) for metric in metrics]
