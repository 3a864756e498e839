"""Which packed blocks each session folds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate

from braidwater.blocks.store import runs
from braidwater.engines.postgres.packing import Packed
from braidwater.engines.postgres.share import Share


def shares_of(packed: Packed, workers: int, memory: int, cores: int) -> list[Share]:
    """Runs of blocks, as many as there are workers and blocks for them, which share the `memory` (bytes) and the `cores`."""
    count = len(packed.blocks)
    workers = max(min(workers, count), 1)
    starts = _starts(packed)
    found = []
    for run in runs(count, workers):
        first, last = (packed.blocks[run[0]][0], packed.blocks[run[-1]][0]) if run else (0, -1)
        keep, threads = memory // workers, max(cores // workers, 1)
        found.append(
            Share(packed.qualified, packed.version, first, last, run.start, starts[run.start], len(run), keep, threads)
        )
    return found


def holder_of(block: int, blocks: int, shares: int) -> int:
    """The number of the share that has the block."""
    return next(worker for worker, run in enumerate(runs(blocks, shares)) if block in run)


def ones_of(packed: Packed, share: Share, blocks: Iterable[int]) -> list[Share]:
    """Each of the `blocks` (counted in all of `packed`) of a share as a share of its own."""
    starts = _starts(packed)
    numbers = [(place, packed.blocks[place][0]) for place in blocks]
    return [replace(share, first=n, last=n, place=place, start=starts[place], count=1) for place, n in numbers]


def _starts(packed: Packed) -> list[int]:
    return [0, *accumulate(rows for _, rows in packed.blocks)]
