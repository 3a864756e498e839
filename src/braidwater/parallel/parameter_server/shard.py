"""What a parameter server keeps: some of the parameters, and the optimiser's state of them."""

from __future__ import annotations

import pickle
from multiprocessing.connection import Connection
from threading import Event, Lock
from typing import Any

import torch

from braidwater.parallel.flat import cut, flatten, spread, trained_parameters
from braidwater.parallel.learner import Learner
from braidwater.parallel.parameter_server.crew import Crew
from braidwater.parallel.service import receive_tensor, send_tensor


def shards_of(module: torch.nn.Module, servers: int) -> list[list[torch.nn.Parameter]]:
    """The parameters of each server: runs of neighbours of about the same size, the same on every worker."""
    parameters = trained_parameters(module)
    return [parameters[part] for part in cut([parameter.numel() for parameter in parameters], servers)]


class Shard:
    """The part of `learner`'s parameters that server `place` of `servers` keeps. Gradients are applied one at a time."""

    def __init__(self, learner: Learner, place: int, servers: int) -> None:
        self.learner = learner
        self.parameters = shards_of(learner.module, servers)[place]
        self.lock = Lock()
        self.bytes_exchanged = 0
        self._newest = 0

    def buffer(self) -> torch.Tensor:
        """Memory for a gradient."""
        return torch.empty(sum(parameter.numel() for parameter in self.parameters), dtype=self.learner.dtype)

    def push(self, gradient: torch.Tensor, number: int) -> None:
        """An optimiser step with a worker's gradient; `number` is its step, which the learning rate follows."""
        parts = torch.split(gradient, [parameter.numel() for parameter in self.parameters])
        with self.lock:
            self._newest = max(self._newest, number)
            self.learner.set_rates(self._newest)
            for parameter, part in zip(self.parameters, parts, strict=True):
                parameter.grad = part.view_as(parameter).to(parameter.device)
            self.learner.update()

    def weights(self) -> torch.Tensor:
        with self.lock:
            return flatten(self.parameters)

    def load(self, packed: bytes) -> None:
        """Take over weights and the state of an optimiser."""
        weights, optimizer = pickle.loads(packed)
        with self.lock:
            spread(weights, self.parameters)
            self.learner.optimizer.load_state_dict(optimizer)

    def optimizer_state(self) -> bytes:
        # packed here: torch would hand over tensors through files that the other process must fetch from this one
        with self.lock:
            return pickle.dumps(self.learner.optimizer.state_dict())


class Desk:
    """Answers the questions of workers about a shard; the first server's `crew` says what they do next."""

    def __init__(self, shard: Shard, crew: Crew | None = None) -> None:
        self._shard = shard
        self._crew = crew
        self.closed = Event()

    def serve(self, connection: Connection) -> None:
        worker = connection.recv()
        gradient = self._shard.buffer()
        if self._crew is not None:
            self._crew.join(worker)
        try:
            while True:
                self._answer(connection, worker, gradient, *connection.recv())
        finally:
            if self._crew is not None:
                self._crew.leave(worker)
            if worker == 0:
                self.closed.set()  # the first server has ended, and with it the training

    def _answer(self, connection: Connection, worker: int, gradient: torch.Tensor, kind: str, *said: Any) -> None:
        shard = self._shard
        if kind == "push":
            shard.bytes_exchanged += receive_tensor(connection, gradient)
            number, acknowledge = said
            shard.push(gradient, number)
            if acknowledge:
                connection.send(None)
        elif kind == "pull":
            shard.bytes_exchanged += send_tensor(connection, shard.weights())
        elif kind == "load":
            shard.load(*said)
        elif kind == "optimizer state":
            connection.send(shard.optimizer_state())
        elif self._crew is not None and kind == "tick":
            self._crew.tick(worker)
            connection.send(None)
        elif self._crew is not None and kind == "next":
            connection.send(self._crew.next_run(worker, *said))
