"""Population-based training: the worst take over weights of the best, and go on with other hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import numpy as np

from braidwater.errors import OptionError
from braidwater.model_selection.base import Continue, Move, Scheduler, Spawn, Trial, cost


@dataclass(frozen=True)
class PopulationBased(Scheduler):
    """Trials are trained `interval` epochs at a time. One among the worst `quantile` ends, and another takes its place: with
    the weights and the optimiser's state of one of the best `quantile`, and its numbers times one of `factors`.

    Jaderberg, Dalibard, Osindero, Czarnecki et al. 2017, "Population Based Training of Neural Networks". Only
    hyperparameters that may change during training are perturbed: the learning rate, arguments of the optimiser, and those
    named in `perturb`. The budget's `trials` is the size of the population; those that take another's place do not count.
    Trials are compared after the same number of epochs, with those that have come as far by then.
    """

    name: ClassVar[str] = "population_based"
    in_epochs: ClassVar[bool] = True
    begins_all: ClassVar[bool] = True
    interval: int = 1
    quantile: float = 0.25
    factors: tuple[float, ...] = (0.8, 1.25)
    perturb: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise OptionError("interval", self.interval, "at least 1 epoch")
        if not 0 < self.quantile <= 0.5:
            raise OptionError("quantile", self.quantile, "above 0 and at most 0.5")

    def first_epochs(self, number: int, most: int | None) -> int | None:
        return None if most is None else min(self.interval, most)

    def move(self, trials: Mapping[int, Trial], most: int, sign: float) -> Move | None:
        paused = [trial for trial in trials.values() if trial.state == "paused"]
        if not paused:
            return None
        trial = min(paused, key=lambda one: (one.epochs, one.number))  # nobody runs ahead of the others
        following = min(trial.epochs + self.interval, most)
        parent = self._better(trial, trials, sign)
        if parent is None:
            return Continue(trial.number, following)
        return Spawn(trial.number, parent.number, self._perturbed(parent, len(trials)), self.interval)

    def _better(self, trial: Trial, trials: Mapping[int, Trial], sign: float) -> Trial | None:
        """One of the best that have come as far as `trial`, where that is among the worst."""
        there = [one for one in trials.values() if trial.epochs in one.results]
        count = ceil(self.quantile * len(there))
        if len(there) < ceil(1 / self.quantile):
            return None
        ranked = sorted(there, key=lambda one: (cost(one.results[trial.epochs], sign), one.number))
        parent = ranked[int(self._random(trial.number, trial.epochs).integers(count))]
        return None if trial not in ranked[-count:] or parent is trial else parent

    def _perturbed(self, parent: Trial, number: int) -> dict[str, Any]:
        random = self._random(number, parent.number)
        return {
            name: value * self.factors[int(random.integers(len(self.factors)))]
            if self._may_change(name, value)
            else value
            for name, value in parent.parameters.items()
        }

    def _may_change(self, name: str, value: Any) -> bool:
        if not isinstance(value, float):
            return False
        return name == "learning_rate" or name.startswith("optimizer_arguments.") or name in self.perturb

    def _random(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *numbers])
