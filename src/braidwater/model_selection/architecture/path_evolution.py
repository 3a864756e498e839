"""Which paths of a supernet to look at: evolution, where looking at one costs a pass over some rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from braidwater.errors import OptionError
from braidwater.model_selection.architecture.space import Architecture

Path = dict[str, Any]
PARENTS = 10  # the best paths so far, from which new ones are made
CHANGED = 0.1  # of the decisions of a mutation, each by itself
ATTEMPTS = 100  # to make a net that was not looked at yet, before one is drawn at random


@dataclass(frozen=True)
class PathEvolution:
    """Paths by evolution (Guo et al. 2019, algorithm 1): random ones first, then children of the best of all so far.

    Of each generation of `population` paths half are crossings (each decision from one of two parents) and half mutations (each
    decision made anew with a probability of 0.1) of the ten best paths. In the paper there are 20 generations of 50 paths.
    No net is looked at twice; where the architecture has no more than are asked for, all are.
    """

    architecture: Architecture
    population: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.population < 2:
            raise OptionError("population", self.population, "at least 2")

    def search(self, evaluate: Callable[[Path], float], paths: int) -> list[tuple[Path, float]]:
        """The `paths` paths that were looked at and their costs (smaller is better), best first."""
        random = np.random.default_rng(self.seed)
        first = self.architecture.nets(paths, random)  # all there are, or as many at random
        found: dict[str, tuple[Path, float]] = {}
        for path in first if len(first) < paths else first[: self.population]:
            found[self.architecture.key(path)] = path, evaluate(path)
        while len(found) < min(paths, len(first)):
            for path in self._generation(found, min(self.population, paths - len(found)), random):
                found[self.architecture.key(path)] = path, evaluate(path)
        return sorted(found.values(), key=lambda one: one[1])

    def _generation(
        self, known: dict[str, tuple[Path, float]], size: int, random: np.random.Generator
    ) -> Iterator[Path]:
        """New paths; parents are the best of those before this generation."""
        parents = [path for path, _ in sorted(known.values(), key=lambda one: one[1])[:PARENTS]]
        seen = set(known)
        for number in range(size):
            path = self._child(parents, seen, random, crossed=number % 2 == 0)
            seen.add(self.architecture.key(path))
            yield path

    def _child(self, parents: list[Path], seen: set[str], random: np.random.Generator, *, crossed: bool) -> Path:
        for _ in range(ATTEMPTS):
            path = _crossing(parents, random) if crossed else self._mutation(parents, random)
            if self.architecture.key(path) not in seen:
                return path
        for _ in range(ATTEMPTS):
            path = self.architecture.sample(random)
            if self.architecture.key(path) not in seen:
                break
        return path

    def _mutation(self, parents: list[Path], random: np.random.Generator) -> Path:
        parent = parents[int(random.integers(len(parents)))]
        anew = self.architecture.sample(random)
        return {name: anew[name] if random.random() < CHANGED else value for name, value in parent.items()}


def _crossing(parents: list[Path], random: np.random.Generator) -> Path:
    one, other = (parents[int(place)] for place in random.integers(len(parents), size=2))
    return {name: (one if random.random() < 0.5 else other)[name] for name in one}
