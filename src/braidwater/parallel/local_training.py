"""Training as an aggregate: each worker trains on its own blocks, and merging is averaging.

Zinkevich, Weimer, Li and Smola 2010 ("Parallelized Stochastic Gradient Descent"), with the average taken once an epoch
and weighted by rows.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, finalize

import numpy as np
import torch

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import Block
from braidwater.blocks.mini_batches import MiniBatches
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import MemoryStore, Unit
from braidwater.engines.base import Engine
from braidwater.engines.once import Once
from braidwater.errors import BraidwaterError, EmptyTableError, UnsupportedError, WorkerError
from braidwater.parallel.base import Data, Replica, Trained, Training
from braidwater.parallel.checkpoint import Checkpoint
from braidwater.parallel.device import torch_threads
from braidwater.parallel.label_skew import warn_of_skew
from braidwater.parallel.learner import Learner, Measured
from braidwater.parallel.loop import EpochLoop, Report, own_random_numbers, seed_random_numbers
from braidwater.parallel.member_state import MemberState, join_tensors, split_tensors
from braidwater.parallel.validation import Validation

Weights = dict[str, torch.Tensor]
Optimizers = dict[int, Once[dict[str, Any]]]

# learners of plain nets between two passes: what they have recorded of their steps holds for the next one too
_idle: WeakKeyDictionary[Once[Training], list[Learner]] = WeakKeyDictionary()


@dataclass
class LocalState:
    """The training of one worker so far, or the average of several: weights, and how many rows (their weight) are in them.

    `optimizers` holds the optimiser's state of each worker by the number of the first block of its share: it goes back to
    the worker that has it still.
    """

    learner: Learner | None = None
    first_block: int = -1
    steps: int = 0
    loss: float = 0.0
    weight: float = 0.0
    weights: Weights = field(default_factory=dict)
    optimizers: Optimizers = field(default_factory=dict)

    def settled(self) -> LocalState:
        """The same without a learner, and without memory in common."""
        if self.learner is None:
            weights, optimizers = copy.deepcopy(self.weights), dict(self.optimizers)
        else:
            weights = self.learner.weights()
            optimizers = {self.first_block: Once(_on_processor(self.learner.optimizer.state_dict()))}
        return LocalState(None, -1, self.steps, self.loss, self.weight, weights, optimizers)

    def __reduce__(self) -> tuple[Any, ...]:
        """What another process gets: a learner, with its module and hooks, stays where it is."""
        whole = self.settled()
        return LocalState, (None, -1, whole.steps, whole.loss, whole.weight, whole.weights, whole.optimizers)


class LocalTraining(Aggregate[LocalState, LocalState]):
    """One epoch of local training from common weights; the result is the average, weighted by rows.

    `workers` is the number of those that fold at a time, each a run of the `blocks`: each takes its part of `batch_size`, and
    a GPU of its own where there are as many. The rows of a block are shuffled by the seed, the epoch and the block's number.
    `draws` says that each worker is a process: the random numbers of its module follow from the same three.
    """

    exact = False
    what = "epoch"
    workers: int

    def __init__(
        self,
        training: Once[Training],
        weights: Weights,
        optimizers: Optimizers,
        *,
        epoch: int,
        workers: int,
        blocks: int,
        steps: int,
        draws: bool = False,
    ) -> None:
        self.once = training
        self.weights = weights
        self.optimizers = optimizers
        self.epoch = epoch
        self.workers = workers
        self.blocks = blocks
        self.epoch_steps = steps
        self.draws = draws

    @property
    def training(self) -> Training:
        return self.once.value

    def part(self, blocks: range) -> LocalTraining:
        found = copy.copy(self)
        found.optimizers = {block: state for block, state in self.optimizers.items() if block in blocks}
        return found

    def initialize(self) -> LocalState:
        return LocalState()

    def transition(self, state: LocalState, block: Block) -> LocalState:
        if not block.rows:
            return state
        if state.learner is None:
            state.learner = self._learner(block.number)
            state.first_block = block.number
            if state.learner.is_plain:
                finalize(state, _idle.setdefault(self.once, []).append, state.learner).atexit = False
        for batch in self._batches(block).epoch(self.epoch):
            number = self.epoch * self.epoch_steps + state.steps
            loss, weight = state.learner.step(batch, number, self.epoch)
            state.steps += 1
            state.loss += loss
            state.weight += weight
        return state

    def merge(self, state: LocalState, other: LocalState) -> LocalState:
        if other.steps == 0:
            return state
        theirs = other.settled()
        if state.steps == 0:
            return theirs
        ours = state.settled()
        whole = ours.weight + theirs.weight
        share = theirs.weight / whole if whole else 0.5
        for name, tensor in ours.weights.items():
            if tensor.is_floating_point():  # counters of batch normalisation are not averaged
                tensor.lerp_(theirs.weights[name], share)
        ours.optimizers |= theirs.optimizers
        ours.steps = max(ours.steps, theirs.steps)
        ours.loss += theirs.loss
        ours.weight = whole
        return ours

    def final(self, state: LocalState) -> LocalState:
        return state.settled()

    def _learner(self, block: int) -> Learner:
        """That of the worker whose share begins with `block`, with the weights of all and its optimiser."""
        if self.draws:
            seed_random_numbers(self.training.seed, self.epoch, block)
        own = self.optimizers.get(block)
        learner = self._idle_learner() or self._new_learner(block)
        learner.load(self.weights, {} if own is None else copy.deepcopy(own.value))
        return learner

    def _idle_learner(self) -> Learner | None:
        try:
            return _idle[self.once].pop()
        except (KeyError, IndexError):
            return None

    def _new_learner(self, block: int) -> Learner:
        alone = Replica()
        alone.rank = next(n for n in range(self.workers) if block < self.blocks * (n + 1) // self.workers)
        return Learner(self.training, alone, self.training.epochs * self.epoch_steps)

    def _batches(self, block: Block) -> MiniBatches:
        store = MemoryStore(block.schema, [Unit(0, block.rows, block.start)], [block.buffer])
        seed = int(np.random.SeedSequence([self.training.seed, block.number]).generate_state(1)[0])
        size = -(-self.training.batch_size // self.workers)
        return MiniBatches(store, self.training.form, batch_size=size, seed=seed)


def train_by_aggregates(training: Training, data: Data, engine: Engine, workers: int, optimizer_state: str) -> Trained:
    """Train with one aggregate an epoch. Validation, checkpoints and early stopping happen here, between the passes."""
    if data.source is None:
        raise UnsupportedError(
            "Averaging(every='epoch') folds the blocks of a source, and there is none. Use every=<steps>."
        )
    with own_random_numbers(training.seed, 0), torch_threads(torch.get_num_threads() // workers):
        return _AggregateLoop(training, data, engine, workers, optimizer_state).to_the_end()


class _AggregateLoop(EpochLoop):
    """The loop over epochs where the steps of an epoch are an aggregate."""

    def __init__(self, training: Training, data: Data, engine: Engine, workers: int, optimizer_state: str) -> None:
        self._engine = engine
        self._optimizer_state = optimizer_state
        self._optimizers: Optimizers = {}
        self._once = Once(training)
        self._shares = min(workers, engine.workers, max(len(data.rows.units), 1))
        warn_of_skew(training, data.rows, self._shares)
        super().__init__(training, data, Replica(), f"averaging every epoch, {self._shares} shares")

    def to_the_end(self) -> Trained:
        """The epochs by workers that stay, unless they would hold the slots that a validation elsewhere needs."""
        rows, validation = self.data.source, self.data.validation
        stays = rows is not None and self.training.epochs > 1 and (validation is None or validation.here)
        with self._engine.staying(rows) if stays and rows is not None else nullcontext():
            return super().to_the_end()

    def steps(self, report: Report, begun: float) -> None:
        progress, rows = self.progress, self.data.rows
        aggregate = LocalTraining(
            self._once,
            self.learner.weights(),
            self._optimizers,
            epoch=progress.epoch,
            workers=self._shares,
            blocks=len(rows.units),
            steps=self.batches.steps,
            draws=not rows.here,
        )
        found: LocalState = self._fold(self.data.source, aggregate)
        if found.steps == 0:
            raise EmptyTableError("There are no rows to train on.")
        self.learner.load(found.weights)
        self.learner.set_rates(progress.epoch * self.batches.steps + found.steps - 1)  # for the record
        self._optimizers = self._next_optimizers(found)
        progress.loss, progress.weight = found.loss, found.weight
        progress.steps += found.steps

    def validate(self) -> dict[str, float]:
        if self.data.validation is None or self.data.validation.here:
            return super().validate()
        form = self.data.validation_form or self.training.form
        validation = Validation(self._once, self.learner.weights(), form)
        found: Measured = self._fold(self.data.validation_source, validation)
        return found.figures()

    def _fold(self, source: BlockSource | None, aggregate: Aggregate[Any, Any]) -> Any:
        assert source is not None
        try:
            return self._engine.aggregate(source, aggregate)
        except WorkerError as error:
            if isinstance(error.__cause__, BraidwaterError):
                raise error.__cause__ from error
            raise

    def _next_optimizers(self, found: LocalState) -> Optimizers:
        if self._optimizer_state == "reset":
            return {}
        if self._optimizer_state == "local" or len(found.optimizers) < 2:
            return found.optimizers
        average = Once(mean_state([one.value for one in found.optimizers.values()]))
        return dict.fromkeys(found.optimizers, average)

    def state(self) -> MemberState:
        found = super().state()
        plain, tensors = split_tensors({block: one.value for block, one in self._optimizers.items()}, "shares")
        return MemberState({**found.tensors, **tensors}, {**found.values, "shares": plain})

    def restore(self, found: Checkpoint, own: MemberState) -> None:
        super().restore(found, own)
        states = join_tensors(own.values["shares"], own.tensors) or {}
        self._optimizers = {block: Once(state) for block, state in states.items()}


def _on_processor(state: dict[str, Any]) -> dict[str, Any]:
    """A copy of an optimiser's state that a process without a GPU can open; loading it puts it where the weights are."""
    moved = {
        number: {
            name: value.to("cpu", copy=True) if isinstance(value, torch.Tensor) else copy.deepcopy(value)
            for name, value in parameter.items()
        }
        for number, parameter in state["state"].items()
    }
    return {"state": moved, "param_groups": copy.deepcopy(state["param_groups"])}


def mean_state(states: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the tensors of several optimisers' states; what is no tensor is the first one's."""
    mean = copy.deepcopy(states[0])
    for number, parameter in mean["state"].items():
        for name, value in parameter.items():
            if isinstance(value, torch.Tensor):
                parameter[name] = torch.stack([state["state"][number][name] for state in states]).mean(0)
    return mean
