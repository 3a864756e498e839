"""The loop over epochs of the first server: it hands out runs instead of taking steps."""

from __future__ import annotations

import pickle
import queue
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from braidwater.engines.phase import enter
from braidwater.errors import WorkerLostError
from braidwater.events import Metric, emit
from braidwater.parallel.base import Data, Replica, Training
from braidwater.parallel.flat import flatten, floating_buffers
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import EpochLoop, Report
from braidwater.parallel.member_state import MemberState
from braidwater.parallel.parameter_server.crew import Crew, Finished
from braidwater.parallel.parameter_server.runs import Runs
from braidwater.parallel.parameter_server.shard import Shard, shards_of
from braidwater.parallel.parameter_server.worker import Server
from braidwater.parallel.service import Service

_LOOK_SECONDS = 0.5  # between two looks whether there still are workers


class ServingReplica(Replica):
    """The first server as a worker of its own: it has all rows before it, to validate. Remembers the runs that are done."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def state(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state(self, state: dict[str, Any], learner: Learner) -> None:
        self.done = [int(begin) for begin in state["done"]]


class ServingLoop(EpochLoop):
    """Epochs whose steps others take. `length` steps are a run; `lives` workers may be lost before it gives up.

    The other servers' shards are fetched when the whole is needed: to validate, for a checkpoint, and in the end.
    """

    replica: ServingReplica

    def __init__(self, training: Training, data: Data, crew: Crew, *, length: int, lives: int, servers: int) -> None:
        self._crew = crew
        self._length = length
        self._lives = lives
        super().__init__(training, data, ServingReplica(), f"parameter_server, runs of {length} steps")
        self.shard = Shard(self.learner, 0, servers)
        self._others: list[Server] = []

    def serve(self, service: Service, others: Sequence[Server]) -> None:
        """From now on `service` answers the workers; `others` are the other servers."""
        self._service = service
        self._others = list(others)
        shards = shards_of(self.learner.module, len(self._others) + 1)
        for other, parameters in zip(self._others, shards[1:], strict=False):
            other.parameters = parameters
        if self.progress.steps:
            state = self.learner.optimizer.state_dict()
            for other in self._others:
                other.say("load", pickle.dumps((flatten(other.parameters), state)))

    def steps(self, report: Report, begun: float) -> None:
        progress, replica = self.progress, self.replica
        report.start()
        enter("handing out the rows of epoch", progress.epoch + 1)
        runs = Runs(self.batches.steps, self._length, replica.done)
        bytes_before = self.shard.bytes_exchanged
        buffers: dict[int, tuple[Any, ...]] = {}
        left = runs.left
        self._crew.open(progress.epoch, runs)
        for still in reversed(range(left)):
            worker, steps, finished = self._next()
            buffers[worker] = finished.buffers
            replica.done.append(steps.start)
            progress.loss += finished.loss
            progress.weight += finished.weight
            progress.steps += len(steps)
            if still:  # the last one is followed by the checkpoint of the epoch's end
                self._checkpoint_if_due(len(steps), time.perf_counter() - begun)
        replica.done.clear()
        self._average(buffers)
        self._fetch()
        report.finish(time.perf_counter() - begun)
        sent = float(self.shard.bytes_exchanged - bytes_before)
        emit(Metric(name="bytes_exchanged", value=sent, step=progress.epoch + 1, epoch=progress.epoch + 1))

    def _next(self) -> tuple[int, range, Finished]:
        """Wait for the next run to be finished, by whomever."""
        while True:
            with suppress(queue.Empty):
                return self._crew.finished.get(timeout=_LOOK_SECONDS)
            for other in self._others:
                other.check()
            if self._service.failure is not None:
                raise self._service.failure
            if self._crew.alone > (_LOOK_SECONDS if self._crew.lost >= self._lives else self.training.timeout):
                raise WorkerLostError(f"All workers of the parameter server are gone; {self._crew.lost} died.")

    def _checkpoint_if_due(self, steps: int, seconds: float) -> None:
        every, progress = self.training.checkpoint_every, self.progress
        due = isinstance(every, int) and progress.steps // every > (progress.steps - steps) // every
        if due and self.checkpoints is not None:
            progress.seconds = seconds
            self._write_down(self.checkpoints)

    def _average(self, buffers: dict[int, tuple[Any, ...]]) -> None:
        """What modules keep beside their parameters, such as means of batch normalisation: the mean over the workers."""
        for place, buffer in enumerate(floating_buffers(self.learner.module)):
            found = [torch.from_numpy(own[place]) for own in buffers.values()]
            if found:
                buffer.copy_(torch.stack(found).mean(0))

    def _fetch(self) -> None:
        """Have the weights of the other servers too."""
        for other in self._others:
            other.say("pull")
            other.take_weights()

    def state(self) -> MemberState:
        self._fetch()
        states = [pickle.loads(other.ask("optimizer state"))["state"] for other in self._others]
        with self.shard.lock:
            optimizer = self.learner.optimizer
            if states:
                whole = optimizer.state_dict()
                for state in states:
                    whole["state"] |= state
                optimizer.load_state_dict(whole)
            return super().state().copied()  # workers change it as soon as the lock is free
