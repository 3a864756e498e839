"""Where a worker computes: the processor, with so many threads, or one of the GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from braidwater.errors import UnsupportedError


def device_of(name: str, rank: int) -> torch.device:
    """The device of worker `rank`: with GPUs, worker i takes GPU i (modulo their number)."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError("device='cuda' was asked for, and torch sees no GPU here. Use device='cpu' or 'auto'.")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads (one at least) inside the ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(count, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def not_shared_out(small: bool) -> AbstractContextManager[None]:
    """Compute with one thread where the work is `small`: threads would wait for each other longer than they work."""
    return torch_threads(1) if small and torch.get_num_threads() > 1 else nullcontext()
