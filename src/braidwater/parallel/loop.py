"""The loop over epochs and steps that every worker of every strategy runs."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from braidwater.blocks.mini_batches import MiniBatches
from braidwater.events import BlockDone, CheckpointWritten, Metric, PassFinished, PassStarted, emit
from braidwater.parallel.base import Data, Replica, Trained, Training
from braidwater.parallel.checkpoint import (
    Checkpoints,
    MemberState,
    Progress,
    join_tensors,
    random_state,
    restore_random_state,
    split_tensors,
)

REPORT_SECONDS = 0.25  # between two reports of a worker inside an epoch


def run_epochs(training: Training, data: Data, replica: Replica, *, strategy: str = "single") -> Trained:
    """Train to the end, from the newest checkpoint where there is one.

    The random number generators of this process are seeded from the training's seed and the worker's rank, and put back
    in the end.
    """
    with own_random_numbers(training.seed, replica.data_rank):
        return EpochLoop(training, data, replica, strategy).to_the_end()


class EpochLoop:
    """One worker's run: the learner, its mini-batches, and where it stands.

    A strategy that takes its steps elsewhere overrides `steps`, `state` and `restore`.
    """

    def __init__(self, training: Training, data: Data, replica: Replica, strategy: str) -> None:
        self.training = training
        self.replica = replica
        self.data = data
        self.batches = mini_batches(training, data, replica)
        self.learner = replica.learner(training, training.epochs * self.batches.steps)
        self.progress = Progress()
        self.best: dict[str, torch.Tensor] | None = None
        self.checkpoints: Checkpoints | None = None
        if training.checkpoint is not None:
            self.checkpoints = Checkpoints(training.checkpoint, identity(training, data, strategy, replica.size))
            self._resume(self.checkpoints)

    def to_the_end(self) -> Trained:
        progress = self.progress
        while progress.epoch < self.training.epochs and not progress.stopped:
            self._epoch()
        self.replica.settle(self.learner)
        weights = self.learner.weights() if self.best is None else self.best
        best_epoch = progress.best_epoch if self.best is not None else progress.epoch
        return Trained(weights, progress.history, progress.steps, best_epoch)

    def _epoch(self) -> None:
        progress = self.progress
        begun = time.perf_counter() - progress.seconds
        report = Report(self.replica, progress.epoch, self.data.rows.kind, self.batches.total_rows)
        self.steps(report, begun)
        self.replica.settle(self.learner)
        self._record(report, time.perf_counter() - begun)
        if self.checkpoints is not None:
            self._write_down(self.checkpoints)

    def steps(self, report: Report, begun: float) -> None:
        """The steps of the current epoch, from where it stands."""
        progress, epoch = self.progress, self.progress.epoch
        report.start()
        for batch in self.batches.epoch(epoch, start=progress.step):
            loss, weight = self.learner.step(batch, progress.steps, epoch)
            progress.loss += loss
            progress.weight += weight
            progress.step += 1
            progress.steps += 1
            report.step(batch.rows, loss, weight, progress.steps)
            every = self.training.checkpoint_every
            if self.checkpoints is not None and isinstance(every, int) and progress.steps % every == 0:
                progress.seconds = time.perf_counter() - begun
                self._write_down(self.checkpoints)
        report.finish(time.perf_counter() - begun)

    def _record(self, report: Report, seconds: float) -> None:
        """End the epoch: its loss, the validation, and whether to go on."""
        progress = self.progress
        loss, weight = self.replica.sum([progress.loss, progress.weight])
        record: dict[str, Any] = {"epoch": progress.epoch + 1, "loss": loss / weight if weight else float("nan")}
        if self.data.validation is not None:
            found = mini_batches(self.training, self.data, self.replica, validation=True)
            record |= self.learner.evaluate(found.epoch(0))
        report.metrics(record)
        record |= {"learning_rate": self.learner.learning_rate, "rows": self.batches.total_rows, "seconds": seconds}
        progress.history.append(record)
        progress.epoch += 1
        progress.step = 0
        progress.loss = progress.weight = progress.seconds = 0.0
        self._judge(record.get("validation_loss", record["loss"]))

    def _judge(self, loss: float) -> None:
        """Early stopping: keep the weights of the best epoch, stop when it lies too far back."""
        training, progress = self.training, self.progress
        if training.patience is None:
            return
        if loss < progress.best_loss - training.min_improvement:
            progress.best_loss, progress.best_epoch = loss, progress.epoch
            self.best = self.learner.weights()
        elif progress.epoch - progress.best_epoch >= training.patience:
            progress.stopped = True

    def _write_down(self, checkpoints: Checkpoints) -> None:
        replica, progress = self.replica, self.progress
        begun = time.perf_counter()
        checkpoints.write_member(progress.steps, replica.rank, self.state())
        # every member has its own sums of the running epoch
        totals = replica.sum([progress.loss, progress.weight])
        replica.barrier()
        if replica.rank == 0:
            common = replace(progress, loss=totals[0], weight=totals[1])
            written = checkpoints.complete(progress.steps, replica.size, common)
            seconds = time.perf_counter() - begun
            emit(CheckpointWritten(path=str(checkpoints.path), step=progress.steps, bytes=written, seconds=seconds))
        replica.barrier()

    def state(self) -> MemberState:
        """What this worker writes down in a checkpoint."""
        found = random_state()
        remembered, held = split_tensors(self.replica.state(), "replica")
        tensors, values = {**found.tensors, **held}, {**found.values, "replica": remembered}
        if self.replica.rank == 0 or not self.replica.replicated:
            tensors |= {f"module/{name}": tensor for name, tensor in self.learner.module.state_dict().items()}
            if self.learner.scale is not None:
                values["loss_scale"] = [self.learner.scale.value, self.learner.scale.good_steps]
            values["optimizer"], moments = split_tensors(self.learner.optimizer.state_dict(), "optimizer")
            tensors |= moments
        if self.replica.rank == 0 and self.best is not None:
            tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        return MemberState(tensors, values)

    def _resume(self, checkpoints: Checkpoints) -> None:
        found = checkpoints.newest(self.replica.rank)
        if found is None:
            return
        self.progress, own = found
        self.restore(checkpoints, own)

    def restore(self, checkpoints: Checkpoints, own: MemberState) -> None:
        """Take up what `state` wrote down."""
        if self.replica.rank:
            self.progress.loss = self.progress.weight = 0.0  # the sums of all are in those of worker 0
        first = own
        if self.replica.rank and self.replica.replicated:
            _, first = checkpoints.newest(0) or (None, own)
        module = _below("module/", first.tensors)
        self.learner.load(module, join_tensors(first.values["optimizer"], first.tensors))
        if self.learner.scale is not None:
            self.learner.scale.value, self.learner.scale.good_steps = first.values["loss_scale"]
        self.best = _below("best/", first.tensors) or None
        if self.training.patience is not None and self.best is None and self.progress.best_epoch:
            self.best = module  # only worker 0 keeps the best weights in the file, and only its are handed over
        self.replica.load_state(join_tensors(own.values["replica"], own.tensors), self.learner)
        restore_random_state(own)


class Report:
    """Events of one epoch: one worker announces the epoch and its figures, each its own rows now and then."""

    def __init__(self, replica: Replica, epoch: int, origin: str, rows: int) -> None:
        self.replica = replica
        self.epoch = epoch
        self.rows = rows
        self.origin = origin
        self._since = time.time()
        self._cpu = time.process_time()
        self._rows = 0
        self._loss = self._weight = 0.0

    def start(self) -> None:
        if self.replica.rank == 0:
            emit(PassStarted(number=self.epoch + 1, what="epoch", rows=self.rows, origin=self.origin))

    def step(self, rows: int, loss: float, weight: float, step: int) -> None:
        self._rows += rows if self.replica.counts_rows else 0
        self._loss += loss
        self._weight += weight
        if time.time() - self._since >= REPORT_SECONDS:
            self._tell(step)

    def _tell(self, step: int | None = None) -> None:
        now = time.time()
        emit(BlockDone(worker=self.replica.rank, rows=self._rows, start=self._since, seconds=now - self._since))
        if step is not None and self._weight and self.replica.rank == 0:
            mean = self._loss / self._weight
            emit(Metric(name="step_loss", value=mean, step=step, epoch=self.epoch + 1, worker=self.replica.rank))
        self._since, self._rows = now, 0
        self._loss = self._weight = 0.0

    def finish(self, seconds: float) -> None:
        if self._rows:
            self._tell()
        if self.replica.rank == 0:
            cpu = time.process_time() - self._cpu
            emit(PassFinished(number=self.epoch + 1, what="epoch", rows=self.rows, seconds=seconds, cpu_seconds=cpu))

    def metrics(self, record: dict[str, Any]) -> None:
        if self.replica.rank == 0:
            for name, value in record.items():
                if name != "epoch":
                    emit(Metric(name=name, value=float(value), step=self.epoch + 1, epoch=self.epoch + 1))


def mini_batches(training: Training, data: Data, replica: Replica, *, validation: bool = False) -> MiniBatches:
    """The mini-batches of a worker: in the seed's order to train, in the table's to validate."""
    store, form = data.rows, training.form
    if validation and data.validation is not None:
        store, form = data.validation, data.validation_form or form
    return MiniBatches(
        store,
        form,
        batch_size=training.batch_size,
        seed=training.seed,
        rank=replica.data_rank,
        size=replica.data_size,
        share="batch" if validation else replica.share,
        shuffle=not validation,
    )


def identity(training: Training, data: Data, strategy: str, workers: int) -> dict[str, Any]:
    """What two trainings must have in common for one to go on from the other's checkpoint."""
    return {
        "strategy": strategy,
        "workers": workers,
        "seed": training.seed,
        "batch_size": training.batch_size,
        "accumulate": training.accumulate,
        "precision": training.precision,
        "rows": data.rows.rows,
        "parameters": {name: list(p.shape) for name, p in training.module.named_parameters()},
    }


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@contextmanager
def own_random_numbers(seed: int, rank: int) -> Iterator[None]:
    """Seed the generators of this process, and put them back in the end."""
    before = random_state()
    stream = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
    torch.manual_seed(stream)
    random.seed(stream)
    np.random.seed(stream)
    try:
        yield
    finally:
        restore_random_state(before)
