"""Samplers that look at no result: what they propose follows from a trial's number alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from braidwater.model_selection.unit_cube import from_unit


class Design(BaseSampler):
    """A sampler whose proposal for each parameter depends on the trial's number only."""

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return {}


class GridSampler(Design):
    """Every combination of the values once, in an order drawn from `seed`; after the last it begins again."""

    def __init__(self, grid: Mapping[str, Sequence[Any]], seed: int = 0) -> None:
        self._names = list(grid)
        self._points = list(itertools.product(*grid.values()))
        self._order = np.random.default_rng(seed).permutation(len(self._points))

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        point = self._points[self._order[trial.number % len(self._order)]]
        return point[self._names.index(param_name)]


class SobolSampler(Design):
    """A Sobol sequence with Owen's scrambling: points that leave no large gap, categories included.

    Sobol 1967; Owen 1998, "Scrambling Sobol and Niederreiter-Xing points".
    """

    def __init__(self, names: Sequence[str], seed: int = 0) -> None:
        self._names = list(names)
        self._seed = seed

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        point = _sobol(len(self._names), self._seed, trial.number)
        return from_unit(param_distribution, point[self._names.index(param_name)])


@lru_cache(maxsize=64)
def _sobol(dimensions: int, seed: int, number: int) -> Sequence[float]:
    from scipy.stats.qmc import Sobol

    sequence = Sobol(dimensions, scramble=True, rng=seed)
    if number:
        sequence.fast_forward(number)
    points: list[list[float]] = sequence.random(1).tolist()
    return points[0]
