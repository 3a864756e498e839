"""The loop over epochs and steps that every worker of every strategy runs."""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from braidwater.blocks.mini_batches import MiniBatch, MiniBatches
from braidwater.engines.phase import enter
from braidwater.errors import NumericalError
from braidwater.events import BlockDone, CheckpointWritten, Histogram, Metric, PassFinished, PassStarted, emit
from braidwater.parallel.ahead import WORTH_OPERATIONS, gathered_ahead
from braidwater.parallel.base import Data, Replica, Trained, Training
from braidwater.parallel.checkpoint import Checkpoint, Checkpoints, Progress, Written
from braidwater.parallel.member_state import (
    MemberState,
    join_tensors,
    random_state,
    restore_random_state,
    split_tensors,
)
from braidwater.parallel.profiling import profiled
from braidwater.parallel.shards import part_of, with_part

REPORT_SECONDS = 0.25  # between two reports of a worker inside an epoch


def run_epochs(training: Training, data: Data, replica: Replica, *, strategy: str = "single") -> Trained:
    """Train to the end, from the newest checkpoint where there is one.

    The random number generators of this process are seeded from the training's seed and the worker's rank, and put back
    in the end.
    """
    with own_random_numbers(training.seed, replica.data_rank):
        return EpochLoop(training, data, replica, strategy).to_the_end()


class EpochBatches(Protocol):
    """The mini-batches of a worker as the loop takes them: any epoch from any step, and what an epoch comes to."""

    @property
    def steps(self) -> int: ...
    @property
    def total_rows(self) -> int: ...
    def epoch(self, number: int, start: int = 0) -> Iterator[MiniBatch]: ...


class EpochLoop:
    """One worker's run: the learner, its mini-batches, and where it stands.

    A strategy that takes its steps elsewhere overrides `steps`, `validate`, `state` and `restore`.
    """

    def __init__(self, training: Training, data: Data, replica: Replica, strategy: str) -> None:
        self.training = training
        self.replica = replica
        self.data = data
        self.batches = self.open_batches()
        self.learner = replica.learner(training, training.epochs * self.batches.steps)
        self.progress = Progress()
        self.best: dict[str, torch.Tensor] | None = None
        self.checkpoints: Checkpoints | None = None
        if training.checkpoint is not None:
            workers = None if replica.resizable else replica.size
            self.checkpoints = Checkpoints(training.checkpoint, identity(training, data, strategy, workers))
            self._resume(self.checkpoints)

    def open_batches(self) -> EpochBatches:
        """The mini-batches of this worker."""
        return mini_batches(self.training, self.data, self.replica)

    def to_the_end(self) -> Trained:
        progress = self.progress
        with self._checkpoints_ended(), profiled(self.training.profile, self.replica.rank) as self.traced:
            while progress.epoch < self.training.epochs and not progress.stopped:
                self._epoch()
        return self.trained()

    def trained(self) -> Trained:
        """What has been learnt so far."""
        progress = self.progress
        self.replica.settle(self.learner)
        weights = self.learner.weights() if self.best is None else self.best
        best_epoch = progress.best_epoch if self.best is not None else progress.epoch
        return Trained(weights, progress.history, progress.steps, best_epoch)

    def _epoch(self) -> None:
        progress = self.progress
        begun = time.perf_counter() - progress.seconds
        report = Report(self.replica, progress.epoch, self.data.rows.kind, self.batches.total_rows)
        self.steps(report, begun)
        enter("the end of epoch", progress.epoch + 1)
        self.replica.settle(self.learner)
        self._record(report, time.perf_counter() - begun)
        self.replica.unsettle(self.learner)
        if self.checkpoints is not None:
            self._write_down(self.checkpoints)

    def steps(self, report: Report, begun: float) -> None:
        """The steps of the current epoch, from where it stands."""
        progress, epoch = self.progress, self.progress.epoch
        report.start()
        asked = time.perf_counter()
        enter("the rows of step", progress.steps + 1)
        for batch in self.batches_of(epoch, progress.step):
            report.waited += time.perf_counter() - asked
            enter("step", progress.steps + 1)
            loss, weight = self.learner.step(batch, progress.steps, epoch)
            self.traced()
            progress.loss += loss
            progress.weight += weight
            progress.step += 1
            progress.steps += 1
            report.step(batch.rows, loss, weight, progress.steps)
            if self.checkpoints is not None:
                self._look_at(self.checkpoints, begun)
            asked = time.perf_counter()
            enter("the rows of step", progress.steps + 1)
        report.finish(time.perf_counter() - begun)

    def batches_of(self, epoch: int, start: int) -> Iterator[MiniBatch]:
        """The mini-batches of an epoch from step `start` on, gathered beside the steps where these take longer than a thread."""
        found = self.batches.epoch(epoch, start)
        beside = self.data.rows.any_thread and self.learner.operations >= WORTH_OPERATIONS
        return gathered_ahead(found) if beside and isinstance(found, Generator) else found

    def _record(self, report: Report, seconds: float) -> None:
        """End the epoch: its loss, the validation, and whether to go on."""
        progress = self.progress
        enter("the validation after epoch", progress.epoch + 1)
        loss, weight = self.replica.sum([progress.loss, progress.weight])
        record: dict[str, Any] = {"epoch": progress.epoch + 1, "loss": loss / weight if weight else float("nan")}
        if self.data.validation is not None:
            record |= self.validate()
        report.metrics(record)
        if self.training.histograms:
            report.histograms(self.learner.module)
        record |= {"learning_rate": self.learner.learning_rate, "rows": self.batches.total_rows, "seconds": seconds}
        progress.history.append(record)
        progress.epoch += 1
        progress.step = 0
        progress.loss = progress.weight = progress.seconds = 0.0
        self._judge(record.get("validation_loss", record["loss"]))

    def validate(self) -> dict[str, float]:
        """The loss and the metrics of the validation's rows. Collective."""
        found = mini_batches(self.training, self.data, self.replica, validation=True)
        return self.learner.evaluate(found.epoch(0))

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

    @contextmanager
    def _checkpoints_ended(self) -> Iterator[None]:
        """Leave no checkpoint half written: a training is over when its last one is on the disk."""
        try:
            yield
        except BaseException:
            if self.checkpoints is not None:
                self.checkpoints.abandon()
            raise
        if self.checkpoints is not None:
            _announce(self.checkpoints, self.checkpoints.wait())

    def _look_at(self, checkpoints: Checkpoints, begun: float) -> None:
        """After a step: hear of a checkpoint that is done, or failed, and begin the next when it is time."""
        progress, every = self.progress, self.training.checkpoint_every
        _announce(checkpoints, checkpoints.written())
        # an epoch's last step is followed by the checkpoint of its end: of one step there is one checkpoint
        if isinstance(every, int) and progress.steps % every == 0 and progress.step < self.batches.steps:
            progress.seconds = time.perf_counter() - begun
            self._write_down(checkpoints)

    def _write_down(self, checkpoints: Checkpoints) -> None:
        replica, progress = self.replica, self.progress
        enter("the checkpoint after step", progress.steps)
        if not self.learner.is_finite():  # a training that goes back to this checkpoint would not come far
            raise NumericalError(
                f"After step {progress.steps} some weights are not finite. Lower the learning rate, or clip gradients "
                "(clip_norm=1.0)."
            )
        # every member has its own sums of the running epoch
        totals = replica.sum([progress.loss, progress.weight])
        common = replace(progress, loss=totals[0], weight=totals[1])
        _announce(checkpoints, checkpoints.write(replica.rank, replica.size, self.state(), common))

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
        if self.replica.rank == 0:
            checkpoints.sweep()
        self.replica.barrier()  # nobody writes before that
        found = checkpoints.newest()
        if found is not None:
            self.progress = found.progress
            self.restore(found, found.member(min(self.replica.rank, found.members - 1)))

    def restore(self, found: Checkpoint, own: MemberState) -> None:
        """Take up what `state` wrote down; `own` is what this worker did (another one, where there were fewer of them)."""
        replica, learner = self.replica, self.learner
        if replica.rank:
            self.progress.loss = self.progress.weight = 0.0  # the sums of all are in those of worker 0
        first = found.member(0) if replica.rank and replica.replicated else own
        tensors = first.tensors | {name: self._own_part(found, name) for name in first.parts}
        module = _below("module/", tensors)
        learner.load(module, join_tensors(first.values["optimizer"], tensors))
        if learner.scale is not None:
            learner.scale.value, learner.scale.good_steps = first.values["loss_scale"]
        self.best = _below("best/", tensors) or None
        if self.training.patience is not None and self.best is None and self.progress.best_epoch:
            self.best = module  # only worker 0 keeps the best weights in the file, and only its are handed over
        replica.load_state(join_tensors(own.values["replica"], own.tensors), learner)
        if replica.rank < found.members:
            restore_random_state(own)

    def _own_part(self, found: Checkpoint, name: str) -> torch.Tensor:
        """This worker's part of a tensor that all hold together, however many of them wrote it."""
        kind, *place = name.split("/")
        if kind == "module":
            like = self.learner.module.state_dict()[place[0]]
        else:  # optimizer/state/<number of the parameter>/<name>
            parameters = [p for group in self.learner.optimizer.param_groups for p in group["params"]]
            like = parameters[int(place[1])]
        return with_part(like, found.part(name, part_of(like), like.dtype))


def _announce(checkpoints: Checkpoints, written: Written | None) -> None:
    if written is not None:
        path = str(checkpoints.path)
        emit(CheckpointWritten(path=path, step=written.steps, bytes=written.bytes, seconds=written.seconds))


class Report:
    """Events of one epoch: one worker announces the epoch and its figures, each its own rows now and then."""

    def __init__(self, replica: Replica, epoch: int, origin: str, rows: int) -> None:
        self.replica = replica
        self.epoch = epoch
        self.rows = rows
        self.origin = origin
        self._since = time.time()
        self._cpu = time.process_time()
        self._bytes = replica.bytes_exchanged
        self.waited = 0.0  # seconds for rows, since the last report
        self._exchanging = replica.seconds_exchanging
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
        emit(
            BlockDone(
                worker=self.replica.rank,
                rows=self._rows,
                start=self._since,
                seconds=now - self._since,
                data_seconds=self.waited,
                exchange_seconds=self.replica.seconds_exchanging - self._exchanging,
            )
        )
        if step is not None and self._weight and self.replica.rank == 0:
            mean = self._loss / self._weight
            emit(Metric(name="step_loss", value=mean, step=step, epoch=self.epoch + 1, worker=self.replica.rank))
        self._since, self._rows = now, 0
        self.waited, self._exchanging = 0.0, self.replica.seconds_exchanging
        self._loss = self._weight = 0.0

    def finish(self, seconds: float) -> None:
        if self._rows:
            self._tell()
        if self.replica.rank == 0:
            cpu = time.process_time() - self._cpu
            emit(PassFinished(number=self.epoch + 1, what="epoch", rows=self.rows, seconds=seconds, cpu_seconds=cpu))

    def metrics(self, record: dict[str, Any]) -> None:
        if self.replica.rank == 0:
            if self.replica.size > 1:
                record = record | {"bytes_exchanged": self.replica.bytes_exchanged - self._bytes}
            for name, value in record.items():
                if name != "epoch":
                    emit(Metric(name=name, value=float(value), step=self.epoch + 1, epoch=self.epoch + 1))

    def histograms(self, module: torch.nn.Module) -> None:
        """How the weights of this worker's module are spread; of parts of a module those that worker 0 holds."""
        for name, parameter in module.named_parameters() if self.replica.rank == 0 else ():
            counts, edges = np.histogram(parameter.detach().float().cpu().numpy(), 30)
            emit(Histogram(name=name, edges=edges.tolist(), counts=counts.tolist(), step=self.epoch + 1))


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


def identity(training: Training, data: Data, strategy: str, workers: int | None) -> dict[str, Any]:
    """What two trainings must have in common for one to go on from the other's checkpoint; `workers` None: any number."""
    return {
        "strategy": strategy,
        **({} if workers is None else {"workers": workers}),
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
    seed_random_numbers(seed, rank)
    try:
        yield
    finally:
        restore_random_state(before)


def seed_random_numbers(*seeds: int) -> None:
    """Seed the generators that a module may draw from."""
    stream = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    torch.manual_seed(stream)
    random.seed(stream)
    np.random.seed(stream)
