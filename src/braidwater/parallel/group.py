"""A worker among others: sums and waits over torch's process group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from braidwater.engines.base import Member
from braidwater.parallel.base import Replica


class GroupReplica(Replica):
    """A member of a gang. Strategies that run in one derive from it."""

    def __init__(self, member: Member) -> None:
        self.rank = self.data_rank = member.rank
        self.size = self.data_size = member.size

    def sum(self, values: Sequence[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def barrier(self) -> None:
        dist.barrier()
