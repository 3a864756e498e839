"""The mini-batches of steps to come, gathered by a thread while a step computes.

Copying rows from where they lie scattered takes a twentieth of a step of a middling net, and runs beside it: both let go of
Python's lock meanwhile. Steps are handed over in groups of about a megabyte, since each handing over wakes a thread, which can
take as long as gathering a step.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice

from braidwater.blocks.mini_batches import MiniBatch

WORTH_OPERATIONS = 1e7  # of a step: a quarter of a millisecond, with which a thread's bookkeeping would interfere
_GROUP_BYTES = 2**20
_MOST_STEPS = 32  # of a group


def gathered_ahead(batches: Generator[MiniBatch, None, None]) -> Iterator[MiniBatch]:
    """The same mini-batches in the same order. Up to two groups of them are held; an error comes before the group it is in."""
    with closing(batches), ThreadPoolExecutor(1, "braidwater-batches") as reader:
        steps = 1
        coming = reader.submit(_some, batches, steps)
        while group := coming.result():
            steps = min(max(_GROUP_BYTES // max(group[0].features.nbytes, 1), 1), _MOST_STEPS)
            coming = reader.submit(_some, batches, steps)
            yield from group


def _some(batches: Iterator[MiniBatch], steps: int) -> list[MiniBatch]:
    return list(islice(batches, steps))
