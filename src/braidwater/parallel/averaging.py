"""Parameter averaging: workers train on their own, and their weights are averaged now and then.

Every k steps, inside a gang; or once an epoch, as an aggregate: then it runs on any engine that can fold blocks, also where
workers cannot talk to each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.distributed as dist

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.engines.base import Engine, Member
from braidwater.errors import OptionError
from braidwater.parallel.base import Data, Replica, Strategy, Trained, Training, check_workers, run_gang
from braidwater.parallel.flat import flatten, spread, trained_parameters
from braidwater.parallel.group import GroupReplica
from braidwater.parallel.learner import Learner
from braidwater.parallel.local_training import train_by_aggregates
from braidwater.parallel.loop import mini_batches, own_random_numbers, run_epochs

OptimizerState = Literal["local", "average", "reset"]


@dataclass(frozen=True)
class Averaging(Strategy):
    """Local steps, then ``w = sum(n_i w_i) / sum(n_i)`` over the workers, n_i being the rows worker i has seen since.

    McDonald, Hall and Mann 2010 ("Distributed Training Strategies for the Structured Perceptron"), local SGD (Stich 2019,
    arXiv 1805.09767). With plain SGD and ``every=1`` it equals all-reduce. The longer the workers are on their own, the less
    they exchange and the more the result depends on the rows of each: on shares sorted by class it fails (measured:
    accuracy .54 against .86 of all-reduce).

    `every` is a number of steps: all workers draw from the same shuffled windows then, so that their rows are alike
    however the table is ordered. Or it is ``"epoch"``: one pass of an aggregate over each worker's own contiguous share of
    the blocks; shares whose labels differ much are warned of after the first pass, and a table that was written in the
    order of its label should be shuffled first. (A module that draws random numbers, as dropout does, trains in a gang then
    too: the threads of one process share their generator, and a result would depend on who comes first.) `optimizer_state`
    says what becomes of momentum and the like at an average: each worker keeps its own ("local"), it is averaged too
    ("average"), or starts anew ("reset", the worst in most cases).

    `warmup` is how long gradients are summed by all-reduce before that begins, in the unit of `every`: steps, or epochs.
    It is called post-local SGD (Lin et al. 2020, arXiv 1808.07217) and gets over the first steps, in which workers on
    their own drift apart fastest. It takes a gang.

    Every average sends the bytes of the weights once.
    """

    name: ClassVar[str] = "averaging"
    exact: ClassVar[bool] = False
    shapes: ClassVar[tuple[str, ...]] = ("aggregate", "gang")
    workers: int = 2
    every: int | Literal["epoch"] = "epoch"
    optimizer_state: OptimizerState = "local"
    warmup: int = 0

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.every != "epoch" and (not isinstance(self.every, int) or self.every < 1):
            raise OptionError("every", self.every, "'epoch' or a number of steps from 1 on")
        if self.optimizer_state not in ("local", "average", "reset"):
            raise OptionError("optimizer_state", self.optimizer_state, "one of local, average, reset")
        if not isinstance(self.warmup, int) or self.warmup < 0:
            raise OptionError("warmup", self.warmup, "a number of steps (of epochs for every='epoch'), or 0")

    @property
    def folds(self) -> bool:
        return self.every == "epoch" and not self.warmup

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        # blocks that lie elsewhere are folded by processes, each of which has a generator of its own
        if self.folds and not (data.rows.here and draws_random_numbers(training, data)):
            return train_by_aggregates(training, data, engine, self.workers, self.optimizer_state)
        every = None if self.every == "epoch" else self.every
        stores = data.for_members()
        steps = -(-data.rows.rows // training.batch_size)
        if self.optimizer_state == "average" and data.rows.rows // steps < self.workers:
            # a worker without rows has no moments to average
            raise OptionError(
                "batch_size", training.batch_size, f"{2 * self.workers} or more for {self.workers} workers"
            )

        def run(member: Member) -> Trained | None:
            warmup = self.warmup * (steps if every is None else 1)
            replica = AveragingReplica(member, every, self.optimizer_state, warmup)
            trained = run_epochs(
                training, stores, replica, strategy=f"{self.name} every {self.every}, warmup {self.warmup}"
            )
            return trained if member.rank == 0 else None

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained


class AveragingReplica(GroupReplica):
    """A worker that steps on its own and averages every `every` steps (None: never inside an epoch), and at its end.

    In its first `warmup` steps it adds up the gradients of all workers instead.
    """

    replicated = False

    def __init__(self, member: Member, every: int | None, optimizer_state: OptimizerState, warmup: int = 0) -> None:
        super().__init__(member)
        self._every = every
        self._optimizer_state = optimizer_state
        self._warmup = warmup
        self._steps = 0
        self._weight = 0.0
        self._idle = False

    def state(self) -> dict[str, float]:
        return {"steps": self._steps, "weight": self._weight}

    def load_state(self, state: dict[str, float], learner: Learner) -> None:
        self._steps, self._weight = int(state["steps"]), state["weight"]

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        self._parameters = trained_parameters(module)
        return module

    def divisor(self, weight: float, batch: MiniBatch, weighted: bool) -> float:
        if self._steps >= self._warmup:
            return weight
        self._idle = not batch.rows
        return self.sum([weight])[0] if weighted else batch.global_rows

    @contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        yield
        if last and self._steps < self._warmup:
            for parameter in self._parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            self.average([parameter.grad for parameter in self._parameters if parameter.grad is not None], 1.0)

    def stepped(self, learner: Learner, weight: float) -> None:
        self._steps += 1
        self._weight += weight
        if self._steps <= self._warmup:
            if self._idle:
                learner.update()  # it had no rows of its own, but those of the others
        elif self._every is not None and (self._steps - self._warmup) % self._every == 0:
            self.settle(learner)

    def settle(self, learner: Learner) -> None:
        whole = self.sum([self._weight])[0]
        if whole == 0:
            return  # nobody has stepped since the last average
        share = self._weight / whole
        self._weight = 0.0
        tensors = [tensor for tensor in learner.module.state_dict().values() if tensor.is_floating_point()]
        if self._optimizer_state == "average":
            tensors += moments(learner.optimizer)
        self.average(tensors, share)
        if self._optimizer_state == "reset":
            learner.optimizer.state.clear()

    def average(self, tensors: list[torch.Tensor], share: float) -> None:
        """`average_in_place`, counted."""
        self.bytes_exchanged += sum(tensor.nbytes for tensor in tensors)
        with self.talking():
            average_in_place(tensors, share)


def draws_random_numbers(training: Training, data: Data) -> bool:
    """Whether the module draws random numbers in training. Found out on two rows."""
    batch = next(mini_batches(training, data, Replica()).epoch(0))
    with own_random_numbers(training.seed, 0):
        learner = Learner(training, Replica(), 1)
        before = torch.get_rng_state()
        with torch.no_grad():
            learner.module(learner.tensors(batch)[0][:2])
        return not torch.equal(before, torch.get_rng_state())


def average_in_place(tensors: list[torch.Tensor], share: float, group: dist.ProcessGroup | None = None) -> None:
    """Replace each tensor by the sum over the workers, of `group` or all, of `share` times it.

    One message for each type of number.
    """
    for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = flatten(alike).mul_(share)
        dist.all_reduce(flat, group=group)
        spread(flat, alike)


def moments(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The tensors of an optimiser's state, in the order of the parameters."""
    found = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            found += [value for _, value in sorted(state.items()) if isinstance(value, torch.Tensor)]
    return found
