"""Exchanges through memory that the processes of one machine share: sums and messages without sockets.

Each worker has a slot that it alone writes. A few workers lay down all they have, and each adds up all slots. Many lay down
the parts that others will add, add up their own part, and read the sums of the others: reduce-scatter and all-gather
(Rabenseifner 2004, "Optimization of Collective Reduction Operations") as copies. Either way terms are added in order of
rank. Who waits for whom is told by POSIX semaphores in the same memory, which also put the copies of different processors
in order.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import secrets
import time
from typing import Any

import torch
import torch.distributed as dist

from braidwater.errors import WorkerError
from braidwater.parallel.parts import cut

CHUNK = 4 << 20  # bytes summed at a time: what the workers lay down stays in the cache
_SLOT = 2 * CHUNK  # bytes of a worker
_LINE = 64  # bytes of a cache line: one for each semaphore, so that nobody's waiting slows another's
_SPINS = 100  # looks at a semaphore before sleeping on it: some 0.05 ms, as long as waking up takes
_FEW = 3  # workers: as many reads of all that is laid down take no longer than meeting a second time


class SharedMemory:
    """The memory that all workers of a process group share. `open_shared_memory` makes it."""

    def __init__(self, memory: mmap.mmap, rank: int, size: int, seconds: float) -> None:
        self.rank = rank
        self.size = size
        self.seconds = seconds
        self._bytes = torch.frombuffer(memory, dtype=torch.uint8)
        self._others = [peer for peer in range(size) if peer != rank]
        base = self._bytes.data_ptr()
        self._mine = [_semaphore(base, rank * size + peer) for peer in self._others]
        self._theirs = [_semaphore(base, peer * size + rank) for peer in self._others]
        self._turn = 0

    def sum(self, tensor: torch.Tensor, factor: float = 1.0) -> None:
        """Replace each number by `factor` times its sum over the workers, added in order of rank. Collective.

        `tensor` is flat and contiguous, of one length and dtype on all workers. Up to three workers write its bytes once and
        read them n times, more write and read them about three times. `WorkerError` names a worker that does not come
        within the process group's time-out.
        """
        for part in torch.split(tensor, CHUNK // tensor.element_size()):
            if self.size <= _FEW:
                self._sum_all(part, factor)
            else:
                self._sum_part(part, factor)

    def swap(self, sends: dict[int, torch.Tensor], receives: dict[int, torch.Tensor], most: int) -> None:
        """Hand tensors to other workers and fill those that come from them, by rank. Collective, also for who has none.

        Tensors are contiguous. `most` are the bytes of the largest that any worker hands to any other, the same on all. Each
        byte is written once and read once. `WorkerError` as in `sum`.
        """
        room = CHUNK // self.size // _LINE * _LINE  # for each receiver
        for begin in range(0, most, room):
            half = self._next_half()
            for peer, tensor in sends.items():
                part = _as_bytes(tensor)[begin : begin + room]
                self._view(self.rank, half, part, peer * room).copy_(part)
            self._meet()
            for peer, tensor in receives.items():
                part = _as_bytes(tensor)[begin : begin + room]
                part.copy_(self._view(peer, half, part, self.rank * room))
            if self.size > _FEW:
                self._meet()

    def _next_half(self) -> int:
        """Few use the halves of a slot in turns: who is through may lay down the next numbers while others still read these.

        Many meet a second time in each exchange.
        """
        self._turn = 1 - self._turn if self.size <= _FEW else 0
        return self._turn

    def _sum_all(self, tensor: torch.Tensor, factor: float) -> None:
        half = self._next_half()
        slots = [self._view(rank, half, tensor) for rank in range(self.size)]
        slots[self.rank].copy_(tensor)
        self._meet()
        _add(slots, factor, tensor)

    def _sum_part(self, tensor: torch.Tensor, factor: float) -> None:
        bounds = [cut(len(tensor), rank, self.size) for rank in range(self.size)]
        parts = [tensor[begin:end] for begin, end in bounds]
        slots = [self._view(rank, 0, tensor) for rank in range(self.size)]
        slots[self.rank].copy_(tensor)
        self._meet()
        begin, end = bounds[self.rank]
        sums = [self._view(rank, 1, part) for rank, part in enumerate(parts)]
        _add([slot[begin:end] for slot in slots], factor, sums[self.rank])
        self._meet()
        for part, found in zip(parts, sums, strict=True):
            part.copy_(found)

    def _view(self, rank: int, half: int, like: torch.Tensor, after: int = 0) -> torch.Tensor:
        """As many bytes as `like` has, `after` so many in one half of the slot of worker `rank`."""
        begin = _header(self.size) + rank * _SLOT + half * CHUNK + after
        return self._bytes[begin : begin + like.nbytes].view(like.dtype)

    def _meet(self) -> None:
        """Wait until all workers are here; what they wrote before can be read after."""
        for semaphore in self._mine:
            _libc.sem_post(semaphore)
        for peer, semaphore in zip(self._others, self._theirs, strict=True):
            if not _arrived(semaphore, self.seconds):
                raise WorkerError(
                    f"An exchange through shared memory timed out: worker {peer} of {self.size} did not come to it, worker "
                    f"{self.rank} waited {self.seconds:g} s."
                )


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1).view(torch.uint8)


def _add(terms: list[torch.Tensor], factor: float, total: torch.Tensor) -> None:
    torch.add(terms[0], terms[1], out=total)
    for term in terms[2:]:
        total += term
    if factor != 1.0:
        total *= factor


def is_possible() -> bool:
    """Whether processes of this machine can share memory that has no name. They can on Linux."""
    return _libc is not None


def open_shared_memory() -> SharedMemory | None:
    """The shared memory of the process group; None where its workers are not on one machine. Collective.

    Without a name nothing is left when workers are killed: it goes with the last process that holds it. It takes
    8 MB for each worker.
    """
    rank, size = dist.get_rank(), dist.get_world_size()
    length = _header(size) + size * _SLOT
    token = secrets.token_bytes(_LINE)
    descriptor = _make_memory(length, size, token) if rank == 0 and is_possible() else -1
    place = torch.tensor([os.getpid(), descriptor, *token])
    dist.broadcast(place, 0)
    process, number, *found = place.tolist()
    memory = _map(f"/proc/{process}/fd/{number}", length, size, bytes(found))
    everywhere = torch.tensor(int(memory is not None))
    dist.all_reduce(everywhere, dist.ReduceOp.MIN)
    if descriptor >= 0:
        os.close(descriptor)
    if memory is None or not everywhere.item():
        return None
    return SharedMemory(memory, rank, size, _timeout())


def _make_memory(length: int, size: int, token: bytes) -> int:
    """A descriptor of new memory, its semaphores at 0; -1 where that cannot be had."""
    descriptor = os.memfd_create("braidwater")
    try:
        os.ftruncate(descriptor, length)
        memory = mmap.mmap(descriptor, length)
    except OSError:
        os.close(descriptor)
        return -1
    base = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
    for number in range(size * size):
        if _libc.sem_init(_semaphore(base, number), 1, 0):
            os.close(descriptor)
            return -1
    begin = size * size * _LINE
    memory[begin : begin + len(token)] = token
    return descriptor


def _map(path: str, length: int, size: int, token: bytes) -> mmap.mmap | None:
    """The memory behind a descriptor of another process; None where that is a process of another machine."""
    try:
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), length)
    except (OSError, ValueError):
        return None
    begin = size * size * _LINE
    return memory if memory[begin : begin + len(token)] == token else None


def _timeout() -> float:
    """Seconds that a collective of the process group waits."""
    assert dist.group.WORLD is not None
    backend = dist.group.WORLD._get_backend(torch.device("cpu"))
    found: float = backend.options._timeout.total_seconds()
    return found


def _header(size: int) -> int:
    """Bytes before the slots: a semaphore for each pair of workers, and the token."""
    return -(-(size * size + 1) * _LINE // mmap.PAGESIZE) * mmap.PAGESIZE


# a C library with process-shared semaphores (`man 7 sem_overview`), where memory without a name can be had too
_libc: Any = ctypes.CDLL(None, use_errno=True) if hasattr(os, "memfd_create") else None


class _Moment(ctypes.Structure):
    """`struct timespec`."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _semaphore(base: int, number: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(base + number * _LINE)


def _arrived(semaphore: ctypes.c_void_p, seconds: float) -> bool:
    """Wait until the semaphore is posted, at most so long; whether it was."""
    for _ in range(_SPINS):
        if _libc.sem_trywait(semaphore) == 0:
            return True
    whole, rest = divmod(time.time() + seconds, 1)
    end = _Moment(int(whole), int(rest * 1e9))
    while _libc.sem_timedwait(semaphore, ctypes.byref(end)):
        if ctypes.get_errno() != errno.EINTR:
            return False
    return True
