"""Who proposes hyperparameters: Optuna's samplers by name, and our differential evolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.errors import OptionError, UnsupportedError
from braidwater.model_selection.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLERS = ("tpe", "random", "grid", "cmaes", "gp", "nsga2", "qmc", "differential_evolution")
_NEEDS = {"cmaes": "cmaes", "gp": "torch"}


def make_samplers(wish: str | Any, space: Space, seed: int) -> Callable[[int], BaseSampler]:
    """A function of a trial's number that gives the sampler to ask.

    Every trial gets random numbers of its own, which follow from `seed` and its number: what a sampler proposes depends on
    the trials before it and on nothing else, neither on the number of workers nor on where a search was interrupted.
    A sampler that was given as an object keeps its own.
    """
    if not isinstance(wish, str):
        if not hasattr(wish, "sample_relative"):
            raise OptionError("sampler", type(wish).__name__, f"one of {', '.join(SAMPLERS)}, or an Optuna sampler")
        return lambda number: wish
    if wish not in SAMPLERS:
        raise OptionError("sampler", wish, f"one of {', '.join(SAMPLERS)}, or an Optuna sampler")
    _require(wish)
    make = _factory(wish, space, seed)
    make(0)  # what cannot be made is an error now
    return lambda number: make(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) % 2**31)


def _factory(name: str, space: Space, seed: int) -> Callable[[int], BaseSampler]:
    from optuna import samplers

    from braidwater.model_selection.designs import GridSampler, SobolSampler

    if name == "differential_evolution":
        from braidwater.model_selection.differential_evolution import DifferentialEvolutionSampler

        return lambda number: DifferentialEvolutionSampler(seed=number)
    if name == "grid":
        grid = GridSampler(space.grid(), seed)
        return lambda number: grid
    if name == "qmc":
        if not space.names:
            raise OptionError(
                "sampler", "qmc", "another one where the space is a function: its dimensions are not known"
            )
        sobol = SobolSampler(space.names, seed)
        return lambda number: sobol
    made: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": _tpe(),
        "random": lambda number: samplers.RandomSampler(seed=number),
        "cmaes": lambda number: samplers.CmaEsSampler(seed=number, warn_independent_sampling=False),
        "gp": lambda number: samplers.GPSampler(seed=number),
        "nsga2": lambda number: samplers.NSGAIISampler(seed=number),
    }
    return made[name]


def _tpe() -> Callable[[int], BaseSampler]:
    """TPE for one study: the same sampler with other random numbers. A new one would look through all trials again, and draw
    its numbers' first state from the system twice (0.3 ms)."""
    from optuna.samplers import TPESampler

    sampler = TPESampler(seed=0)
    owners = (sampler, getattr(sampler, "_random_sampler", None))
    states = [getattr(owner, "_rng", None) for owner in owners]  # not public: it is a matter of time only
    if not all(hasattr(state, "rng") for state in states):
        return lambda number: TPESampler(seed=number)

    def make(number: int) -> BaseSampler:
        for state in states:
            state.rng.seed(number)  # type: ignore[union-attr]
        return sampler

    return make


def _require(name: str) -> None:
    from importlib.util import find_spec

    package = _NEEDS.get(name)
    if package is not None and find_spec(package) is None:
        raise UnsupportedError(
            f"sampler={name!r} needs {package}: pip install {package}. sampler='tpe' needs nothing more."
        )
