"""Mini-batches: the rows of one optimiser step, in an order that only the seed and the epoch decide.

The units of a store are permuted, some of them (about 64 thousand rows) make a window, the rows of a window are shuffled,
and the sequence that results is cut into steps of equal size (within one row, so that no tiny batch ends an epoch).
Reading is unit by unit, as for any other pass, yet a mini-batch holds rows from all over its window. Rows that were
sorted by class before they were written should be shuffled once on writing: a window sees only its own units.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from braidwater.blocks.base import Array
from braidwater.blocks.store import BlockStore, Unit
from braidwater.blocks.windows import RowForm, Rows, Window, WindowMemory, sequence_lengths
from braidwater.errors import EmptyTableError, OptionError

WINDOW_ROWS = 65_536
WINDOW_BYTES = 64 * 2**20
GATHERED_BYTES = (
    2**18
)  # of the rows of small steps that are gathered at once: half the time, and still in the cache when used
BUCKET_STEPS = 50  # sequences are sorted by length within the rows of so many steps

Share = Literal["batch", "units"]


@dataclass(slots=True)  # not frozen: that would triple the time to make one, which every step pays
class MiniBatch:
    """This worker's rows of one step.

    `step` counts from 0 within the epoch. `rows` are those that count: 0 where a worker has none in this step, and then the
    arrays hold one row that must not count (a worker has to join the exchange of gradients in every step).
    `global_rows` is the size of the step over all workers. `numbers` are row numbers within the store.
    """

    step: int
    rows: int
    global_rows: int
    features: Array
    labels: Array | None
    weights: Array | None
    _pieces: tuple[tuple[Window, Array], ...] = ()
    _at: int = 0  # the place of its first row in the pieces, which several steps may share

    @property
    def numbers(self) -> Array:
        numbers = np.concatenate([window.row_numbers(index) for window, index in self._pieces])
        return numbers[self._at : self._at + self.rows]


@dataclass(frozen=True)
class _Span:
    """A window within an epoch: its units, and the position of its first row in the epoch's sequence."""

    number: int
    begin: int
    end: int
    units: tuple[Unit, ...]


class MiniBatches:
    """The mini-batches of a store for worker `rank` of `size`, any epoch, from any step.

    `batch_size` is the most rows of a step over all workers. `share` says how workers part the rows:

    - ``"batch"``: every worker takes its part of every step's rows, so that the steps of an epoch are the same rows
      whatever the number of workers; each worker reads every unit (of one machine's disk or memory).
    - ``"units"``: every worker reads only its own units and cuts them into as many steps as the others; for stores that
      do not lie on one machine.

    Every row is seen once an epoch in both. Steps before `start` are skipped without reading their rows.

    >>> import numpy as np
    >>> from braidwater.encoding.design import NumberTerm, design_of
    >>> from braidwater.testing.strategies import uneven_store
    >>> store = uneven_store({"x": np.arange(10.0), "y": np.arange(10)}, units=(6, 4))
    >>> form = RowForm(design_of([NumberTerm(("x",), 0)], ["x"], label="y"))
    >>> [batch.features.shape for batch in MiniBatches(store, form, batch_size=4).epoch(0)]
    [(3, 1), (3, 1), (4, 1)]
    """

    def __init__(
        self,
        store: BlockStore,
        form: RowForm,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        size: int = 1,
        share: Share = "batch",
        shuffle: bool = True,
        window_rows: int = WINDOW_ROWS,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        if batch_size < 1:
            raise OptionError("batch_size", batch_size, "at least 1")
        if seed < 0:
            raise OptionError("seed", seed, "a whole number that is not negative")
        if share not in ("batch", "units"):
            raise OptionError("share", share, "batch or units")
        total = store.rows
        if total == 0:
            raise EmptyTableError("There are no rows to make mini-batches of.")
        self.store = store
        self.total_rows = total
        self.form = form
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.size = size
        self.share = share
        self.shuffle = shuffle
        self.window_rows = window_rows
        self.window_bytes = window_bytes
        self._memory = WindowMemory()
        self._whole = _Held()  # a store of one window is turned to rows once, not once an epoch

    def alike(self, *, batch_size: int, seed: int) -> MiniBatches:
        """Mini-batches of the same rows, of another size and in another order. A store of one window is held once for both."""
        made = MiniBatches(
            self.store, self.form, batch_size=batch_size, seed=seed, rank=self.rank, size=self.size, share=self.share,
            shuffle=self.shuffle, window_rows=self.window_rows, window_bytes=self.window_bytes,
        )  # fmt: skip
        made._whole = self._whole
        return made

    @cached_property
    def steps(self) -> int:
        """Steps of an epoch, the same for every worker."""
        return -(-self.total_rows // self.batch_size)

    @cached_property
    def rows(self) -> int:
        """Rows that this worker sees in an epoch."""
        if self.share == "units":
            return self._shares[self.rank]
        return sum(end - begin for begin, end in map(self._cut, range(self.steps)))

    def epoch(self, number: int, start: int = 0) -> Iterator[MiniBatch]:
        """The mini-batches of epoch `number` from step `start` on. The arrays are the caller's to keep."""
        windows = _Windows(self, number)
        try:
            for first in range(start, self.steps, self._at_once):
                yield from self._gathered(windows, first, min(first + self._at_once, self.steps))
        finally:
            windows.close()

    def _gathered(self, windows: _Windows, first: int, last: int) -> Iterator[MiniBatch]:
        """The mini-batches of steps whose rows follow each other in the sequence."""
        cuts = [self._cut(step) for step in range(first, last)]
        begin, end = cuts[0][0], cuts[-1][1]
        if begin == end:
            begin = min(begin, windows.rows - 1)
            end = begin + 1
        pieces = windows.pieces(begin, end)
        picked = [window.pick(index) for window, index in pieces]
        whole = picked[0] if len(picked) == 1 else _joined(picked)
        for step, (low, high) in enumerate(cuts, first):
            at = low - begin
            part = slice(at, high - begin) if high > low else slice(0, 1)
            features = whole.features[part]
            if self.form.pad is not None:
                longest = int(sequence_lengths(features, self.form.pad).max())
                features = features[:, : max(longest, 1)]
            labels = None if whole.labels is None else whole.labels[part]
            weights = None if whole.weights is None else whole.weights[part]
            rows = high - low
            together = rows if self.size == 1 else self._global_rows(step)
            yield MiniBatch(step, rows, together, features, labels, weights, pieces, at)

    @cached_property
    def _at_once(self) -> int:
        """How many steps are gathered at once: as many as are small, where a worker's rows of one follow those of the last."""
        if self.size > 1 and (self.share == "batch" or self.rows < self.steps):
            return 1
        return max(GATHERED_BYTES // (self.batch_size * max(self.form.feature_bytes(self.store), 1)), 1)

    def _cut(self, step: int) -> tuple[int, int]:
        """Where this worker's rows of a step begin and end in its sequence."""
        if self.share == "units":
            rows = self._shares[self.rank]
            return step * rows // self.steps, (step + 1) * rows // self.steps
        rows = self.total_rows
        begin, end = step * rows // self.steps, (step + 1) * rows // self.steps
        return begin + (end - begin) * self.rank // self.size, begin + (end - begin) * (self.rank + 1) // self.size

    def _global_rows(self, step: int) -> int:
        if self.share == "units":
            return sum((step + 1) * rows // self.steps - step * rows // self.steps for rows in self._shares)
        rows = self.total_rows
        return (step + 1) * rows // self.steps - step * rows // self.steps

    @cached_property
    def _dealt(self) -> list[list[Unit]]:
        """The units of each worker."""
        return deal(self.store.units, self.size)

    @cached_property
    def _shares(self) -> list[int]:
        return [sum(unit.rows for unit in hand) for hand in self._dealt]

    def _own_units(self) -> list[Unit]:
        if self.share == "batch":
            return list(self.store.units)
        # a worker without a unit still needs one row that does not count
        return self._dealt[self.rank] or [self.store.units[0]]

    def _random(self, epoch: int, window: int) -> np.random.Generator:
        stream = self.rank + 1 if self.share == "units" else 0
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch, stream, window])))

    def _spans(self, epoch: int) -> list[_Span]:
        """The windows of an epoch in their order."""
        units = self._own_units()
        if self.shuffle:
            units = [units[place] for place in self._random(epoch, 0).permutation(len(units))]
        feature_bytes = self.form.feature_bytes(self.store)
        # features that outgrow the blocks by far stay blocks (see Window), so the smaller of both is what a row holds
        row_bytes = max(min(feature_bytes, self.store.schema.row_bytes), 1)
        spans: list[_Span] = []
        held: list[Unit] = []
        begin = rows = 0
        for unit in units:
            if held and (rows >= self.window_rows or (rows + unit.rows) * row_bytes > self.window_bytes):
                spans.append(_Span(len(spans), begin, begin + rows, tuple(held)))
                begin, rows, held = begin + rows, 0, []
            held.append(unit)
            rows += unit.rows
        spans.append(_Span(len(spans), begin, begin + rows, tuple(held)))
        return spans

    def _window(self, epoch: int, span: _Span) -> tuple[Window, Array | None]:
        """A window and the order of its rows (None: as they lie)."""
        if len(span.units) == len(self._own_units()):
            if self._whole.window is None:
                self._whole.window = Window(self.store, self._own_units(), self.form, self.window_bytes)
            window = self._whole.window
        else:
            window = Window(self.store, span.units, self.form, self.window_bytes, self._memory)
        if not self.shuffle:
            return window, None
        random = self._random(epoch, span.number + 1)
        order = random.permutation(span.end - span.begin)
        if self.form.pad is not None:
            order = by_length(order, window.lengths(self.form.pad), self.batch_size, random)
        return window, order


@dataclass
class _Held:
    """The window of a store that is one window."""

    window: Window | None = None


class _Windows:
    """The windows of one epoch: those that steps need now, and the next one being read on a thread."""

    def __init__(self, batches: MiniBatches, epoch: int) -> None:
        self._batches = batches
        self._epoch = epoch
        self._spans = deque(batches._spans(epoch))
        self.rows = self._spans[-1].end
        ahead = len(self._spans) > 1 and batches.store.any_thread
        self._reader = ThreadPoolExecutor(1, "braidwater-window") if ahead else None
        self._held: deque[tuple[_Span, Window, Array | None]] = deque()
        self._coming: tuple[_Span, Future[tuple[Window, Array | None]]] | None = None

    def pieces(self, begin: int, end: int) -> tuple[tuple[Window, Array], ...]:
        """For positions that only ever grow: the windows they lie in, and the rows within each."""
        while self._held and self._held[0][0].end <= begin:
            self._release(self._held.popleft()[1])
        while not self._held or self._held[-1][0].end < end:
            self._take_next(begin)
        found = []
        for span, window, order in self._held:
            low, high = max(begin, span.begin) - span.begin, min(end, span.end) - span.begin
            found.append((window, np.arange(low, high) if order is None else order[low:high]))
        return tuple(found)

    def _take_next(self, begin: int) -> None:
        if self._coming is not None:
            span, future = self._coming
            self._coming = None
            ready = future.result()
        else:
            while self._spans[0].end <= begin:
                self._spans.popleft()  # steps that are skipped are not read
            span = self._spans.popleft()
            ready = self._batches._window(self._epoch, span)
        self._held.append((span, *ready))
        if self._spans and self._reader is not None:
            following = self._spans.popleft()
            self._coming = following, self._reader.submit(self._batches._window, self._epoch, following)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.shutdown(wait=True, cancel_futures=True)
        for _, window, _ in self._held:
            self._release(window)

    def _release(self, window: Window) -> None:
        if window is not self._batches._whole.window:
            window.release(self._batches._memory)


def deal(units: Sequence[Unit], hands: int) -> list[list[Unit]]:
    """Units dealt to `hands` workers, the largest first, each to the worker with the fewest rows so far."""
    dealt: list[list[Unit]] = [[] for _ in range(hands)]
    loads = [0] * hands
    for unit in sorted(units, key=lambda unit: (-unit.rows, unit.number)):
        least = loads.index(min(loads))
        dealt[least].append(unit)
        loads[least] += unit.rows
    return [sorted(hand, key=lambda unit: unit.number) for hand in dealt]


def by_length(order: Array, lengths: Array, step_rows: int, random: np.random.Generator) -> Array:
    """The rows of `order` so that those of a step are about equally long, and steps still come in a random order.

    Rows are sorted by length within `BUCKET_STEPS` steps, whose order is then drawn. Measured on lengths drawn evenly from
    1 to 100, steps of 32 rows: 2 % of the tokens are padding, where rows as drawn have 48 %.
    """
    found = []
    for begin in range(0, len(order), BUCKET_STEPS * step_rows):
        bucket = order[begin : begin + BUCKET_STEPS * step_rows]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        steps = [bucket[at : at + step_rows] for at in range(0, len(bucket), step_rows)]
        found += [steps[place] for place in random.permutation(len(steps))]
    return np.concatenate(found)


def _joined(parts: list[Rows]) -> Rows:
    def join(arrays: list[Array | None]) -> Array | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present else None

    features = np.concatenate([part.features for part in parts])
    return Rows(features, join([part.labels for part in parts]), join([part.weights for part in parts]))
