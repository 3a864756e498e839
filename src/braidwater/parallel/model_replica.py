"""A worker that holds a part of a module, and shares its rows with the workers that hold the other parts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.engines.base import Member
from braidwater.parallel.grid import Grid
from braidwater.parallel.group import GroupReplica
from braidwater.parallel.learner import Learner
from braidwater.parallel.talk import Talk

DATA = "data"
PIPELINE = "pipeline"
SPATIAL = "spatial"
TENSOR = "tensor"
AXES = (DATA, PIPELINE, SPATIAL, TENSOR)  # parts that talk most lie next to each other


class ModelReplica(GroupReplica):
    """A member of a gang that is a `Grid`: workers along the axis "data" have rows of their own, the others share them.

    As it stands it has the whole module. Gradients are averaged along `averaged_over` after each step's backward pass.
    """

    averaged_over: tuple[str, ...] = (DATA,)
    steps_without_rows = True

    def __init__(self, member: Member, grid: Grid) -> None:
        super().__init__(member)
        self.grid = grid
        self.data_rank, self.data_size = grid.place(DATA), grid.size(DATA)
        self._talks: dict[str, Talk] = {}
        self._counted = 0.0, 0
        self._gradient_bytes = 0

    def talk(self, axis: str) -> Talk:
        """The line to the workers along an axis. Collective where it is made."""
        if axis not in self._talks:
            self._talks[axis] = Talk(self.grid.group(axis))
        return self._talks[axis]

    @property
    def counts_rows(self) -> bool:
        return all(self.grid.place(axis) == 0 for axis in AXES if axis != DATA)

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        self._wrapped: DistributedDataParallel | None = None
        trained = [p for p in module.parameters() if p.requires_grad]
        if self.grid.size(*self.averaged_over) == 1 or not trained:
            return module
        self._gradient_bytes = sum(p.nbytes for p in trained)
        self._wrapped = DistributedDataParallel(
            module,
            process_group=self.grid.group(*self.averaged_over),
            gradient_as_bucket_view=True,
        )
        return self._wrapped

    def backward(self, last: bool) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any]
        found = nullcontext() if last or self._wrapped is None else self._wrapped.no_sync()
        return found

    def divisor(self, weight: float, batch: MiniBatch, weighted: bool) -> float:
        # gradients are averaged over the workers; times their number that is the sum
        if self.data_size == 1:
            return weight
        whole = self.sum([weight])[0] if weighted else batch.global_rows
        return whole / self.data_size

    def sum(self, values: Sequence[float]) -> list[float]:
        return super().sum(values if self.counts_rows else [0.0] * len(values))

    def squared_norm(self, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
        """The sum of the squares of all gradients of the module, wherever they lie. Collective."""
        total = torch.zeros((), dtype=torch.float64)
        for parameter in parameters:
            if parameter.grad is not None:
                total += parameter.grad.detach().double().square().sum()
        return total

    def clip(self, parameters: Sequence[torch.nn.Parameter], norm: float) -> None:
        torch.nn.utils.clip_grads_with_norm_(parameters, norm, self.squared_norm(parameters).sqrt())

    def agreed(self, finite: bool) -> bool:
        flag = torch.tensor(float(finite))
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
        return bool(flag)

    def stepped(self, learner: Learner, weight: float) -> None:
        seconds = sum(talk.seconds for talk in self._talks.values())
        sent = sum(talk.bytes for talk in self._talks.values())
        self.seconds_exchanging += seconds - self._counted[0]
        self.bytes_exchanged += sent - self._counted[1] + self._gradient_bytes
        self._counted = seconds, sent
