"""Whether the shares of the workers have labels alike: averages of weights that were learnt from unlike ones are poor.

They are looked at before training begins, at about a nanosecond a row.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from braidwater.blocks.base import Array, Block
from braidwater.blocks.store import BlockStore
from braidwater.errors import DataWarning

if TYPE_CHECKING:
    from braidwater.parallel.base import Training

Target = Literal["class", "number"]

# Measured with 8 workers, ten classes of handwritten digits, averaging once an epoch: accuracy .955 at distances up to 0.55,
# .946 at 0.64, .894 at 0.78, .773 at 0.93; with 2 workers .97 up to 0.8, .81 at 0.98. So half is where it begins to matter.
BOUND = 0.5
_MOST_UNITS = 16  # of a share: a sample tells enough


def label_summary(labels: Array, target: Target) -> Array:
    """What is kept of a share's labels: the rows of each class; or of numbers their count, mean, and squares around it."""
    if target == "class":
        return np.bincount(labels.astype(np.int64, copy=False)).astype(np.float64)
    mean = float(np.mean(labels, dtype=np.float64))
    return np.array([len(labels), mean, float(np.square(labels - mean, dtype=np.float64).sum())])


def joined(one: Array, other: Array, target: Target) -> Array:
    """The summary of the rows of both."""
    if target == "class":
        longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
        total = longer.copy()
        total[: len(shorter)] += shorter
        return total
    rows = one[0] + other[0]
    apart = other[1] - one[1]  # Chan, Golub and LeVeque 1979: the squares of both around the mean of both
    mean = one[1] + apart * other[0] / rows
    return np.array([rows, mean, one[2] + other[2] + apart**2 * one[0] * other[0] / rows])


def distance(one: Array, other: Array, target: Target) -> float:
    """The total variation distance of two summaries, from 0 (alike) to 1 (no label in common).

    Of classes: half the sum of the differences of their frequencies. Of numbers: that of two normal distributions with
    these means and the variance within both, ``2 Phi(|m1 - m2| / 2s) - 1``.

    >>> distance(np.array([5.0, 5.0]), np.array([1.0, 3.0]), "class")
    0.25
    >>> round(distance(np.array([100, 0.0, 100.0]), np.array([100, 1.0, 100.0]), "number"), 3)
    0.383
    """
    if target == "class":
        size = max(len(one), len(other))
        first, second = (np.pad(counts, (0, size - len(counts))) / counts.sum() for counts in (one, other))
        return float(np.abs(first - second).sum() / 2)
    apart = abs(one[1] - other[1])
    spread = math.sqrt((one[2] + other[2]) / (one[0] + other[0]))
    if spread == 0:
        return float(apart > 0)
    return math.erf(apart / spread / math.sqrt(8))


@dataclass(frozen=True)
class Skew:
    """The share whose labels are farthest from those of all others together; `bound` is what does little harm yet."""

    worker: int
    workers: int
    distance: float
    bound: float

    def __str__(self) -> str:
        return (
            f"The labels of the share of worker {self.worker} of {self.workers} are far from those of the others: total "
            f"variation distance {self.distance:.2f}, where up to {self.bound:.2f} does little harm."
        )


ADVICE = (
    "Averages of weights that were trained on such shares are poor. Put the rows in a random order: Trainer(shuffle=True); or "
    "choose AllReduce, or Averaging(every=<steps>), whose workers draw from the same rows."
)


def warn_of_skew(training: Training, store: BlockStore, workers: int) -> None:
    """Warn with a `DataWarning` before workers train on unlike shares of a store."""
    found = find_skew(store, training.form.design.label, training.target, workers)
    if found is not None:
        warnings.warn(f"{found} {ADVICE}", DataWarning, stacklevel=2)


def find_skew(store: BlockStore, label: str | None, target: Target, workers: int) -> Skew | None:
    """Whether the labels of a worker's share, a run of the store's blocks, are far from those of all others together.

    A distance counts as far from 0.5 on, plus what few rows make by chance: ``(sqrt(classes) / 2 + 1) / sqrt(rows)``, which
    shares of shuffled rows exceed with a probability below exp(-2) even without the 0.5 (the mean is at most its first
    part; McDiarmid's inequality for the rest). At most 16 blocks of each share are read.
    """
    if label is None or min(workers, len(store.units)) < 2:
        return None
    shares = [_summary_of(store, label, target, part) for part in _shares(len(store.units), workers)]
    found = [_skew(shares, worker, target) for worker in range(len(shares))]
    worst = max(found, key=lambda skew: skew.distance - skew.bound)
    return worst if worst.distance > worst.bound else None


def _shares(units: int, workers: int) -> list[range]:
    """The numbers of the units of each worker, as engines part a store; of a long run 16, evenly spread."""
    count = min(workers, units)
    bounds = [units * worker // count for worker in range(count + 1)]
    return [range(begin, end, -(-(end - begin) // _MOST_UNITS)) for begin, end in pairwise(bounds)]


def _summary_of(store: BlockStore, label: str, target: Target, units: range) -> Array:
    whole: Array | None = None
    for number in units:
        own = store.ask(number, partial(_of_block, label=label, target=target))
        whole = own if whole is None else joined(whole, own, target)
    assert whole is not None
    return whole


def _of_block(block: Block, label: str, target: Target) -> Array:
    return label_summary(block[label], target)


def _skew(shares: Sequence[Array], worker: int, target: Target) -> Skew:
    share, rest = shares[worker], [*shares[:worker], *shares[worker + 1 :]]
    others = reduce(partial(joined, target=target), rest)
    rows, classes = (share.sum(), max(len(share), len(others))) if target == "class" else (share[0], 2)
    chance = (math.sqrt(classes) / 2 + 1) / math.sqrt(rows)
    return Skew(worker, len(shares), distance(share, others, target), BOUND + chance)
