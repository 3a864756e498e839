"""Which packed blocks each session folds."""

from __future__ import annotations

from itertools import accumulate

from braidwater.engines.postgres.packing import Packed
from braidwater.engines.postgres.session import Share


def shares_of(packed: Packed, workers: int, memory: int, cores: int) -> list[Share]:
    """Runs of blocks, as many as there are workers and blocks for them, which share the `memory` (bytes) and the `cores`."""
    count = len(packed.blocks)
    workers = max(min(workers, count), 1)
    starts = [0, *accumulate(rows for _, rows in packed.blocks)]
    found = []
    for worker in range(workers):
        begin, end = count * worker // workers, count * (worker + 1) // workers
        first, last = (packed.blocks[begin][0], packed.blocks[end - 1][0]) if count else (0, -1)
        keep, threads = memory // workers, max(cores // workers, 1)
        found.append(Share(packed.qualified, packed.version, first, last, begin, starts[begin], keep, threads))
    return found


def holder_of(block: int, blocks: int, shares: int) -> int:
    """The number of the share that has the block."""
    return next(worker for worker in range(shares) if block < blocks * (worker + 1) // shares)
