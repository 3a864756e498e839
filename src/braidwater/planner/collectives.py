"""Measuring what it costs to talk: collectives between two processes of this machine, and torch's own arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from math import sqrt
from statistics import median
from typing import Any

from braidwater.engines.base import Member
from braidwater.planner.calibrate import best_of
from braidwater.planner.constants import Machine
from braidwater.planner.this_machine import LARGE_ROWS, SMALL_ROWS

_FEW, _MANY = 1_000, 1_000_000  # float32 numbers of the two messages that a line is drawn through
_CALLS = 15
_ROWS, _WIDTH = 256, 512
_ROUNDS, _LONG = 3, 1e9
_FOLLOWING = 4


def measure_collectives() -> dict[str, float]:
    """Constants of a gang of two on this machine, by the names of `Machine`.

    Latency and seconds a byte of an all-reduce by gloo and through shared memory, of an all-gather, a reduce-scatter and a
    message (a line through two sizes); what both wait for each other, and for a core, where they exchange gradients; what a small
    and a large step take longer while both train; torch's
    rates for matrix products in 32 and 16 bits and for elementwise work; what a tiny step takes; and the seconds from asking for
    a gang to its first step. Some ten seconds.
    """
    from braidwater.engines import LocalEngine

    asked = time.time()
    found: dict[str, float] = LocalEngine(2).gang(_measure, 2)[0]
    found["start"] = max(found.pop("begun") - asked, 0.1)
    return found


def _measure(member: Member) -> dict[str, float]:
    """In each member; the constants that rank 0 gives back."""
    import torch

    begun = time.time()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = _talking(member) | _contention(member) | _arithmetic()
        found |= _meeting(found)
    finally:
        torch.set_num_threads(threads)
    return found | {"begun": begun}


def _talking(member: Member) -> dict[str, float]:
    import torch
    import torch.distributed as collective

    from braidwater.parallel.shared_memory import open_shared_memory

    def gather(numbers: Any) -> None:
        collective.all_gather(list(numbers.chunk(2)), numbers[: len(numbers) // 2].clone())

    def scatter(numbers: Any) -> None:
        collective.reduce_scatter(torch.empty(len(numbers) // 2), list(numbers.chunk(2)))

    def pass_on(numbers: Any) -> None:  # there and back
        for source in (0, 1):
            if member.rank == source:
                collective.send(numbers, 1 - source)
            else:
                collective.recv(numbers, source)

    latency, byte = _line(collective.all_reduce)
    _, gathered = _line(gather)
    _, scattered = _line(scatter)
    send_latency, send_byte = _line(pass_on)
    memory = open_shared_memory()
    shared = (latency, byte) if memory is None else _line(memory.sum)
    return {
        "collective_latency": latency,
        "collective_byte": byte,
        "gather_byte": gathered,
        "scatter_byte": scattered,
        "send_latency": send_latency / 2,
        "send_byte": send_byte / 2,
        "shared_latency": shared[0],
        "shared_byte": shared[1],
    }


def _line(exchange: Callable[[Any], Any]) -> tuple[float, float]:
    """Seconds of an exchange of nothing, and seconds a byte more; both ranks make the same number of calls."""
    import torch

    small, large = (_typical(exchange, torch.zeros(size)) for size in (_FEW, _MANY))
    byte = max(large - small, 1e-9) / (4 * (_MANY - _FEW))
    return max(small - 4 * _FEW * byte, 1e-6), byte


def _typical(exchange: Callable[[Any], Any], numbers: Any) -> float:
    """Seconds of the lower quartile: what others on the machine do is not the exchange's."""
    taken = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        exchange(numbers)
        taken.append(time.perf_counter() - started)
    return sorted(taken)[len(taken) // 4]


def _contention(member: Member) -> dict[str, float]:
    """How much longer a step takes when both train than when one does."""
    import torch
    import torch.distributed as collective

    net = torch.nn.Sequential(torch.nn.Linear(_WIDTH, _WIDTH), torch.nn.ReLU(), torch.nn.Linear(_WIDTH, _WIDTH))
    optimizer = torch.optim.AdamW(net.parameters())

    def step(rows: Any) -> None:
        optimizer.zero_grad()
        net(rows).sum().backward()
        optimizer.step()

    def kappa(count: int) -> float:
        rows, alone, together = torch.randn(count, _WIDTH), _LONG, _LONG
        for _ in range(_ROUNDS):  # in turns: whatever else runs on the machine slows both alike
            if member.rank == 0:
                alone = min(alone, best_of(partial(step, rows), 0.08))
            collective.barrier()
            together = min(together, best_of(partial(step, rows), 0.08))
            collective.barrier()
        return min(max(together / alone, 1.0), 2.0)  # at 2 they would do as well one after the other

    return {"contention_small": kappa(SMALL_ROWS), "contention": kappa(LARGE_ROWS)}


def _meeting(talk: dict[str, float]) -> dict[str, float]:
    """What exchanging gradients adds to a step beyond the exchange itself: through shared memory after it, by gloo beside it."""
    import torch
    import torch.distributed as collective
    from torch.nn.parallel import DistributedDataParallel

    from braidwater.parallel.shared_memory import open_shared_memory

    net = torch.nn.Sequential(torch.nn.Linear(_WIDTH, _WIDTH), torch.nn.ReLU(), torch.nn.Linear(_WIDTH, _WIDTH))
    beside, memory = DistributedDataParallel(net, gradient_as_bucket_view=True), open_shared_memory()
    rows, size = torch.randn(LARGE_ROWS, _WIDTH), sum(4 * weights.numel() for weights in net.parameters())
    gradients = torch.zeros(size // 4)

    def meet() -> None:
        if memory is not None:
            memory.sum(gradients)

    def step(module: Any, then: Callable[[], None]) -> float:
        started = time.perf_counter()
        net.zero_grad()
        module(rows).sum().backward()
        then()
        return time.perf_counter() - started

    ways: tuple[Any, ...] = ((net, lambda: None), (net, meet), (beside, lambda: None))
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(_CALLS):  # in turns, as above
        for way, times in zip(ways, taken, strict=True):
            collective.barrier()
            step(*way)  # comes out of a barrier, where nobody trained
            times += [step(*way) for _ in range(_FOLLOWING)]
    plain, met, hidden = map(median, taken)
    waited = met - plain - talk["shared_latency"] - size * talk["shared_byte"]
    return {
        "meeting": max(waited, 0.0) / sqrt(plain) if memory is not None else Machine.meeting,
        "background_wait": max(hidden - plain - talk["collective_latency"] - size * talk["collective_byte"], 1e-6),
    }


def _arithmetic() -> dict[str, float]:
    import torch

    a, b = torch.randn(_ROWS, _WIDTH), torch.randn(_WIDTH, _WIDTH)
    product = best_of(lambda: a @ b)
    narrow = [tensor.bfloat16() for tensor in (a, b)]
    half = best_of(lambda: narrow[0] @ narrow[1])
    block = torch.randn(30, 16_384)
    weights = torch.full((30,), 0.01)
    gradient = best_of(lambda: block @ torch.sigmoid(weights @ block))
    rate = 2 * _ROWS * _WIDTH * _WIDTH / product
    tiny = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(tiny.parameters())
    row = torch.randn(1, 8)

    def step() -> None:
        optimizer.zero_grad()
        loss = tiny(row).sum()
        loss.backward()
        optimizer.step()
        loss.item()

    return {
        "torch_float32": rate,
        "half_speed": product / half,
        "torch_bytes": 4 * block.numel() / max(gradient - 4 * block.numel() / rate, 0.2 * gradient),
        "step_call": best_of(step),
    }
