"""One stretch of one trial, in the process where it is trained."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from braidwater.errors import OptionError, UserError
from braidwater.model_selection.variants import Stretched, fit_arguments, is_trainer, variant
from braidwater.tables import Table

if TYPE_CHECKING:
    from braidwater.model_selection.fold_trials import FoldRows

MetricChoice = str | Callable[..., float]
ROLES = ("label", "features", "exclude", "sample_weight")  # arguments of `fit` that trials in shared passes may have


@dataclass(frozen=True)
class Setup:
    """What all trials of a search have in common.

    `held_out` are the rows that models are compared on; None: those they were trained on. `arguments` go to `fit`. Where blocks
    are all that models need, `rows` may be None. Fitted models
    are saved where `saved` is true. With `folds` each trial is trained on the training rows of every fold instead.
    """

    model: Any
    rows: Table | None
    held_out: Table | None
    arguments: Mapping[str, Any]
    metrics: tuple[MetricChoice, ...]
    saved: bool = True
    folds: FoldRows | None = None


@dataclass(frozen=True)
class Stretch:
    """What a trial is asked to do: be trained with `parameters` until it has seen `epochs` of `most`.

    `folder` is the trial's own. Where `resumable`, the trial goes on from the checkpoint there, and leaves one.
    """

    number: int
    parameters: dict[str, Any]
    folder: str
    epochs: int | None = None
    most: int | None = None
    resumable: bool = False


@dataclass(frozen=True)
class Found:
    """What came of it: a number for each metric of the search, and every figure that is known of the model."""

    values: tuple[float, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: int = 0
    seconds: float = 0.0


class Packed:
    """A value that is pickled once for all trials, and unpickled once a process: it arrives there as the value itself."""

    def __init__(self, value: Any) -> None:
        self._packed = cloudpickle.dumps(value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self._packed,)


def run_stretch(setup: Setup, stretch: Stretch) -> Found:
    """Train, measure, and save the model into the trial's folder."""
    if setup.folds is not None:
        from braidwater.model_selection.fold_trials import run_folds

        return run_folds(setup, stretch)
    started = time.perf_counter()
    model = _prepared(setup.model, stretch)
    rows = setup.rows
    arguments = {**setup.arguments, **fit_arguments(setup.model, stretch.parameters)}
    if setup.held_out is not None and "validation" in inspect.signature(model.fit).parameters:
        arguments["validation"] = setup.held_out
    model.fit(rows, **arguments)
    epochs = stretch.epochs or len(getattr(model, "history_", ()))
    return replace(measured(model, setup, stretch), epochs=epochs, seconds=time.perf_counter() - started)


def roles_of(setup: Setup, stretch: Stretch) -> dict[str, Any]:
    """The columns of a trial by their roles, for those who open its training without `fit`."""
    nothing = dict.fromkeys(ROLES) | {"exclude": ()}
    return {**nothing, **setup.arguments, **fit_arguments(setup.model, stretch.parameters)}


def measured(model: Any, setup: Setup, stretch: Stretch) -> Found:
    """What a fitted model is worth; it is saved into the trial's folder."""
    figures = figures_of(model)
    values = tuple(_value(metric, model, figures, setup) for metric in setup.metrics)
    refuse_infinite(setup, values)
    if setup.saved and hasattr(model, "save"):
        model.save(Path(stretch.folder) / "model", metrics=figures)
    return Found(values, figures)


def refuse_infinite(setup: Setup, values: Iterable[float]) -> None:
    """Raise for a metric that is no number: trials cannot be compared by it."""
    for metric, value in zip(setup.metrics, values, strict=True):
        if not math.isfinite(value):
            raise OptionError("metric", metric_name(metric), f"a finite number, and this trial's is {value}")


def figures_of(model: Any) -> dict[str, float]:
    """What a fitted model knows of itself: the record of the epoch that its weights are of."""
    history = getattr(model, "history_", None)
    if not isinstance(history, list) or not history:
        return {}
    best = getattr(model, "best_epoch_", 0) or len(history)
    record = history[min(best, len(history)) - 1]
    return {name: float(value) for name, value in record.items() if isinstance(value, (int, float))}


def _value(metric: MetricChoice, model: Any, figures: dict[str, float], setup: Setup) -> float:
    """The metric of a fitted model. `figures` takes up what had to be computed for it."""
    rows = setup.rows if setup.held_out is None else setup.held_out
    if not isinstance(metric, str):
        found = float(metric(model, rows))
        figures[metric_name(metric)] = found
        return found
    validated = f"validation_{metric}"
    for name in (metric, validated) if setup.held_out is None else (validated, metric):
        if name in figures:
            return figures[name]
    own = getattr(model, f"{metric}_", None)
    if isinstance(own, (int, float)):
        figures[metric] = float(own)
    elif hasattr(model, "evaluate"):
        evaluation = model.evaluate(rows)
        figures |= {name: float(value) for name, value in evaluation.items() if isinstance(value, (int, float))}
    if metric not in figures:
        raise OptionError(
            "metric", metric, f"one of {', '.join(sorted(figures)) or 'none: the model tells no figures'}"
        )
    return figures[metric]


def _prepared(model: Any, stretch: Stretch) -> Any:
    """The model of a stretch: where it is resumable, with its epochs, its checkpoint, and its part of the schedule."""
    made = variant(model, stretch.parameters)
    if not is_trainer(made):
        if stretch.resumable:
            raise UserError(
                f"A {type(made).__name__} is not trained by epochs: it cannot be stopped and go on. Use scheduler=None."
            )
        return made
    if stretch.resumable:
        made.checkpoint = str(Path(stretch.folder) / "checkpoint")
        made.checkpoint_every = "epoch"
        made.resume = True
    if stretch.epochs is not None and stretch.most is not None:
        made.epochs = stretch.epochs
        if made.schedule is not None:
            made.schedule = Stretched(made.schedule, stretch.epochs, stretch.most)
    return made


@lru_cache(maxsize=2)
def _unpacked(packed: bytes) -> Any:
    return cloudpickle.loads(packed)


def metric_name(metric: MetricChoice) -> str:
    """What a metric is called in records."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
