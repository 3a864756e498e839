"""Measuring what it costs to talk: all-reduce between processes of this machine, and torch's own arithmetic."""

from __future__ import annotations

import time
from typing import Any

from braidwater.engines.base import Member
from braidwater.planner.calibrate import best_of

_SMALL, _LARGE = 1_000, 1_000_000  # float32 numbers of the two all-reduces that the line is drawn through
_ROWS, _WIDTH = 256, 512


def measure_collectives() -> dict[str, float]:
    """Constants of a gang of two on this machine, by the names of `Machine`.

    Latency and seconds a byte of a gloo all-reduce (a line through two sizes), how much longer a step takes when both
    train, torch's rate for matrix products and for elementwise work, and the seconds from asking for a gang to its first
    step. Five to ten seconds, most of them for importing torch twice.
    """
    from braidwater.engines import LocalEngine

    asked = time.time()
    found: dict[str, float] = LocalEngine(2).gang(_measure, 2)[0]
    found["start"] = max(found.pop("begun") - asked, 0.1)
    return found


def _measure(member: Member) -> dict[str, float]:
    """In each member; the constants that rank 0 gives back."""
    import torch
    import torch.distributed as collective

    begun = time.time()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        small, large = (_all_reduce(torch, collective, size) for size in (_SMALL, _LARGE))
        a, b = torch.randn(_ROWS, _WIDTH), torch.randn(_WIDTH, _WIDTH)
        # alone while the other waits, then both
        alone = best_of(lambda: a @ b, 0.2) if member.rank == 0 else 0.0
        collective.barrier()
        together = best_of(lambda: a @ b, 0.2)
        block = torch.randn(30, 16_384)
        weights = torch.full((30,), 0.01)
        gradient = best_of(lambda: block @ torch.sigmoid(weights @ block))
        collective.barrier()
    finally:
        torch.set_num_threads(threads)
    byte = max(large - small, 1e-9) / (4 * (_LARGE - _SMALL))
    rate = 2 * _ROWS * _WIDTH * _WIDTH / (alone or together)
    arithmetic = 4 * block.numel() / rate
    return {
        "begun": begun,
        "collective_latency": max(small - 4 * _SMALL * byte, 1e-6),
        "collective_byte": byte,
        "contention": max(together / alone, 1.0) if alone else 1.0,
        "torch_float32": rate,
        "torch_bytes": 4 * block.numel() / max(gradient - arithmetic, 0.2 * gradient),
    }


def _all_reduce(torch: Any, collective: Any, size: int) -> float:
    """Seconds of the median all-reduce: both ranks make the same number of calls."""
    numbers = torch.zeros(size)
    taken = []
    for _ in range(12):
        started = time.perf_counter()
        collective.all_reduce(numbers)
        taken.append(time.perf_counter() - started)
    return sorted(taken)[len(taken) // 2]
