"""Which rows a member of an ensemble learns from. It follows from the seed and the row's number, wherever the row lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import factorial
from typing import Literal

import numpy as np

from braidwater.blocks.base import Array
from braidwater.blocks.mini_batches import MiniBatch
from braidwater.blocks.windows import Window
from braidwater.parallel.base import Replica, Training
from braidwater.parallel.learner import Learner
from braidwater.tables.parts import random_numbers_of

Share = Literal["parts", "bags", "all", "held out"]

# of Poisson(1): rows drawn with replacement come so often, however many rows there are (Oza and Russell 2001)
_POISSON = np.cumsum([np.exp(-1) / factorial(count) for count in range(12)])


@dataclass(frozen=True)
class RowPick:
    """How often each row is used: by member `member` of `members`, or, ``"held out"``, by what combines them."""

    share: Share
    seed: int
    member: int = 0
    members: int = 1
    held_out: float = 0.0

    def counts(self, numbers: Array) -> Array:
        """For rows with these numbers."""
        kept: Array = self._uniform(numbers, 0) >= self.held_out
        if self.share == "held out":
            return (~kept).astype(np.int64)
        if self.share == "parts":
            own: Array = kept & (np.floor(self._uniform(numbers, 1) * self.members) == self.member)
            return own.astype(np.int64)
        if self.share == "bags":
            drawn: Array = kept * np.searchsorted(_POISSON, self._uniform(numbers, 2 + self.member), "right")
            return drawn
        return kept.astype(np.int64)

    def pick(self, batch: MiniBatch) -> MiniBatch:
        """The rows of a mini-batch, each as often as it counts."""
        counts = self.counts(batch.numbers)
        places = np.repeat(np.arange(batch.rows), counts)
        rows = len(places)
        if not rows:
            places = np.zeros(1, np.int64)  # it must not count
        return MiniBatch(
            batch.step,
            rows,
            rows,
            batch.features[places],
            None if batch.labels is None else batch.labels[places],
            None if batch.weights is None else batch.weights[places],
            _pieces(batch, places),
        )

    def _uniform(self, numbers: Array, stream: int) -> Array:
        seed = int(np.random.SeedSequence([self.seed, stream]).generate_state(1)[0])
        found: Array = random_numbers_of(seed, numbers) / 2.0**64
        return found


def _pieces(batch: MiniBatch, places: Array) -> tuple[tuple[Window, Array], ...]:
    places = places + batch._at
    ends = np.cumsum([len(index) for _, index in batch._pieces])
    return tuple(
        (window, index[places[(places >= end - len(index)) & (places < end)] - end + len(index)])
        for (window, index), end in zip(batch._pieces, ends, strict=True)
    )


class PickingReplica(Replica):
    """A worker alone, on the rows of a `RowPick`."""

    replicated = False  # a step without rows is none

    def __init__(self, rows: RowPick) -> None:
        self._rows = rows

    def learner(self, training: Training, steps: int) -> Learner:
        return PickingLearner(training, self, steps, self._rows)


class PickingLearner(Learner):
    """Steps on some of the rows of each mini-batch."""

    def __init__(self, training: Training, replica: Replica, steps: int, rows: RowPick) -> None:
        super().__init__(training, replica, steps)
        self._rows = rows

    def step(self, batch: MiniBatch, number: int, epoch: int) -> tuple[float, float]:
        return super().step(self._rows.pick(batch), number, epoch)


def training_of(training: Training, rows: RowPick) -> Training:
    """The same with steps of the same size, over the mini-batches that the rows are picked from."""
    share = {"parts": 1 / rows.members, "held out": rows.held_out}.get(rows.share, 1.0)
    return replace(training, batch_size=max(round(training.batch_size / share), 1))
