"""Blocks: the contiguous rows that are handed to a transition, as typed columns.

The numbers of a block lie in one buffer, column after column (column-major). Columns that hold one number a row come
first and are grouped by type, so that neighbours form a matrix of shape ``(columns, rows)`` without a copy. Columns that
hold several numbers a row (vectors, images) follow, each row-major: ``(rows, *shape)``.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Array = NDArray[Any]

UNIT_BYTES = (
    8 * 2**20
)  # of the sizes from 1 to 32 MB this one keeps a unit inside the third-level cache and reads at disk speed


@dataclass(frozen=True)
class BlockColumn:
    """A column as it is stored in a block: `dtype` is a numpy type name, `shape` that of one row (``()``: one number)."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def row_bytes(self) -> int:
        return int(np.dtype(self.dtype).itemsize * prod(self.shape))


@dataclass(frozen=True)
class BlockSchema:
    """The columns of a block in the order in which they lie.

    >>> schema = BlockSchema.ordered([BlockColumn("label", "uint8"), BlockColumn("x", "float32"), BlockColumn("z", "float32")])
    >>> [column.name for column in schema.columns], schema.row_bytes, schema.unit_rows
    (['x', 'z', 'label'], 9, 932032)
    """

    columns: tuple[BlockColumn, ...]

    @staticmethod
    def ordered(columns: Sequence[BlockColumn]) -> BlockSchema:
        """A schema with the widest types first (so that all stay aligned) and columns of one type side by side."""

        def place(numbered: tuple[int, BlockColumn]) -> tuple[bool, int, str, int]:
            number, column = numbered
            return bool(column.shape), -np.dtype(column.dtype).itemsize, column.dtype, number

        return BlockSchema(tuple(column for _, column in sorted(enumerate(columns), key=place)))

    @cached_property
    def row_bytes(self) -> int:
        return sum(column.row_bytes for column in self.columns)

    @cached_property
    def unit_rows(self) -> int:
        """Rows of a full unit: as many as fit into 8 MB, a multiple of 64 so that every column starts aligned."""
        rows = UNIT_BYTES // max(self.row_bytes, 1)
        return max(rows // 64 * 64, min(rows, 64), 1)

    @cached_property
    def neighbours(self) -> tuple[tuple[str, ...], ...]:
        """Runs of columns that form a matrix; columns of several numbers a row stand alone."""
        runs: list[list[str]] = []
        last: tuple[str, bool] | None = None
        for column in self.columns:
            kind = (column.dtype, bool(column.shape))
            if runs and kind == last and not column.shape:
                runs[-1].append(column.name)
            else:
                runs.append([column.name])
            last = kind
        return tuple(tuple(run) for run in runs)

    def bytes(self, rows: int) -> int:
        """Bytes of a block of `rows` rows."""
        return self.row_bytes * rows

    @cached_property
    def _places(self) -> dict[str, tuple[int, BlockColumn]]:
        places = {}
        row_offset = 0
        for column in self.columns:
            places[column.name] = (row_offset, column)
            row_offset += column.row_bytes
        return places

    def view(self, buffer: Array, name: str, rows: int) -> Array:
        """The column `name` of a block of `rows` rows that lies in `buffer` (uint8)."""
        row_offset, column = self._places[name]
        begin = row_offset * rows
        return buffer[begin : begin + column.row_bytes * rows].view(column.dtype).reshape(rows, *column.shape)

    def matrix(self, buffer: Array, names: Sequence[str], rows: int) -> Array:
        """The columns `names`, which must be neighbours of one type, as a matrix ``(len(names), rows)``."""
        row_offset, first = self._places[names[0]]
        begin = row_offset * rows
        size = first.row_bytes * rows * len(names)
        return buffer[begin : begin + size].view(first.dtype).reshape(len(names), rows)

    def to_json(self) -> list[list[Any]]:
        return [[column.name, column.dtype, list(column.shape)] for column in self.columns]

    @staticmethod
    def from_json(document: list[list[Any]]) -> BlockSchema:
        return BlockSchema(tuple(BlockColumn(name, dtype, tuple(shape)) for name, dtype, shape in document))


class Block:
    """Contiguous rows as typed columns. The arrays are views, valid until the transition returns: copy what must last.

    `number` and `start` (the number of its first row) are for messages: where rows are dropped or a table is cut into
    partitions, the first pass, which does not know yet how many rows will be kept, numbers them otherwise than later ones.

    >>> block = Block.from_arrays({"x": np.array([1.0, 2.0]), "z": np.array([3.0, 4.0])})
    >>> block.rows, block["z"], block.matrix(["x", "z"])
    (2, array([3., 4.]), array([[1., 2.], [3., 4.]]))
    """

    __slots__ = ("buffer", "number", "rows", "schema", "start")

    def __init__(self, schema: BlockSchema, buffer: Array, rows: int, *, start: int = 0, number: int = 0) -> None:
        self.schema = schema
        self.buffer = buffer
        self.rows = rows
        self.start = start
        self.number = number

    def __getitem__(self, name: str) -> Array:
        return self.schema.view(self.buffer, name, self.rows)

    def __contains__(self, name: str) -> bool:
        return name in self.schema._places

    def matrix(self, names: Sequence[str]) -> Array:
        """Neighbouring columns of one type as a matrix ``(len(names), rows)``, without a copy."""
        return self.schema.matrix(self.buffer, names, self.rows)

    @property
    def bytes(self) -> int:
        return self.schema.bytes(self.rows)

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array], schema: BlockSchema | None = None) -> Block:
        """A block of its own memory from arrays ``(rows,)`` or ``(rows, *shape)``."""
        if schema is None:
            schema = BlockSchema.ordered([BlockColumn(n, a.dtype.name, a.shape[1:]) for n, a in arrays.items()])
        rows = len(next(iter(arrays.values()))) if arrays else 0
        block = Block(schema, allocate(schema.bytes(rows)), rows)
        for column in schema.columns:
            block[column.name][...] = arrays[column.name]
        return block

    def slices(self, rows: int) -> Iterator[slice]:
        """Slices of at most `rows` rows that cover the block."""
        for begin in range(0, self.rows, rows):
            yield slice(begin, min(begin + rows, self.rows))


class RawBlock:
    """Contiguous rows as they came from the table, as Arrow arrays with their NULLs. What a source without an encoder gives."""

    __slots__ = ("batch", "number", "start")

    def __init__(self, batch: pa.RecordBatch, *, start: int = 0, number: int = 0) -> None:
        self.batch = batch
        self.start = start
        self.number = number

    @property
    def rows(self) -> int:
        return int(self.batch.num_rows)

    @property
    def bytes(self) -> int:
        return int(self.batch.nbytes)

    def __getitem__(self, name: str) -> pa.Array:
        return self.batch.column(name)


class BlockEncoder(Protocol):
    """Turns Arrow rows into the columns of a block. Fitted, and without state: any thread may call it."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the table that it reads."""

    @property
    def block_schema(self) -> BlockSchema:
        """What it makes."""

    @property
    def key(self) -> str:
        """A text that differs for encoders that make other numbers of the same rows."""

    def encode(self, batch: pa.RecordBatch) -> dict[str, Array]:
        """Arrays by the names of `block_schema`. Fewer rows than `batch` when the NULL policy drops some."""


def allocate(size: int) -> Array:
    """A buffer of `size` bytes (uint8) that starts on a page: reading a file into an unaligned one takes twice as long."""
    if size < 1 << 20:
        return np.empty(size, np.uint8)
    # private: a shared mapping, which is Python's default, gets no huge pages and a page fault every 4 KB
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)[:size]
