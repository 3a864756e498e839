"""Training with parameter servers: Downpour SGD, bounded staleness."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from braidwater.blocks.mini_batches import WINDOW_ROWS
from braidwater.engines.base import Engine, Member, OnLoss
from braidwater.errors import OptionError, WorkerLostError
from braidwater.parallel.base import Data, Replica, Strategy, Trained, Training, check_workers, run_gang
from braidwater.parallel.flat import trained_parameters
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import own_random_numbers
from braidwater.parallel.parameter_server.crew import Crew
from braidwater.parallel.parameter_server.serving import ServingLoop
from braidwater.parallel.parameter_server.shard import Desk, Shard
from braidwater.parallel.parameter_server.worker import PushingReplica, Server, ServerGoneError, work
from braidwater.parallel.service import Service, connect

_PATIENCE = 10.0  # seconds that an ended training waits for workers that have not come yet
RUNS_PER_WORKER = 8  # of an epoch, at least: the less there is in a run, the less is taken twice when a worker dies


@dataclass(frozen=True)
class ParameterServer(Strategy):
    """Workers send gradients to `servers` that hold the weights, and take weights from there, each at its own pace.

    Dean et al. 2012 ("Large Scale Distributed Deep Networks", Downpour SGD). The servers are processes beside the workers,
    each with a part of the parameters and of the optimiser: the trainer's, so Downpour's Adagrad is
    ``Trainer(optimizer="adagrad")``. A worker computes on ``batch_size / workers`` rows a step, adds up its gradients, pushes the
    sum every `push_every` steps and pulls weights every `pull_every`; between two pulls it goes on by plain SGD with the
    trainer's learning rate, as in the paper. Each push is a step of the optimiser.

    `staleness` bounds how far a worker may be ahead, in pushes, of the slowest one (Ho et al. 2013, "More Effective Distributed
    ML via a Stale Synchronous Parallel Parameter Server"): 0 is in step, None waits for nobody. Since workers do not wait, who
    comes first decides on the result: the same seed does not give the same weights.

    The rows of an epoch are handed out in runs of some steps (at least 8 a worker). A worker that dies stops nobody: its
    unfinished run goes to another one, whose rows then count again (at least once; all others exactly once). With
    `max_restarts` a new worker takes its place and joins in. A server that dies ends the training, or sends it back to its
    last checkpoint.

    A worker sends the bytes of the weights once a push, and receives them once a pull.
    """

    name: ClassVar[str] = "parameter_server"
    exact: ClassVar[bool] = False
    on_loss: ClassVar[OnLoss] = "continue"
    workers: int = 2
    servers: int = 1
    push_every: int = 1
    pull_every: int = 1
    staleness: int | None = None

    def __post_init__(self) -> None:
        check_workers(self.workers)
        for name in ("servers", "push_every", "pull_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise OptionError(name, value, "a whole number from 1 on")
        if self.staleness is not None and (not isinstance(self.staleness, int) or self.staleness < 0):
            raise OptionError("staleness", self.staleness, "a number of pushes from 0 on, or None")

    @property
    def reproducible(self) -> bool:
        return False

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        count = len(trained_parameters(training.module))
        if self.servers > count:
            raise OptionError("servers", self.servers, f"at most {count}, the number of parameters that are trained")
        key = secrets.token_bytes(32)
        stores = data.for_members()
        training = replace(training, batch_size=max(training.batch_size // self.workers, 1))

        def run(member: Member) -> Trained | None:
            return _Part(self, member, key, training, stores).run()

        for _ in range(training.max_restarts + 1):
            trained = run_gang(engine, training, self.servers + self.workers, run, on_loss="continue")[0]
            if trained is not None:
                return trained
        raise WorkerLostError("A parameter server died. With checkpoint=<folder> and max_restarts training goes on.")


class _Part:
    """One process: the first server (member 0), another server, or a worker."""

    def __init__(self, options: ParameterServer, member: Member, key: bytes, training: Training, data: Data) -> None:
        self._options = options
        self._member = member
        self._key = key
        self._training = training
        self._data = data

    def run(self) -> Trained | None:
        rank, servers = self._member.rank, self._options.servers
        if rank >= servers:
            self._work()
        elif self._member.restarts:
            pass  # the weights died with the one before
        elif rank == 0:
            return self._lead()
        else:
            self._hold()
        return None

    def _work(self) -> None:
        options = self._options
        replica = PushingReplica(
            self._member,
            [self._server(place) for place in range(options.servers)],
            options.push_every,
            options.pull_every,
            options.staleness is not None,
        )
        work(replace(self._training, optimizer=_plain_steps(self._training.optimizer)), self._data, replica)

    def _lead(self) -> Trained | None:
        """None when another server died: then the training is lost, but for its checkpoint."""
        options, training = self._options, self._training
        crew = Crew(options.staleness)
        lives = options.workers + training.max_restarts
        with own_random_numbers(training.seed, 0), suppress(ServerGoneError):
            length = _run_length(self._data.rows.rows, training.batch_size, options.workers)
            loop = ServingLoop(training, self._data, crew, length=length, lives=lives, servers=options.servers)
            service = self._open(Desk(loop.shard, crew))
            loop.serve(service, [self._server(place) for place in range(1, options.servers)])
            trained = loop.to_the_end()
            crew.end(options.workers, min(training.timeout, _PATIENCE))
            return trained
        return None

    def _hold(self) -> None:
        training, rank = self._training, self._member.rank
        with own_random_numbers(training.seed, rank):
            steps = training.epochs * -(-self._data.rows.rows // training.batch_size)
            shard = Shard(Learner(training, Replica(), steps), rank, self._options.servers)
            desk = Desk(shard)
            self._open(desk)
            desk.closed.wait()

    def _open(self, desk: Desk) -> Service:
        return Service(self._member, f"server {self._member.rank}", self._key, desk.serve)

    def _server(self, place: int) -> Server:
        line = connect(self._member, f"server {place}", self._key, self._training.timeout)
        return Server(line, self._member.rank)


def _run_length(rows: int, batch_size: int, workers: int) -> int:
    """Steps of a run: enough that reading the window around them pays, and so few that all workers end together."""
    steps = -(-rows // batch_size)
    return max(min(steps // (RUNS_PER_WORKER * workers), WINDOW_ROWS // batch_size), 1)


def _plain_steps(optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Plain SGD over the same parameters with the same learning rates."""

    def make(module: torch.nn.Module) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": group["params"], "lr": group["lr"]} for group in optimizer(module).param_groups
        ]
        return torch.optim.SGD(groups, lr=groups[0]["lr"])

    return make
