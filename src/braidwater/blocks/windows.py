"""Windows: the rows of a few units in memory, ready to be picked in any order.

Column-major units are turned to rows once a window. A row of a mini-batch is then one short copy: turning every mini-batch
by itself costs 3 to 8 times more, because its rows lie scattered over the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import local
from typing import Any, Protocol

import numpy as np

from braidwater.blocks.base import Array, Block, allocate
from braidwater.blocks.store import BlockStore, Unit

TILE_ROWS = 1024  # rows that are encoded and turned at a time: their columns stay in the second-level cache
LINE_BYTES = 64


class RowDesign(Protocol):
    """What is needed of a `Design`: the features of picked rows as ``(width, rows)``, and which columns play which role."""

    @property
    def width(self) -> int: ...
    @property
    def label(self) -> str | None: ...
    @property
    def weight(self) -> str | None: ...
    def dense(self, block: Block, rows: Any = None, *, dtype: Any = ..., out: Array | None = None) -> Array: ...


@dataclass(frozen=True)
class RowForm:
    """What a row looks like in a mini-batch.

    Features are ``(width,)`` of `dtype`, from `design`; or, where `whole` names a stored column, that column as it is
    stored, shape and type. Where that is a sequence, `pad` is what follows its end: the rows of a mini-batch are then about
    equally long, and cut behind the longest of them.
    """

    design: RowDesign
    whole: str | None = None
    dtype: str = "float32"
    pad: int | None = None

    def feature_bytes(self, store: BlockStore) -> int:
        """Bytes of the features of a row."""
        if self.whole is None:
            return self.design.width * int(np.dtype(self.dtype).itemsize)
        return next(column.row_bytes for column in store.schema.columns if column.name == self.whole)


@dataclass(slots=True)
class Rows:
    """Picked rows: features row-major, labels and weights as they are stored (None where there are none)."""

    features: Array
    labels: Array | None
    weights: Array | None


class WindowMemory:
    """Memory for windows, used again and again: up to three windows are in use at a time."""

    def __init__(self) -> None:
        self._free: list[Array] = []
        self._own = local()  # each thread that reads has a buffer and a scratch of its own

    def take(self, size: int) -> Array:
        """At least `size` bytes (uint8)."""
        for place, held in enumerate(self._free):
            if len(held) >= size:
                return self._free.pop(place)
        return np.empty(size, np.uint8)  # numpy asks for huge pages: a first touch then costs a fifth

    def give_back(self, held: Array) -> None:
        self._free = [*self._free[-2:], held]  # the last three only: windows of one store hardly differ in size

    def read_buffer(self, size: int) -> Array:
        return self._lend("buffer", size, allocate)

    def scratch(self, size: int) -> Array:
        return self._lend("scratch", size, lambda size: np.empty(size, np.uint8))[:size]

    def _lend(self, name: str, size: int, make: Callable[[int], Array]) -> Array:
        held: Array | None = getattr(self._own, name, None)
        if held is None or len(held) < size:
            held = make(size)
            setattr(self._own, name, held)
        return held


class Window:
    """The rows of `units`, read and turned to rows.

    Where the features would take more than `limit` bytes (one-hot columns can be a hundred times wider than their codes),
    the blocks are kept as they are and only the rows of a mini-batch are turned. Memory that is
    asked for anew costs as much as filling it, so `memory` lends it and takes it back by `release`.
    """

    def __init__(
        self, store: BlockStore, units: Sequence[Unit], form: RowForm, limit: int, memory: WindowMemory | None = None
    ) -> None:
        self.form = form
        self.starts = np.cumsum([0, *(unit.rows for unit in units)])
        self.numbers = np.array([unit.start for unit in units], np.int64)
        rows = int(self.starts[-1])
        self._held: Array | None = None
        self.blocks: list[Block] = []
        self.features: Array | None = None
        self.labels: Array | None = None
        self.weights: Array | None = None
        if rows * form.feature_bytes(store) <= max(limit, 1):
            self._fill(store, units, rows, memory or WindowMemory())
        else:
            self.blocks = [store.read(unit.number, allocate(store.buffer_bytes)) for unit in units]

    def _fill(self, store: BlockStore, units: Sequence[Unit], rows: int, memory: WindowMemory) -> None:
        buffer = memory.read_buffer(store.buffer_bytes)
        size = rows * self.form.feature_bytes(store)
        self._held = memory.take(size)
        if self.form.whole is None:
            features = self._held[:size].view(self.form.dtype).reshape(rows, self.form.design.width)
        else:
            column = next(column for column in store.schema.columns if column.name == self.form.whole)
            features = self._held[:size].view(column.dtype).reshape(rows, *column.shape)
        self.features = features
        for unit, begin in zip(units, self.starts, strict=False):
            block = store.read(unit.number, buffer)
            span = slice(int(begin), int(begin) + block.rows)
            self.labels = _into(self.labels, block, self.form.design.label, span, rows)
            self.weights = _into(self.weights, block, self.form.design.weight, span, rows)
            if self.form.whole is None:
                self._encode(block, features[span], memory)
            else:
                features[span] = block[self.form.whole]

    def _encode(self, block: Block, target: Array, memory: WindowMemory) -> None:
        design, dtype = self.form.design, self.form.dtype
        # columns a power of two apart would share the same few places of the cache
        stride = TILE_ROWS + LINE_BYTES // np.dtype(dtype).itemsize
        scratch = (
            memory.scratch(design.width * stride * np.dtype(dtype).itemsize).view(dtype).reshape(design.width, stride)
        )
        for rows in block.slices(TILE_ROWS):
            _turn(design.dense(block, rows, dtype=dtype, out=scratch), target[rows])

    def lengths(self, pad: int) -> Array:
        """The lengths of the sequences of all rows: their tokens before nothing but `pad` follows."""
        if self.features is not None:
            return sequence_lengths(self.features, pad)
        assert self.form.whole is not None
        return np.concatenate([sequence_lengths(block[self.form.whole], pad) for block in self.blocks])

    def pick(self, index: Array) -> Rows:
        """The rows at `index` (numbers within the window), in that order, in memory of their own."""
        if self.features is not None:
            return Rows(
                self.features.take(index, 0),
                None if self.labels is None else self.labels.take(index, 0),
                None if self.weights is None else self.weights.take(index, 0),
            )
        return self._pick_from_blocks(index)

    def _pick_from_blocks(self, index: Array) -> Rows:
        form = self.form
        column = None if form.whole is None else self.blocks[0][form.whole]
        shape, dtype = ((form.design.width,), form.dtype) if column is None else (column.shape[1:], column.dtype)
        features = np.empty((len(index), *shape), dtype)
        labels, weights = (
            None if name is None else np.empty(len(index), self.blocks[0][name].dtype)
            for name in (form.design.label, form.design.weight)
        )
        # sorted rows: neighbours in a column are fetched together, which is three times faster than hopping
        order = np.argsort(index, kind="stable")
        bounds = np.searchsorted(index[order], self.starts)
        for number, block in enumerate(self.blocks):
            places = order[bounds[number] : bounds[number + 1]]
            if len(places):
                rows = index[places] - self.starts[number]
                picked = (
                    form.design.dense(block, rows, dtype=dtype).T if form.whole is None else block[form.whole][rows]
                )
                features[places] = picked
                for target, name in ((labels, form.design.label), (weights, form.design.weight)):
                    if target is not None and name is not None:
                        target[places] = block[name][rows]
        return Rows(features, labels, weights)

    def release(self, memory: WindowMemory) -> None:
        """Give back the memory of the rows. Only `row_numbers` may be asked for afterwards."""
        if self._held is not None:
            memory.give_back(self._held)
        self._held = self.features = self.labels = self.weights = None
        self.blocks = []

    def row_numbers(self, index: Array) -> Array:
        """The numbers that rows of the window have among all rows of the store."""
        unit = np.searchsorted(self.starts, index, "right") - 1
        numbers: Array = self.numbers[unit] + index - self.starts[unit]
        return numbers


def sequence_lengths(rows: Array, pad: int) -> Array:
    """How many tokens each of `rows` ``(rows, length)`` has before nothing but `pad` follows.

    >>> sequence_lengths(np.array([[3, 0, 4, 0], [0, 0, 0, 0]]), pad=0)
    array([3, 0])
    """
    tokens = rows != pad
    return np.where(tokens.any(1), rows.shape[1] - tokens[:, ::-1].argmax(1), 0)


def _turn(source: Array, target: Array) -> None:
    """Copy ``(width, rows)`` into ``(rows, width)``.

    A cache line of a row at a time: six times faster than ``target[...] = source.T``, which hops through the columns.
    """
    step = max(LINE_BYTES // source.itemsize, 1)
    for column in range(0, len(source), step):
        target[:, column : column + step] = source[column : column + step].T


def _into(target: Array | None, block: Block, name: str | None, span: slice, rows: int) -> Array | None:
    """Copy the column `name` into its place in the window."""
    if name is None:
        return None
    column = block[name]
    if target is None:
        target = np.empty((rows, *column.shape[1:]), column.dtype)
    target[span] = column
    return target
