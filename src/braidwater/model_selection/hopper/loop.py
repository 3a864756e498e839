"""One hop: a model goes once through the rows of one partition, and leaves all that the next worker needs in a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braidwater.blocks.mini_batches import MiniBatch, MiniBatches
from braidwater.errors import CheckpointError
from braidwater.parallel.base import Data, Replica, Trained, Training
from braidwater.parallel.checkpoint import Checkpoint, Checkpoints, Progress
from braidwater.parallel.loop import EpochLoop, Report
from braidwater.parallel.member_state import MemberState
from braidwater.parallel.profiling import profiled


@dataclass(frozen=True)
class Standing:
    """Where a model stands: epochs that are done, partitions seen in the current one, and the order of those before.

    `stopped` is true once early stopping has ended the training, `steps` counts optimiser steps.
    """

    epoch: int = 0
    visited: tuple[int, ...] = ()
    orders: tuple[tuple[int, ...], ...] = ()
    steps: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class Rows:
    """The mini-batches of one partition, and what an epoch over all `sizes` (rows of each partition) comes to."""

    own: MiniBatches
    sizes: tuple[int, ...]

    @property
    def steps(self) -> int:
        return sum(-(-rows // self.own.batch_size) for rows in self.sizes)

    @property
    def total_rows(self) -> int:
        return sum(self.sizes)

    def epoch(self, number: int, start: int = 0) -> Iterator[MiniBatch]:
        """Those of the partition alone, all of them: a hop begins where the one before it ended."""
        return self.own.epoch(number)


class HopLoop(EpochLoop):
    """The training of one model, from its checkpoint on, as far as one partition.

    The checkpoint holds weights, optimiser, loss scale, the states of the random number generators, the sums of the epoch's
    loss and the partitions seen. So hops make the same weights, bit for bit, wherever each of them runs.
    """

    def __init__(self, training: Training, data: Data, rows: Rows, checkpoints: Checkpoints | None = None) -> None:
        self._rows = rows
        self._visited: list[int] = []
        self._orders: list[list[int]] = []
        super().__init__(training, data, Replica(), f"hopper over {len(rows.sizes)} partitions")
        if checkpoints is not None:  # instead of those in the training's folder
            self.checkpoints = checkpoints
            self._resume(checkpoints)

    def open_batches(self) -> Rows:
        return self._rows

    @property
    def standing(self) -> Standing:
        return standing_in(self.progress, self._visited, self._orders)

    def hop(self, partition: int, before: Standing) -> None:
        """Train on `partition`. Nothing is left to do where the checkpoint holds this hop already: its worker died after it."""
        if self.standing != before:
            self._require_done(partition, before)
            return
        assert self.checkpoints is not None
        begun = time.perf_counter() - self.progress.seconds
        rows = self._rows.sizes[partition]
        report = Report(self.replica, self.progress.epoch, self.data.rows.kind, rows)
        with self._checkpoints_ended(), profiled(None, 0) as self.traced:
            self.steps(report, begun)
            self._visited.append(partition)
            if len(self._visited) == len(self._rows.sizes):
                self._orders.append(self._visited)
                self._visited = []
                self._record(report, time.perf_counter() - begun)
            else:
                self.progress.seconds = time.perf_counter() - begun
            self._write_down(self.checkpoints)

    def _require_done(self, partition: int, before: Standing) -> None:
        path = (*before.visited, partition)
        done = Standing(before.epoch, path, before.orders)
        if len(path) == len(self._rows.sizes):
            done = Standing(before.epoch + 1, (), (*before.orders, path))
        found = self.standing
        if (found.epoch, found.visited, found.orders) != (done.epoch, done.visited, done.orders):
            raise CheckpointError(
                f"The checkpoint in {self.training.checkpoint!r} was written by somebody else in the meantime. Two trainings "
                "cannot share a folder: give each its own checkpoint=."
            )

    def state(self) -> MemberState:
        found = super().state()
        return MemberState(found.tensors, {**found.values, "visited": self._visited, "orders": self._orders})

    def restore(self, found: Checkpoint, own: MemberState) -> None:
        super().restore(found, own)
        self._visited, self._orders = list(own.values["visited"]), [list(order) for order in own.values["orders"]]


def batches_of(base: MiniBatches, training: Training, partition: int) -> MiniBatches:
    """A partition's mini-batches in the order that follows from the training's seed and the partition's number."""
    seed = int(np.random.SeedSequence([training.seed, partition]).generate_state(1)[0])
    return base.alike(batch_size=training.batch_size, seed=seed)


def standing_of(folder: str | Path) -> tuple[Standing, Progress]:
    """Where the model stands whose checkpoints lie in `folder`; at its beginning where there is none."""
    found = Checkpoints(folder, {}).newest()
    if found is None:
        return Standing(), Progress()
    values: dict[str, Any] = found.member(0).values
    return standing_in(found.progress, values["visited"], values["orders"]), found.progress


def standing_in(progress: Progress, visited: Sequence[int], orders: Sequence[Sequence[int]]) -> Standing:
    """Where a model stands, as its checkpoint tells."""
    before = tuple(tuple(order) for order in orders)
    return Standing(progress.epoch, tuple(visited), before, progress.steps, progress.stopped)


def learnt(folder: str | Path) -> Trained | None:
    """What the newest checkpoint in `folder` holds: the best weights where early stopping kept some, else the newest."""
    found = Checkpoints(folder, {}).newest()
    if found is None or not found.progress.epoch:
        return None
    tensors, progress = found.member(0).tensors, found.progress
    best, newest = (_named(prefix, tensors) for prefix in ("best/", "module/"))
    epoch = progress.best_epoch if best else progress.epoch
    return Trained(best or newest, progress.history, progress.steps, epoch)


def _named(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
