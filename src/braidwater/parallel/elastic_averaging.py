"""Elastic averaging (EASGD): workers are drawn to a centre, and the centre to them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any, ClassVar

import torch
import torch.distributed as dist

from braidwater.engines.base import Engine, Member
from braidwater.errors import OptionError
from braidwater.parallel.averaging import average_in_place
from braidwater.parallel.base import Data, Strategy, Trained, Training, check_workers, run_gang
from braidwater.parallel.flat import flatten, floating_buffers, spread, trained_parameters
from braidwater.parallel.group import GroupReplica
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.service import Service, connect, receive_tensor, send_tensor


@dataclass(frozen=True)
class ElasticAveraging(Strategy):
    """Local steps; every `every` steps worker i and centre c are drawn together: ``x_i -= a (x_i - c)``, ``c += a (x_i - c)``.

    Zhang, Choromanska and LeCun 2015 ("Deep learning with Elastic Averaging SGD", arXiv 1412.6651), algorithm 1, with
    ``a = moving_rate / workers``. The centre is the result. Workers keep apart and explore, which averaging forbids; the price
    is a slower start. With plain SGD in the trainer this is EASGD; with Nesterov momentum in it (``optimizer="sgd",
    optimizer_arguments={"momentum": 0.99, "nesterov": True}``), EAMSGD, algorithm 2.

    Synchronous (the default), all workers exchange at the same step, the pulls are made from the values before it, and a run
    can be repeated bit for bit. `asynchronous`, each worker exchanges with the centre when it comes to it, and waits for
    nobody: worker 0 keeps the centre and answers. At an epoch's end all exchange once more, and the centre is validated.

    A worker sends the bytes of the weights once every `every` steps (and receives as many), and holds them once more (for the
    centre; asynchronous, worker 0 alone does).
    """

    name: ClassVar[str] = "elastic_averaging"
    exact: ClassVar[bool] = False
    workers: int = 2
    every: int = 10
    moving_rate: float = 0.9
    asynchronous: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if not isinstance(self.every, int) or self.every < 1:
            raise OptionError("every", self.every, "a number of steps from 1 on")
        if not 0 < self.moving_rate <= 1:
            raise OptionError("moving_rate", self.moving_rate, "above 0 and at most 1 (0.9 in the paper)")

    @property
    def reproducible(self) -> bool:
        return not self.asynchronous

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        stores = data.for_members()
        key = secrets.token_bytes(32)

        def run(member: Member) -> Trained | None:
            rate = self.moving_rate / member.size
            centre = (
                ServedCentre(member, key, rate, training.timeout)
                if self.asynchronous
                else SharedCentre(member.size, rate)
            )
            trained = run_epochs(training, stores, ElasticReplica(member, self.every, centre), strategy=str(self))
            return trained if member.rank == 0 else None

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained


class Centre:
    """What workers are drawn to."""

    values: torch.Tensor | None = None  # None where another worker keeps them

    def start(self, flat: torch.Tensor) -> None:
        """The centre begins at `flat`."""

    def exchange(self, flat: torch.Tensor) -> torch.Tensor:
        """Draw the centre to this worker's weights; what these are to give up, ``a (x - c)``."""
        raise NotImplementedError

    def current(self) -> torch.Tensor:
        """Where the centre is, once every worker has made its last exchange. Collective."""
        raise NotImplementedError


class SharedCentre(Centre):
    """Every worker keeps the centre; all exchange at the same time."""

    def __init__(self, size: int, rate: float) -> None:
        self._size = size
        self._rate = rate

    def start(self, flat: torch.Tensor) -> None:
        self.values = flat.clone()

    def exchange(self, flat: torch.Tensor) -> torch.Tensor:
        assert self.values is not None
        pull = (flat - self.values).mul_(self._rate)
        together = flat.clone()
        dist.all_reduce(together)
        self.values += self._rate * (together - self._size * self.values)
        return pull

    def current(self) -> torch.Tensor:
        assert self.values is not None
        return self.values


class ServedCentre(Centre):
    """Worker 0 keeps the centre, and exchanges with one worker at a time."""

    _name = "centre of elastic averaging"

    def __init__(self, member: Member, key: bytes, rate: float, timeout: float) -> None:
        self._member = member
        self._key = key
        self._rate = rate
        self._timeout = timeout
        self._lock = Lock()

    def start(self, flat: torch.Tensor) -> None:
        self._like = flat.cpu()
        if self._member.rank == 0:
            self.values = self._like.clone()
            self._service = Service(self._member, self._name, self._key, self._serve)
        self._connection = connect(self._member, self._name, self._key, self._timeout)

    def exchange(self, flat: torch.Tensor) -> torch.Tensor:
        send_tensor(self._connection, flat)
        pull = torch.empty_like(self._like)
        receive_tensor(self._connection, pull)
        return pull.to(flat.device)

    def current(self) -> torch.Tensor:
        dist.barrier()  # behind the last exchange of each
        values = self._like.clone() if self.values is None else self.values
        dist.broadcast(values, 0)
        return values

    def _serve(self, connection: Connection) -> None:
        assert self.values is not None
        theirs = torch.empty_like(self.values)
        while True:
            receive_tensor(connection, theirs)
            with self._lock:
                pull = (theirs - self.values).mul_(self._rate)
                self.values += pull
            send_tensor(connection, pull)


class ElasticReplica(GroupReplica):
    """A worker with weights of its own, drawn to a centre every `every` steps."""

    replicated = False

    def __init__(self, member: Member, every: int, centre: SharedCentre | ServedCentre) -> None:
        super().__init__(member)
        self._every = every
        self._centre = centre
        self._steps = 0
        self._since = 0  # steps since the last exchange
        self._pull: torch.Tensor | None = None
        self._own: torch.Tensor | None = None

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        self._parameters = trained_parameters(module)
        self._centre.start(flatten(self._parameters))
        return module

    def stepped(self, learner: Learner, weight: float) -> None:
        self._give_way()
        self._steps += 1
        self._since += 1
        if self._steps % self._every == 0:
            # the next gradient is still taken where the worker is now, and the pull comes with the next step (algorithm 1)
            self._pull = self._exchange()

    def settle(self, learner: Learner) -> None:
        """The module becomes the centre. `unsettle` brings back the worker's own."""
        self._give_way()
        if self._since:
            self._pull = self._exchange()
            self._give_way()
        self._own = flatten(self._parameters)
        with self.talking():
            spread(self._centre.current(), self._parameters)
            if buffers := floating_buffers(learner.module):
                average_in_place(buffers, 1 / self.size)

    def unsettle(self, learner: Learner) -> None:
        if self._own is not None:
            spread(self._own, self._parameters)
            self._own = None

    def _exchange(self) -> torch.Tensor:
        flat = flatten(self._parameters)
        self._since = 0
        self.bytes_exchanged += flat.nbytes
        with self.talking():
            return self._centre.exchange(flat)

    def _give_way(self) -> None:
        if self._pull is not None:
            spread(flatten(self._parameters).sub_(self._pull), self._parameters)
            self._pull = None

    def state(self) -> dict[str, Any]:
        self.barrier()  # asynchronous workers at the same step have all made the exchanges before it
        return {"steps": self._steps, "since": self._since, "pull": self._pull, "centre": self._centre.values}

    def load_state(self, state: dict[str, Any], learner: Learner) -> None:
        self._steps, self._since, self._pull = int(state["steps"]), int(state["since"]), state["pull"]
        if state["centre"] is not None:
            assert self._centre.values is not None
            self._centre.values.copy_(state["centre"])
        self.barrier()  # nobody exchanges with a centre that is not there yet
