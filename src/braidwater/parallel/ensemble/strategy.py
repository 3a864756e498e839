"""Training the members of an ensemble, and what combines them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from braidwater.engines.base import Engine, Task
from braidwater.errors import BraidwaterError, OptionError, UnsupportedError
from braidwater.events import Metric, emit
from braidwater.options import current_options
from braidwater.parallel.base import Data, Replica, Strategy, Trained, Training, check_workers
from braidwater.parallel.ensemble.module import EnsembleModule
from braidwater.parallel.ensemble.rows import PickingReplica, RowPick, training_of
from braidwater.parallel.flat import trained_parameters
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import mini_batches, run_epochs


@dataclass(frozen=True)
class Ensemble(Strategy):
    """Trains each member of an `EnsembleModule` on its own, as a task, and then what combines them.

    The members see ``"parts"`` (every row goes to one of them), ``"bags"`` (each draws as many rows as there are, with
    replacement: Breiman 1996, "Bagging predictors"; drawn row by row as Poisson(1) counts, Oza and Russell 2001), or ``"all"``
    rows. Which rows follows from the seed and their numbers. Members may be different modules: the module to train is
    ``EnsembleModule([first, second], combine=...)``, such as `braidwater.deep.ensemble` makes.

    Where the combination is trained (``combine="learned"`` or ``"stacking"``), that is done in this process on a fraction
    `held_out` of the rows, which no member sees. The record of an epoch is the mean of the members'; validation of the whole
    is in the last one.

    Nothing is sent between workers but the rows' places and the trained weights. A worker that dies is replaced, and its member
    begun anew (or from its last checkpoint, where the training has a folder for them), `max_restarts` times.
    """

    name: ClassVar[str] = "ensemble"
    exact: ClassVar[bool] = False
    shapes: ClassVar[tuple[str, ...]] = ("tasks",)
    workers: int = 2
    data: Literal["parts", "bags", "all"] = "parts"
    held_out: float = 0.2

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.data not in ("parts", "bags", "all"):
            raise OptionError("data", self.data, "one of parts, bags, all")
        if not 0 < self.held_out < 1:
            raise OptionError("held_out", self.held_out, "a fraction of the rows between 0 and 1")

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        whole = training.module
        if not isinstance(whole, EnsembleModule):
            raise UnsupportedError(
                f"Ensemble trains a module with members, and {type(whole).__name__} has none. Give the trainer "
                "braidwater.deep.ensemble, or EnsembleModule([module, module, ...])."
            )
        members = self._train_members(whole, training, data, engine)
        combined = copy.deepcopy(whole).to(torch.float64 if training.precision == "float64" else torch.float32)
        for number, found in members.items():
            combined.members[number].load_state_dict(found.weights)
        history = _mean_history([found.history for found in members.values()])
        if combined.learns_to_combine:
            rows = RowPick("held out", training.seed, held_out=self.held_out)
            own = replace(
                training_of(training, rows),
                module=combined.freeze_members(),
                checkpoint=_below(training.checkpoint, "combination"),
            )
            trained = run_epochs(own, replace(data, validation=None), PickingReplica(rows), strategy=self.name)
            combined.load_state_dict(trained.weights)
        history[-1] |= _validation(replace(training, module=combined), data)
        steps = max(found.steps for found in members.values())
        return Trained(dict(combined.state_dict()), history, steps, len(history))

    def _train_members(
        self, whole: EnsembleModule, training: Training, data: Data, engine: Engine
    ) -> dict[int, Trained]:
        """Each member by its number; one that has nothing to train stays as it is."""
        count = len(whole.members)
        held_out = self.held_out if whole.learns_to_combine else 0.0
        tasks = []
        for number, module in enumerate(whole.members):
            rows = RowPick(self.data, training.seed, number, count, held_out)
            seed = int(np.random.SeedSequence([training.seed, number]).generate_state(1)[0])
            folder = _below(training.checkpoint, f"member-{number}")
            own = replace(training_of(training, rows), module=module, seed=seed, checkpoint=folder)
            if trained_parameters(module):
                arguments = (own, data.for_members(), rows)
                tasks.append(Task(f"member {number}", _train_member, arguments, retries=training.max_restarts))
        if not tasks:
            raise UnsupportedError("No member of the ensemble has a parameter to train.")
        found: dict[int, Trained] = {}
        for outcome in engine.tasks(tasks):
            if outcome.error is not None:
                if isinstance(outcome.error.__cause__, BraidwaterError):
                    raise outcome.error.__cause__ from outcome.error
                raise outcome.error
            found[int(outcome.task.name.removeprefix("member "))] = outcome.value
            last = outcome.value.history[-1]
            emit(Metric(name="member_loss", value=last["loss"], step=len(found), worker=outcome.worker))
        return dict(sorted(found.items()))


def _below(folder: str | None, name: str) -> str | None:
    """The folder for the checkpoints of a part of the training."""
    return None if folder is None else str(Path(folder) / name)


def _train_member(training: Training, data: Data, rows: RowPick) -> Trained:
    """In a process of its own."""
    torch.set_num_threads(current_options().workers)
    return run_epochs(training, data, PickingReplica(rows), strategy=f"ensemble, member {rows.member}")


def _mean_history(histories: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The mean of the members' records. Members that stopped early are in the first ones only."""
    longest = max(map(len, histories))
    found = []
    for epoch in range(longest):
        records = [history[epoch] for history in histories if epoch < len(history)]
        found.append({name: fmean(record[name] for record in records) for name in records[0]})
        found[-1]["epoch"] = epoch + 1
    return found


def _validation(training: Training, data: Data) -> dict[str, float]:
    if data.validation is None:
        return {}
    replica = Replica()
    learner = Learner(training, replica, 1)
    return learner.evaluate(mini_batches(training, data, replica, validation=True).epoch(0))
