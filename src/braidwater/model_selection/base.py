"""What a search is made of: trials, a budget, and the contract of who decides how far each trial is trained."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, cast, get_args

from braidwater.errors import OptionError

State = Literal["running", "paused", "complete", "pruned", "failed"]
Direction = Literal["minimize", "maximize"]

# of metrics whose name says which way is better
_SMALLER = ("loss", "error", "rmse", "mae", "mse", "inertia", "deviance", "aic", "bic", "perplexity")
_LARGER = ("accuracy", "auc", "auroc", "r2", "f1", "precision", "recall", "likelihood", "score")


@dataclass
class Trial:
    """One setting of the hyperparameters, and what came of it.

    `values` has one number for each metric of the search. `results` holds the value of the first metric by the epochs
    after which it was taken: after each stretch of training that a scheduler granted. `reports` holds what was heard during
    training, by epoch. `seconds` are those of all its stretches, `started` is a time since the epoch. A *paused* trial was
    not found worth more, or time was up: it can go on from its checkpoint; a *pruned* one was stopped for good. `parent` is the
    trial whose weights it began with.
    """

    number: int
    parameters: dict[str, Any]
    state: State = "running"
    values: tuple[float, ...] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    epochs: int = 0
    error: str | None = None
    started: float = 0.0
    worker: int | None = None
    attempts: int = 0
    parent: int | None = None
    target: int | None = None  # epochs that it was granted; None: those of the model
    results: dict[int, float] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """The value of the first metric; None where there is none yet."""
        return None if self.values is None else self.values[0]


@dataclass(frozen=True)
class Budget:
    """What a search may cost: so many trials, seconds of wall time, or epochs over all trials; the first that is reached.

    When the time is over, running trials are stopped at their next metric and can go on later (`resume`).
    """

    trials: int | None = None
    seconds: float | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.trials is self.seconds is self.epochs is None:
            raise OptionError("budget", "Budget()", "a number of trials, seconds or epochs: something has to end it")
        for name, value in (("trials", self.trials), ("seconds", self.seconds), ("epochs", self.epochs)):
            if value is not None and not value > 0:
                raise OptionError(name, value, "above 0")

    @staticmethod
    def of(wish: Budget | int) -> Budget:
        """A number is one of trials."""
        return wish if isinstance(wish, Budget) else Budget(trials=wish)


@dataclass(frozen=True)
class Continue:
    """Train the paused trial `number` until it has seen `epochs`."""

    number: int
    epochs: int


@dataclass(frozen=True)
class Spawn:
    """End the trial `instead_of`, and begin one with `parameters` from the checkpoint of `parent`, for `more` epochs."""

    instead_of: int
    parent: int
    parameters: dict[str, Any]
    more: int


Move = Continue | Spawn


class Scheduler(ABC):
    """Decides how far each trial is trained, knowing what came of the others. As it stands: every one to its end.

    It has no state: each decision follows from the trials alone, so a search that was interrupted goes on with the same
    decisions. Values are given so that smaller is better (`cost`). It is asked whenever a worker is free, and never makes one
    wait for another.
    """

    name: ClassVar[str]
    in_epochs: ClassVar[bool] = (
        False  # whether it needs a model that is trained by epochs and goes on from a checkpoint
    )
    several_metrics: ClassVar[bool] = False
    begins_all: ClassVar[bool] = False  # whether all trials of the budget begin before one goes on

    def first_epochs(self, number: int, most: int | None) -> int | None:
        """How many of `most` epochs a new trial gets to begin with."""
        return most

    def move(self, trials: Mapping[int, Trial], most: int, sign: float) -> Move | None:
        """What to do rather than to begin a new trial; None where nothing is."""
        return None

    def verdict(self, trial: Trial, most: int | None) -> State:
        """The state of a trial that has reached the epochs that it was granted."""
        return "complete" if most is None or trial.epochs >= most else "paused"

    def stops(self, study: Any, trial: Any) -> bool:
        """Whether to stop a running trial, after its newest report. Both are Optuna's."""
        return False


class ToTheEnd(Scheduler):
    """No early stopping: every trial is trained to its end."""

    name = "none"
    several_metrics = True


def cost(value: float, sign: float) -> float:
    """A value so that smaller is better; what is no number is worst."""
    return math.inf if math.isnan(value) else sign * value


def direction_of(metric: str, wish: str) -> Direction:
    """Which way a metric is better: as told, or by its name.

    >>> direction_of("validation_loss", "auto"), direction_of("roc_auc", "auto")
    ('minimize', 'maximize')
    """
    for known in get_args(Direction):
        if wish == known:
            return cast(Direction, known)
    if wish != "auto":
        raise OptionError("direction", wish, "one of auto, minimize, maximize")
    words = metric.lower()
    larger = any(word in words for word in _LARGER)
    smaller = any(word in words for word in _SMALLER)
    if larger == smaller:
        near = get_close_matches(words, (*_SMALLER, *_LARGER), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise OptionError("direction", "auto", f"minimize or maximize: the name {metric!r} does not say which{hint}")
    return "maximize" if larger else "minimize"
