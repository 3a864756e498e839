"""The loss and the metrics of validation rows as an aggregate, for rows that stay where they lie."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import Block
from braidwater.blocks.mini_batches import MiniBatches
from braidwater.blocks.store import MemoryStore, Unit
from braidwater.blocks.windows import RowForm
from braidwater.engines.once import Once
from braidwater.parallel.base import Replica, Training
from braidwater.parallel.learner import Learner, Measured


@dataclass
class ValidationState:
    """The module with the weights to look at, and what was measured so far; neither before the first row."""

    learner: Learner | None = None
    measured: Measured | None = None

    def __reduce__(self) -> tuple[type[ValidationState], tuple[None, Measured | None]]:
        return ValidationState, (None, self.measured)


class Validation(Aggregate[ValidationState, Measured]):
    """What `Learner.evaluate` finds of common `weights`, up to rounding. Each worker loads them once.

    What leaves a worker are sums, and what torchmetrics' metrics keep: counts; of those that need every output (`auroc`,
    `calibration_error`) the outputs and classes of all rows.
    """

    exact = False
    what = "validation"

    def __init__(self, training: Once[Training], weights: dict[str, torch.Tensor], form: RowForm) -> None:
        self.training = training
        self.weights = weights
        self.form = form

    def initialize(self) -> ValidationState:
        return ValidationState()

    def transition(self, state: ValidationState, block: Block) -> ValidationState:
        if not block.rows:
            return state
        if state.learner is None:
            state.learner = Learner(self.training.value, Replica(), 1)
            state.learner.load(self.weights)
        store = MemoryStore(block.schema, [Unit(0, block.rows, block.start)], [block.buffer])
        rows = MiniBatches(store, self.form, batch_size=self.training.value.batch_size, shuffle=False)
        state.measured = state.learner.measure(rows.epoch(0), state.measured)
        return state

    def merge(self, state: ValidationState, other: ValidationState) -> ValidationState:
        if other.measured is None:
            return state
        if state.measured is None:
            return ValidationState(None, copy.deepcopy(other.measured))
        state.measured.total += other.measured.total
        state.measured.weight += other.measured.weight
        for name, metric in state.measured.metrics.items():
            metric.merge_state(other.measured.metrics[name])
        return state

    def final(self, state: ValidationState) -> Measured:
        return state.measured or Measured({})
