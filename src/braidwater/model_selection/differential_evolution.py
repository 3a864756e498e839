"""Differential evolution as a sampler that never waits for a generation.

Storn and Price 1997, "Differential Evolution" (rand/1/bin). Trial n competes for place n modulo `population`: its parameters
are mutated from those that hold three other places at the moment, and it takes the place when it is better.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from braidwater.model_selection.unit_cube import from_unit, to_unit

_PLACE = "differential_evolution:place"


class DifferentialEvolutionSampler(BaseSampler):
    """`weight` is the F of the paper, `crossover` its CR. The first `population` trials are random."""

    def __init__(
        self, population: int = 12, *, weight: float = 0.7, crossover: float = 0.8, seed: int | None = None
    ) -> None:
        self._population = max(population, 4)
        self._weight = weight
        self._crossover = crossover
        self._seed = seed
        self._random = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)
        self._space = IntersectionSearchSpace()

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: d for name, d in self._space.calculate(study).items() if not d.single()}

    def sample_relative(
        self, study: Any, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        place = trial.number % self._population
        study._storage.set_trial_system_attr(trial._trial_id, _PLACE, place)
        holders = self._holders(study)
        others = sorted(set(holders) - {place})
        if not search_space or trial.number < self._population or len(others) < 3:
            return {}
        a, b, c = (holders[k] for k in self._random.choice(others, 3, replace=False))
        own = holders.get(place, a)
        certain = self._random.integers(len(search_space))  # at least one parameter is mutated
        found = {}
        for number, (name, distribution) in enumerate(search_space.items()):
            at = [to_unit(distribution, one.params[name]) for one in (a, b, c)]
            mutant = at[0] + self._weight * (at[1] - at[2])
            taken = number == certain or self._random.random() < self._crossover
            unit = _reflected(mutant) if taken else to_unit(distribution, own.params[name])
            found[name] = from_unit(distribution, unit)
        return found

    def _holders(self, study: Any) -> dict[int, FrozenTrial]:
        """The best finished trial of each place."""
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        held: dict[int, FrozenTrial] = {}
        for one in sorted(finished, key=lambda trial: sign * trial.value):
            if _PLACE in one.system_attrs:
                held.setdefault(one.system_attrs[_PLACE], one)
        return held

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        self._random = np.random.default_rng()
        self._independent.reseed_rng()


def _reflected(unit: float) -> float:
    """Back into [0, 1) from beyond its ends."""
    unit = abs(unit) % 2.0
    return min(2.0 - unit if unit > 1.0 else unit, math.nextafter(1.0, 0.0))
