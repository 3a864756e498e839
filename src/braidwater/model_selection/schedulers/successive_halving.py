"""Asynchronous successive halving: many trials get few epochs, the better ones more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from braidwater.errors import OptionError
from braidwater.model_selection.base import Continue, Move, Scheduler, Trial, cost


@dataclass(frozen=True)
class SuccessiveHalving(Scheduler):
    """ASHA: each trial begins with `min_epochs`; the best 1 / `reduction` that came so far get `reduction` times as many.

    Li, Jamieson, Rostamizadeh, Gonina, Hardt, Recht and Talwalkar 2020, "A System for Massively Parallel Hyperparameter
    Tuning", algorithm 2. A trial that is promoted goes on from its checkpoint: no epoch is trained twice. A free worker
    promotes where it can, from the top rung down, and begins a new trial where it cannot; nobody waits for a rung to fill.
    Promoting on what is known so far errs now and then, where a better trial comes late.
    """

    name: ClassVar[str] = "asha"
    in_epochs: ClassVar[bool] = True
    min_epochs: int = 1
    reduction: int = 3

    def __post_init__(self) -> None:
        if self.min_epochs < 1:
            raise OptionError("min_epochs", self.min_epochs, "at least 1")
        if self.reduction < 2:
            raise OptionError("reduction", self.reduction, "at least 2")

    def rungs(self, most: int) -> list[int]:
        """The epochs after which trials are compared, the last one `most`.

        >>> SuccessiveHalving().rungs(10)
        [1, 3, 10]
        """
        found = [min(self.min_epochs, most)]
        while found[-1] * self.reduction <= most:
            found.append(found[-1] * self.reduction)
        # a last rung just above the one before it would be a promotion for nothing
        return [*found[:-1], most] if len(found) > 1 or found[-1] == most else [*found, most]

    def first_epochs(self, number: int, most: int | None) -> int | None:
        assert most is not None
        return self.rungs(most)[0]

    def move(self, trials: Mapping[int, Trial], most: int, sign: float) -> Move | None:
        return promotion(trials, self.rungs(most), self.reduction, sign)


def promotion(trials: Mapping[int, Trial], rungs: list[int], reduction: int, sign: float) -> Move | None:
    """The trial that is to go on to the next of `rungs`, from the top down; None where none has earned it."""
    for rung, following in reversed(list(pairwise(rungs))):
        there = [trial for trial in trials.values() if rung in trial.results]
        best = sorted(there, key=lambda trial: (cost(trial.results[rung], sign), trial.number))
        for trial in best[: len(there) // reduction]:
            if trial.state == "paused" and trial.epochs == rung:
                return Continue(trial.number, following)
    return None
