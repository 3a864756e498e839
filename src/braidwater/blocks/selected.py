"""Some of the rows of a store, seen as a store of their own."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np

from braidwater.blocks.base import Array, Block, BlockSchema, allocate
from braidwater.blocks.store import BlockStore, Unit


class SelectedStore(BlockStore):
    """The rows of `inner` whose code in the column `by` is among `chosen`, in their order, as blocks of `schema`.

    Its blocks are those of a table that holds these rows alone: full units, whatever the units of `inner`. Columns are cast
    where `schema` has another type for them. Nothing is written; to read a block costs reading those of `inner` that hold its
    rows and a copy, to make the store a look at `by` in all of them.

    >>> from braidwater.blocks.base import BlockColumn
    >>> from braidwater.testing.strategies import uneven_store
    >>> inner = uneven_store({"x": np.arange(6.0), "part": np.array([0, 1, 1, 0, 2, 1], np.uint16)}, units=(4, 2))
    >>> store = SelectedStore(inner, BlockSchema((BlockColumn("x", "float32"),)), "part", {1, 2})
    >>> store.read(0)["x"].tolist()
    [1.0, 2.0, 4.0, 5.0]
    """

    def __init__(self, inner: BlockStore, schema: BlockSchema, by: str, chosen: Collection[int]) -> None:
        self.schema = schema
        self.kind = inner.kind
        self._inner = inner
        self._by = by
        self._chosen = np.array(sorted(chosen))
        buffer = allocate(inner.buffer_bytes)
        counts = [len(self._places(inner.read(unit.number, buffer))) for unit in inner.units]
        self._ends = np.cumsum([0, *counts])
        rows, step = int(self._ends[-1]), schema.unit_rows
        self.units = [Unit(number, min(step, rows - begin), begin) for number, begin in enumerate(range(0, rows, step))]

    @property
    def any_thread(self) -> bool:  # type: ignore[override]
        return self._inner.any_thread

    @cached_property
    def buffer_bytes(self) -> int:
        return self.schema.bytes(max((unit.rows for unit in self.units), default=0))

    def read(self, number: int, buffer: Array | None = None) -> Block:
        unit = self.units[number]
        size = self.schema.bytes(unit.rows)
        held = allocate(size) if buffer is None else buffer[:size]
        made = Block(self.schema, held, unit.rows, start=unit.start, number=number)
        first = int(np.searchsorted(self._ends, unit.start, "right")) - 1
        done = 0
        while done < unit.rows:
            block = self._inner.read(first)
            places = self._places(block)[unit.start + done - self._ends[first] :][: unit.rows - done]
            for column in self.schema.columns:
                made[column.name][done : done + len(places)] = block[column.name][places]
            done += len(places)
            first += 1
        return made

    def close(self) -> None:
        self._inner.close()

    def _places(self, block: Block) -> Array:
        """The chosen rows of a block of `inner`."""
        return np.flatnonzero(np.isin(block[self._by], self._chosen))
