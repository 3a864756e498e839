"""Ageing evolution of nets: each is a mutation of a good one, begins with its weights, and is forgotten after a while."""

from __future__ import annotations

import shutil
import weakref
import zlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from braidwater.deep.modules import Inputs
from braidwater.errors import OptionError
from braidwater.model_selection.architecture.inheritance import inherit, morph
from braidwater.model_selection.architecture.space import PREFIX, Architecture, Net, choices_in
from braidwater.model_selection.base import Budget, cost
from braidwater.model_selection.designs import Design
from braidwater.model_selection.searching import search
from braidwater.model_selection.space import Int
from braidwater.model_selection.storage import models_folder
from braidwater.model_selection.study import Study, model_folder
from braidwater.model_selection.unit_cube import from_unit
from braidwater.model_selection.variants import is_trainer, variant
from braidwater.saving import load_model

PARENT = "parent"  # the number of the trial whose weights a trial begins with; -1: nobody's
_MOST = 10**6  # trials of a study, all of whose models are kept while it runs


def evolve(
    trainer: Any,
    data: Any,
    *,
    space: Mapping[str, Any] | None = None,
    budget: Budget | int = 64,
    population: int = 16,
    sample: int | None = None,
    inheritance: bool = True,
    storage: str | Path | None = None,
    name: str = "evolution",
    keep: int = 3,
    seed: int = 0,
    **options: Any,
) -> Study:
    """Search for a net by regularised ("ageing") evolution: Real, Aggarwal, Huang and Le 2019, arXiv 1802.01548.

    `trainer` is a `Trainer` of an `Architecture`. The first `population` nets are random. Each one after them is the mutation of
    the best of `sample` nets (a quarter of the population) that are drawn from the newest `population`: one decision is made
    anew. So even the best net dies of age, and only what is found good again and again remains.

    With `inheritance` a net begins with those weights of its parent whose names and shapes agree, and new layers begin as
    nothing where that can be done exactly (`morph`): so it has seen the epochs of its parents as well. Without, every net is
    trained from the beginning, as in the paper.

    `space` has more hyperparameters, which are mutated as decisions are. `options` are those of `search`, and its workers,
    storage and study: nobody waits for a generation. The models of all trials lie on the disk while it runs, afterwards those
    of the best `keep` and of the population, from which it can go on. The parameter ``parent`` of a trial is
    the number of the trial that it comes from, or -1.
    """
    architecture = getattr(trainer, "module", None)
    if not is_trainer(trainer) or not isinstance(architecture, Architecture):
        raise OptionError(
            "trainer", type(trainer).__name__, "a Trainer of an Architecture: Trainer(Architecture(...), ...)"
        )
    if population < 2:
        raise OptionError("population", population, "at least 2")
    sample = max(2, population // 4) if sample is None else sample
    if not 1 <= sample <= population:
        raise OptionError("sample", sample, f"from 1 to the population, {population}")
    temporary = None
    if storage is None:
        temporary = TemporaryDirectory(prefix="braidwater-evolution-")
        storage = Path(temporary.name) / "study.sqlite"
    heirs = _Heirs(trainer, models_folder(storage, name) if inheritance else None)
    whole = {**architecture.space(), **(space or {}), PARENT: Int(-1, _MOST)}
    try:
        study = search(
            heirs, whole, data, budget=budget, storage=storage, name=name, keep=_MOST, seed=seed,
            sampler=AgeingEvolution(architecture, population, sample, seed), **options,
        )  # fmt: skip
    except BaseException:
        if temporary is not None:
            temporary.cleanup()
        raise
    if temporary is not None:
        weakref.finalize(study, temporary.cleanup)
    _forget_models(study, keep, population)
    return study


class AgeingEvolution(Design):
    """The sampler of `evolve`. What it proposes follows from the seed, the trial's number, and the complete trials."""

    def __init__(self, architecture: Architecture, population: int, sample: int, seed: int = 0) -> None:
        self._architecture = architecture
        self._population = population
        self._sample = sample
        self._seed = seed
        self._child: tuple[int, dict[str, Any]] = (-1, {})

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._child[0] != trial.number:
            self._child = trial.number, self._next_child(study, trial.number)
        if param_name in self._child[1]:
            return self._child[1][param_name]
        if param_name == PARENT:
            return -1
        random = np.random.default_rng([self._seed, trial.number, zlib.crc32(param_name.encode())])
        return from_unit(param_distribution, float(random.random()))

    def _next_child(self, study: Any, number: int) -> dict[str, Any]:
        """The parameters of a mutation; none where the population is not complete."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < self._population:
            return {}
        random = np.random.default_rng([self._seed, number])
        alive = sorted(complete, key=lambda one: one.number)[-self._population :]
        drawn = [alive[place] for place in random.choice(len(alive), self._sample, replace=False)]
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        parent = min(drawn, key=lambda one: (cost(one.value, sign), one.number))
        return {**parent.params, **self._mutation(parent, random), PARENT: parent.number}

    def _mutation(self, parent: FrozenTrial, random: np.random.Generator) -> dict[str, Any]:
        """Another value for one of the parameters that matter."""
        choices = choices_in(parent.params, self._architecture)
        decisions = {f"{PREFIX}{name}" for name in choices}
        matter = {f"{PREFIX}{name}" for name in self._architecture.active(choices)}
        names = [
            n
            for n, d in parent.distributions.items()
            if n != PARENT and (n not in decisions or n in matter) and not d.single()
        ]
        if not names:
            return {}
        name = names[int(random.integers(len(names)))]
        for _ in range(100):
            value = from_unit(parent.distributions[name], float(random.random()))
            if value != parent.params[name]:
                return {name: value}
        return {}


class _Heirs:
    """Makes the trainer of a trial, whose net begins with the weights of its parent."""

    def __init__(self, trainer: Any, folder: Path | None) -> None:
        self._trainer = trainer
        self._folder = folder

    def __call__(self, parameters: Mapping[str, Any]) -> Any:
        given = dict(parameters)
        parent = int(given.pop(PARENT))
        place = None if parent < 0 or self._folder is None else str(model_folder(self._folder, parent))
        return variant(self._trainer, {**given, "module": Heir(self._trainer.module, place)})


class Heir:
    """The factory of a net of `architecture` that inherits from the saved model in the folder `parent`, where there is one."""

    def __init__(self, architecture: Architecture, parent: str | None) -> None:
        self.architecture = architecture
        self.parent = parent

    def __call__(self, inputs: Inputs, outputs: int, **choices: Any) -> Net:
        net = self.architecture(inputs, outputs, **choices)
        if self.parent is None or not Path(self.parent).is_dir():  # it was trained without, and will be loaded
            return net
        saved = load_model(self.parent)
        weights = {name: torch.from_numpy(np.array(array)) for name, array in saved.arrays.items()}
        inherited = inherit(net, weights)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            parent = self.architecture(inputs, outputs, **saved.document["module_arguments"])
            parent.load_state_dict(weights)
            probe = torch.randn(16, *net.shape)
        morph(net, parent, inherited, probe)
        return net


def _forget_models(study: Study, keep: int, population: int) -> None:
    """Remove the models of all but the best trials, and those that may still have children."""
    ended = [trial for trial in study.trials if trial.values is not None]
    ranked = sorted(ended, key=lambda one: (one.state != "complete", cost(one.values[0], study.sign), one.number))  # type: ignore[index]
    alive = [trial.number for trial in ended if trial.state == "complete"][-population:]
    for trial in ranked[keep:]:
        if trial.number not in alive:
            shutil.rmtree(model_folder(study.folder, trial.number), ignore_errors=True)
