"""A worker's line to the others of a process group, inside forward and backward passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from braidwater.parallel.parts import cut
from braidwater.parallel.shared_memory import SharedMemory, open_shared_memory


class Talk:
    """Exchanges of tensors with a group; counts the bytes that this worker hands over, and the seconds that it waits.

    They go through memory that the workers share where the group is the whole gang and on one machine. Made by all members
    at the same point.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.part, self.parts = dist.get_rank(group), dist.get_world_size(group)
        self.bytes = 0
        self.seconds = 0.0
        self._memory: SharedMemory | None = None
        if self.parts == dist.get_world_size():
            self._memory = open_shared_memory()

    def own(self, length: int) -> tuple[int, int]:
        """Where this worker's part of `length` begins and ends."""
        return cut(length, self.part, self.parts)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the workers, the same bit for bit on all; a new tensor."""
        total = tensor.clone(memory_format=torch.contiguous_format)
        with self.waiting(total.nbytes):
            if self._memory is not None and total.device.type == "cpu":
                self._memory.sum(total.view(-1))
            else:
                dist.all_reduce(total, group=self.group)
        return total

    def gather(self, own: torch.Tensor, dim: int, length: int) -> torch.Tensor:
        """The workers' even parts of dimension `dim`, together `length` long."""
        bounds = [cut(length, part, self.parts) for part in range(self.parts)]
        shapes = [
            [end - begin if place == dim % own.ndim else size for place, size in enumerate(own.shape)]
            for begin, end in bounds
        ]
        parts = [own.new_empty(shape) for shape in shapes]
        parts[self.part] = own.contiguous()
        others = [part for part in range(self.parts) if part != self.part]
        most = max(part.nbytes for part in parts)
        self.swap(dict.fromkeys(others, parts[self.part]), {part: parts[part] for part in others}, most)
        return torch.cat(parts, dim)

    def swap(self, sends: dict[int, torch.Tensor], receives: dict[int, torch.Tensor], most: int) -> None:
        """Send and receive contiguous tensors, by worker. All workers come, and say the bytes of the largest tensor of all."""
        with self.waiting(sum(tensor.nbytes for tensor in sends.values())):
            if self._memory is not None and all(
                one.device.type == "cpu" for one in (*sends.values(), *receives.values())
            ):
                self._memory.swap(sends, receives, most)
            else:
                self._swap(sends, receives)

    def _swap(self, sends: dict[int, torch.Tensor], receives: dict[int, torch.Tensor]) -> None:
        peers = {part: dist.get_global_rank(self.group, part) for part in {*sends, *receives}}
        moves = [dist.P2POp(dist.isend, tensor, peers[part], self.group) for part, tensor in sends.items()]
        moves += [dist.P2POp(dist.irecv, tensor, peers[part], self.group) for part, tensor in receives.items()]
        if moves:
            for work in dist.batch_isend_irecv(moves):
                work.wait()

    @contextmanager
    def waiting(self, sent: int) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - begun
        self.bytes += sent
