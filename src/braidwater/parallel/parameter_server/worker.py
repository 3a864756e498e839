"""A worker of a parameter server: it computes gradients on the runs of steps that it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import torch

from braidwater.engines.base import Member
from braidwater.engines.phase import enter
from braidwater.errors import WorkerLostError
from braidwater.parallel.base import Data, Replica, Training
from braidwater.parallel.flat import flatten, floating_buffers, spread
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import Report, mini_batches, own_random_numbers
from braidwater.parallel.parameter_server.crew import Finished, Given
from braidwater.parallel.parameter_server.shard import shards_of
from braidwater.parallel.service import receive_tensor, send_tensor


class ServerGoneError(WorkerLostError):
    """A server does not answer: it died, which whoever started the gang tells better."""


def work(training: Training, data: Data, replica: PushingReplica) -> None:
    """Take runs of steps until there are no more. A worker that loses its server ends."""
    with own_random_numbers(training.seed, replica.rank), suppress(ServerGoneError):
        batches = mini_batches(training, data, replica)
        learner = replica.learner(training, training.epochs * batches.steps)
        finished: Finished | None = None
        while (given := replica.next_run(finished)) is not None:
            epoch, begin, end = given
            replica.pull()
            report = Report(replica, epoch, data.rows.kind, batches.total_rows)
            loss = weight = 0.0
            for batch in islice(batches.epoch(epoch, begin), end - begin):
                number = epoch * batches.steps + batch.step
                enter("step", number + 1)
                replica.number = number
                own_loss, own_weight = learner.step(batch, number, epoch)
                loss += own_loss
                weight += own_weight
                report.step(batch.rows, own_loss, own_weight, number + 1)
            replica.push()
            report.finish(0.0)
            finished = Finished(
                loss, weight, tuple(buffer.cpu().numpy() for buffer in floating_buffers(learner.module))
            )


class PushingReplica(Replica):
    """Pushes the sum of its gradients every `push_every` steps, and pulls weights every `pull_every`.

    It has all rows before it, and takes those of the runs that it is given. With bounded staleness a push is followed by a
    tick, whose answer comes when the worker may go on.
    """

    counts_rows = True

    def __init__(
        self, member: Member, servers: Sequence[Server], push_every: int, pull_every: int, bounded: bool
    ) -> None:
        self.rank, self.size = member.rank, member.size
        self._servers = servers
        self._push_every = push_every
        self._pull_every = pull_every
        self._bounded = bounded
        self.number = 0  # the step of the training that it is at
        self._steps = self._since = 0

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        for server, parameters in zip(self._servers, shards_of(module, len(self._servers)), strict=False):
            server.parameters = parameters
        return module

    def next_run(self, finished: Finished | None) -> Given | None:
        """Report a finished run, and wait for the next one."""
        enter("the wait for rows")
        found: Given | None = self._servers[0].ask("next", finished)
        return found

    def stepped(self, learner: Learner, weight: float) -> None:
        self._since += 1
        self._steps += 1
        for server in self._servers:
            server.add_gradients()
        if self._since == self._push_every:
            self.push()
        if self._steps % self._pull_every == 0:
            self.pull()

    def push(self) -> None:
        """Send what has been added up since the last push."""
        if not self._since:
            return
        self._since = 0
        for server in self._servers:
            self.bytes_exchanged += server.push(self.number, self._bounded)
        if self._bounded:
            with self.talking():
                for server in self._servers:
                    server.hear()  # the gradients are in the weights
                self._servers[0].ask("tick")

    def pull(self) -> None:
        """Take the weights as they are on the servers."""
        with self.talking():
            for server in self._servers:
                server.say("pull")
            for server in self._servers:
                server.take_weights()


class Server:
    """A server, seen from a worker: the line to it, and which of the worker's parameters it keeps."""

    def __init__(self, line: Connection, rank: int) -> None:
        self._line = line
        self.parameters: list[torch.nn.Parameter] = []
        self._gradient: torch.Tensor | None = None
        line.send(rank)

    def say(self, *words: Any) -> None:
        with _answered():
            self._line.send(words)

    def hear(self) -> Any:
        with _answered():
            return self._line.recv()

    def ask(self, *words: Any) -> Any:
        self.say(*words)
        return self.hear()

    def check(self) -> None:
        """Raise where the server is gone. It says nothing unasked, so what can be heard is its end."""
        with _answered():
            if self._line.poll():
                raise EOFError

    def add_gradients(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        found = flatten([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        self._gradient = found if self._gradient is None else self._gradient.add_(found)

    def push(self, number: int, acknowledge: bool) -> int:
        """Send the gradients that were added up; their bytes. `number` is the step that they are of."""
        assert self._gradient is not None
        self.say("push", number, acknowledge)
        with _answered():
            sent = send_tensor(self._line, self._gradient)
        self._gradient = None
        return sent

    def take_weights(self) -> None:
        """The answer to "pull"."""
        if not self.parameters:
            return
        flat = torch.empty(sum(p.numel() for p in self.parameters), dtype=self.parameters[0].dtype)
        with _answered():
            receive_tensor(self._line, flat)
        spread(flat, self.parameters)


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise ServerGoneError("A parameter server does not answer any more.") from error
