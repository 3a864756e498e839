"""Hyperband: successive halving with several first rungs, for when nobody knows how early a good trial shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from braidwater.model_selection.base import Move, Trial
from braidwater.model_selection.schedulers.successive_halving import SuccessiveHalving, promotion


@dataclass(frozen=True)
class Hyperband(SuccessiveHalving):
    """Asynchronous Hyperband: brackets of successive halving that begin at different rungs.

    Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar 2018, "Hyperband". A trial's bracket follows from its number, such that
    brackets have trials in the paper's proportion, (s + 1)-th of reduction**s each, and all brackets have some early on.
    """

    name: ClassVar[str] = "hyperband"

    def brackets(self, most: int) -> list[tuple[int, list[int]]]:
        """Each bracket's share of a round of trials, and its rungs.

        >>> Hyperband(reduction=3).brackets(9)
        [(9, [1, 3, 9]), (5, [3, 9]), (3, [9])]
        """
        rungs = self.rungs(most)
        last = len(rungs) - 1
        sizes = [-(-len(rungs) * self.reduction**s // (s + 1)) for s in range(last, -1, -1)]
        return [(size, rungs[place:]) for place, size in enumerate(sizes)]

    def bracket(self, number: int, most: int) -> int:
        """The bracket of a trial: one after the other, those with larger shares more often."""
        sizes = [size for size, _ in self.brackets(most)]
        place = number % sum(sizes)
        dealt = [0] * len(sizes)
        chosen = 0
        for _ in range(place + 1):
            chosen = min(range(len(sizes)), key=lambda b: ((dealt[b] + 0.5) / sizes[b], b))
            dealt[chosen] += 1
        return chosen

    def first_epochs(self, number: int, most: int | None) -> int | None:
        assert most is not None
        return self.brackets(most)[self.bracket(number, most)][1][0]

    def move(self, trials: Mapping[int, Trial], most: int, sign: float) -> Move | None:
        for place, (_, rungs) in enumerate(self.brackets(most)):
            own = {number: trial for number, trial in trials.items() if self.bracket(number, most) == place}
            found = promotion(own, rungs, self.reduction, sign)
            if found is not None:
                return found
        return None
