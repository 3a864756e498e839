"""Synchronous data parallelism: each step's gradient is the mean over the rows of all workers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.parallel import DistributedDataParallel

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.engines.base import Engine, Member
from braidwater.parallel.base import Data, Strategy, Trained, Training, check_workers, run_gang
from braidwater.parallel.group import GroupReplica
from braidwater.parallel.loop import run_epochs


@dataclass(frozen=True)
class AllReduce(Strategy):
    """Every worker computes on its part of each step's rows; the gradients are summed by all-reduce while they are made.

    Equal to one process with the same `batch_size`: each worker's losses are divided by the rows of the whole step, so
    parts of unequal size weigh what they should. torch's DistributedDataParallel does the exchange (Li et al. 2020,
    "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", arXiv 2006.15704): a step costs the compute
    on a part, and an all-reduce of as many bytes as there are weights. Batch normalisation sees each worker's own part.

    `find_unused_parameters` is for modules that leave out parameters in some steps.
    """

    name: ClassVar[str] = "all_reduce"
    exact: ClassVar[bool] = True
    workers: int = 2
    find_unused_parameters: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        stores = data.for_members()

        def run(member: Member) -> Trained | None:
            replica = AllReduceReplica(member, self.find_unused_parameters)
            trained = run_epochs(training, stores, replica, strategy=self.name)
            return trained if member.rank == 0 else None  # all have the same weights: one hands them over

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained


class AllReduceReplica(GroupReplica):
    """A worker whose gradients are averaged with those of the others in every step."""

    def __init__(self, member: Member, find_unused_parameters: bool) -> None:
        super().__init__(member)
        self._find_unused = find_unused_parameters

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        # the gradient lies in the bucket that is sent: no copy before and after
        self._wrapped = DistributedDataParallel(
            module, gradient_as_bucket_view=True, find_unused_parameters=self._find_unused
        )
        return self._wrapped

    def backward(self, last: bool) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = nullcontext() if last else self._wrapped.no_sync()
        return found

    def divisor(self, weight: float, batch: MiniBatch, weighted: bool) -> float:
        # DistributedDataParallel takes the mean over the workers; times `size` that is their sum
        whole = self.sum([weight])[0] if weighted else batch.global_rows
        return whole / self.size
