"""Two levels: gradients summed inside groups of workers, weights averaged between the groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.engines.base import Engine, Member
from braidwater.errors import OptionError
from braidwater.parallel.averaging import Averaging, AveragingReplica, OptimizerState, average_in_place
from braidwater.parallel.base import Data, Strategy, Trained, Training, run_gang
from braidwater.parallel.grid import Grid
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.parts import cut

BETWEEN = "between"
INSIDE = "inside"


@dataclass(frozen=True)
class Hierarchical(Strategy):
    """`groups` groups of `group_size` workers: all-reduce inside a group in every step, averages between them every k steps.

    For machines that are joined by slower lines than those within them: a group is a machine (ranks of a group follow each
    other). Inside, a step sends the bytes of the gradients, as in `AllReduce`; between the groups, an average sends the bytes
    of the weights, as in `Averaging`, of which each group is one worker: `every` and `optimizer_state` are explained
    there. With plain SGD and ``every=1`` it equals all-reduce.
    """

    name: ClassVar[str] = "hierarchical"
    exact: ClassVar[bool] = False
    groups: int = 2
    group_size: int = 2
    every: int = 8
    optimizer_state: OptimizerState = "local"

    def __post_init__(self) -> None:
        for option in ("groups", "group_size"):
            if getattr(self, option) < 1:
                raise OptionError(option, getattr(self, option), "at least 1")
        if not isinstance(self.every, int):
            raise OptionError("every", self.every, "a number of steps from 1 on")
        Averaging(self.groups, self.every, self.optimizer_state)  # refuses what it cannot do

    @property
    def workers(self) -> int:  # type: ignore[override]
        return self.groups * self.group_size

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        stores = data.for_members()

        def run(member: Member) -> Trained | None:
            grid = Grid({BETWEEN: self.groups, INSIDE: self.group_size})
            replica = HierarchicalReplica(member, grid, self.every, self.optimizer_state)
            trained = run_epochs(training, stores, replica, strategy=str(self))
            return trained if member.rank == 0 else None

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained


class HierarchicalReplica(AveragingReplica):
    """A worker of a group. Its group steps as one, and is averaged with the others."""

    def __init__(self, member: Member, grid: Grid, every: int, optimizer_state: OptimizerState) -> None:
        super().__init__(member, every, optimizer_state)
        self.grid = grid
        self._inside = grid.group(INSIDE) if grid.size(INSIDE) > 1 else None

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        self._wrapped: DistributedDataParallel | None = None
        if self._inside is None:
            return super().wrap(module)
        self._wrapped = DistributedDataParallel(
            super().wrap(module), process_group=self._inside, gradient_as_bucket_view=True
        )
        return self._wrapped

    @contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        with nullcontext() if last or self._wrapped is None else self._wrapped.no_sync():
            yield

    def divisor(self, weight: float, batch: MiniBatch, weighted: bool) -> float:
        begin, end = cut(batch.global_rows, self.grid.place(BETWEEN), self.grid.size(BETWEEN))
        self._idle = batch.rows == 0 and begin < end
        return (self._in_group(weight) if weighted else end - begin) / self.grid.size(INSIDE)

    @property
    def steps_without_rows(self) -> bool:
        return self._idle  # it has no rows of its own, but its group has

    def stepped(self, learner: Learner, weight: float) -> None:
        if self._inside is not None:
            self.bytes_exchanged += sum(parameter.nbytes for parameter in self._parameters)
        super().stepped(learner, weight)

    def average(self, tensors: list[torch.Tensor], share: float) -> None:
        share = self._in_group(share)
        if self.grid.size(BETWEEN) > 1:
            self.bytes_exchanged += sum(tensor.nbytes for tensor in tensors)
            with self.talking():
                average_in_place(tensors, share, self.grid.group(BETWEEN))

    def _in_group(self, value: float) -> float:
        """The sum over the workers of the group."""
        total = torch.tensor(value, dtype=torch.float64)
        if self._inside is not None:
            with self.talking():
                dist.all_reduce(total, group=self._inside)
        return total.item()
