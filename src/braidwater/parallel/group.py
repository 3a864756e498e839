"""A worker among others: sums and waits over torch's process group."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import zip_longest

import torch
import torch.distributed as dist

from braidwater.engines.base import Member
from braidwater.errors import UnsupportedError
from braidwater.parallel.base import Replica


class GroupReplica(Replica):
    """A member of a gang. Strategies that run in one derive from it."""

    def __init__(self, member: Member) -> None:
        self.rank = self.data_rank = member.rank
        self.size = self.data_size = member.size

    def sum(self, values: Sequence[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        with self.talking():
            dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def barrier(self) -> None:
        with self.talking():
            dist.barrier()


def check_alike(module: torch.nn.Module) -> None:
    """Refuse modules that differ from worker to worker: they would wait for each other's parameters for ever. Collective."""
    own = [
        f"{name} {tuple(tensor.shape)} {tensor.dtype}{'' if tensor.requires_grad else ', no gradient'}"
        for name, tensor in module.state_dict(keep_vars=True).items()
    ]
    digest = blake2b("\n".join(own).encode(), digest_size=8).digest()
    found = [torch.empty(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(found, torch.tensor([int.from_bytes(digest, signed=True)]))
    if len(set(map(int, found))) == 1:
        return
    of_all: list[list[str]] = [[] for _ in found]
    dist.all_gather_object(of_all, own)
    other = next(rank for rank, names in enumerate(of_all) if names != of_all[0])
    here, there = next(
        pair for pair in zip_longest(of_all[0], of_all[other], fillvalue="nothing") if pair[0] != pair[1]
    )
    raise UnsupportedError(
        f"Workers hold different modules: worker 0 has {here}, worker {other} has {there} in its place. A module must be "
        "made alike on all workers: look for sizes that depend on chance, on the process or on files."
    )
