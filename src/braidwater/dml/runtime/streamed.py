"""Matrices that stay where they lie: the numeric columns of a table, read block by block in every scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidwater.aggregates import Aggregate
from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array, Block
from braidwater.dml.context import Context
from braidwater.dml.hops import Dag, Facts, Hop, to_text
from braidwater.dml.operators.indexing import index_facts
from braidwater.dml.runtime.deferred import DeferredMatrix, copied
from braidwater.dml.runtime.evaluate import computed
from braidwater.dml.runtime.scan import CompiledScan
from braidwater.dml.values import is_streamed
from braidwater.encoding.design import Design
from braidwater.encoding.encoding import Encoding
from braidwater.engines import LocalEngine
from braidwater.errors import BudgetError
from braidwater.options import current_options, format_bytes, options
from braidwater.tables import Table

PASSES = (
    10  # how often a script is expected to scan a table: enough that blocks are kept, in memory or in the block cache
)


LEAST = 32 * 10**6  # bytes that readers take at any rate


class TableMatrix:
    """The columns of a table as a matrix ``(rows, columns)`` of doubles that is never held as a whole.

    `columns` are names (all of the table by default), in the order of the matrix. Cells must be numbers or truth values and not
    NULL. Rows are those of the table in its own order. The first scan reads the table and keeps typed blocks (in memory while
    they take at most a quarter of `memory`, by default the memory option, else in the block cache); later ones read the blocks.
    Close it, or use it in a ``with`` block, to let go of them.

    >>> import pyarrow as pa
    >>> from braidwater.tables import table
    >>> with TableMatrix(table(pa.table({"x": [1.0, 2.0, 3.0], "z": [4, 5, 6]}))) as matrix:
    ...     matrix.shape, matrix.columns
    ((3, 2), ('x', 'z'))
    """

    is_streamed_matrix = True

    def __init__(self, table: Table, columns: Sequence[str] | None = None, *, memory: int | None = None) -> None:
        self.table = table
        self.columns = tuple(columns or table.column_names)
        fitted = Encoding(features=list(self.columns)).fit(table)
        self.design: Design = fitted.design
        with options(memory=_for_blocks(memory)):
            self.source = BlockSource(table, fitted, passes=PASSES)
        self.shape = (table.statistics([]).rows, self.design.width)

    @property
    def bytes(self) -> int:
        """Bytes that the matrix would take in memory."""
        return self.shape[0] * self.shape[1] * 8

    def close(self) -> None:
        self.source.close()

    def __enter__(self) -> TableMatrix:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def run_streamed(
    compiled: CompiledScan, sources: Sequence[Any], constants: Sequence[Any], context: Context
) -> list[Any]:
    """A scan whose rows come from a table; further sources are in memory, or are gathered if they fit.

    Threads take blocks of the table; states are merged in the order of the blocks.
    """
    streams = [place for place, source in enumerate(sources) if is_streamed(source)]
    driver = max(streams, key=lambda place: sources[place].bytes)
    leaves = compiled.scan.sources
    held = [
        None
        if place == driver
        else gathered(source, context, leaves[place])
        if is_streamed(source)
        else compiled.readable(place, source)
        for place, source in enumerate(sources)
    ]
    whole = [gathered(each, context, hop) if is_streamed(each) else _dense(each)
             for each, hop in zip(constants, compiled.scan.constants, strict=True)]  # fmt: skip
    stored = [_room(compiled.scan.rows, hop, context) for hop in compiled.scan.stored]
    matrix = sources[driver]
    aligned = stored or any(each is not None for each in held)
    states = _over_blocks(
        matrix, _ScanRows(matrix.design, compiled, driver, held, whole, stored), context, bool(aligned)
    )
    return [*stored, *compiled.final([states])]


def gathered(matrix: TableMatrix | DeferredMatrix, context: Context, hop: Hop) -> Any:
    """A streamed matrix as an array. Raises BudgetError, with the operator that needs it whole, where it does not fit."""
    if isinstance(matrix, DeferredMatrix):
        return _whole(matrix, context)
    if matrix.bytes > context.memory:
        place = f" ({hop.span.file}:{hop.span.line})" if hop.span else ""
        raise BudgetError(
            f"{to_text(hop)}{place} needs all {matrix.shape[0]} x {matrix.shape[1]} cells of table {matrix.table.name!r} at a "
            f"time, {format_bytes(matrix.bytes)}; the memory option is {format_bytes(context.memory)}. Raise it, select rows or "
            "columns first, or write the step with cell-wise operations, sums and products over the rows."
        )
    out = np.empty(matrix.shape)
    _over_blocks(matrix, _CopyRows(matrix.design, out), context, aligned=True)
    return out


def some_rows(matrix: TableMatrix, bounds: Sequence[int], context: Context, hop: Hop) -> Any:
    """The cells between bounds (first and last row, first and last column, from 1) of a table, by a pass over it."""
    first, last, left, right = bounds
    index_facts([Facts.of(matrix), *map(Facts.scalar, bounds)], {})
    if (last - first + 1) * matrix.shape[1] * 8 > context.memory:
        return np.array(gathered(matrix, context, hop)[first - 1 : last, left - 1 : right], order="C")
    out = np.empty((last - first + 1, matrix.shape[1]))
    _over_blocks(matrix, _CopyRows(matrix.design, out, first - 1), context, aligned=True)
    return np.array(out[:, left - 1 : right], order="C")


def _whole(matrix: DeferredMatrix, context: Context) -> Any:
    """The cells of an expression, by a scan that stores them."""
    dag = Dag(matrix.dag.operators)
    return computed(dag, [copied(matrix.dag, matrix.hop, dag, {})], context)[0]


def _over_blocks(matrix: TableMatrix, aggregate: Aggregate[Any, Any], context: Context, aligned: bool) -> Any:
    with options(workers=context.threads, memory=_for_blocks(context.memory)):
        engine = LocalEngine()
        if aligned and matrix.source.store is None:
            engine.aggregate(matrix.source, _Nothing())  # rows have their final numbers from the second pass on
        return engine.aggregate(matrix.source, aggregate)


def _room(rows: int, hop: Hop, context: Context) -> Array:
    """Memory for an aligned value that others need as a whole."""
    size = rows * (hop.facts.cols or 1) * 8
    if size > context.memory:
        raise BudgetError(
            f"{to_text(hop)} is needed as a whole: {rows} x {hop.facts.cols} cells, {format_bytes(size)}; the memory option is "
            f"{format_bytes(context.memory)}. Raise it, or sum over the rows before the value is used elsewhere."
        )
    return np.empty((rows, hop.facts.cols or 1))


def _for_blocks(memory: int | None) -> int:
    """The memory option for readers and kept blocks."""
    return current_options().memory if memory is None else max(memory, LEAST)


def _dense(value: Any) -> Any:
    return value.toarray() if hasattr(value, "toarray") else value


class _Nothing(Aggregate[None, None]):
    """Reads all blocks, so that they are kept."""

    def initialize(self) -> None:
        return None

    def transition(self, state: None, block: Block) -> None:
        return None

    def merge(self, state: None, other: None) -> None:
        return None

    def final(self, state: None) -> None:
        return None


class _CopyRows(_Nothing):
    """Writes the rows of a table from `first` (0 is the first) on into an array, as many as it has."""

    def __init__(self, design: Design, out: Array, first: int = 0) -> None:
        self.design = design
        self.out = out
        self.first = first

    def transition(self, state: None, block: Block) -> None:
        begin, end = (
            min(max(place - self.first, 0), len(self.out)) for place in (block.start, block.start + block.rows)
        )
        if begin < end:
            skipped = self.first + begin - block.start
            self.out[begin:end] = self.design.dense(block, slice(skipped, skipped + end - begin)).T


class _ScanRows(Aggregate[list[Any], list[Any]]):
    """A compiled scan as an aggregate: the state is that of its folds."""

    def __init__(
        self,
        design: Design,
        compiled: CompiledScan,
        driver: int,
        held: Sequence[Any],
        constants: Sequence[Any],
        stored: Sequence[Array],
    ) -> None:
        self.design = design
        self.compiled = compiled
        self.driver = driver
        self.held = held
        self.constants = constants
        self.stored = stored

    def initialize(self) -> list[Any]:
        return []

    def transition(self, state: list[Any], block: Block) -> list[Any]:
        buffers = self.compiled.buffers(self.constants)
        for begin in range(0, block.rows, self.compiled.block_rows):
            end = min(begin + self.compiled.block_rows, block.rows)
            rows = slice(block.start + begin, block.start + end)
            blocks: list[Any] = [None if each is None else each[rows] for each in self.held]
            blocks[self.driver] = self.design.dense(block, slice(begin, end)).T
            state = self.compiled.step(buffers, blocks, state, [out[rows] for out in self.stored])
        return state

    def merge(self, state: list[Any], other: list[Any]) -> list[Any]:
        if not state or not other:
            return state or other
        return self.compiled.merged(state, other)

    def final(self, state: list[Any]) -> list[Any]:
        return state
