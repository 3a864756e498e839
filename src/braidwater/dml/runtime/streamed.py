"""Matrices that stay where they lie: the numeric columns of a table, read block by block in every scan."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from braidwater.aggregates import Aggregate
from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array
from braidwater.dml.context import Context
from braidwater.dml.hops import Dag, Facts, Hop, to_text
from braidwater.dml.operators.indexing import index_facts
from braidwater.dml.runtime.deferred import DeferredMatrix, copied
from braidwater.dml.runtime.evaluate import computed
from braidwater.dml.runtime.row_aggregates import CopyRows, ScanRows, WithRows, spreads
from braidwater.dml.runtime.scan import CompiledScan
from braidwater.dml.runtime.spread import Cut, Spread
from braidwater.dml.values import is_streamed
from braidwater.encoding.design import Design
from braidwater.encoding.encoding import Encoding
from braidwater.engines import Engine, LocalEngine
from braidwater.engines.base import Nothing
from braidwater.errors import BudgetError, DataWarning
from braidwater.options import current_options, format_bytes, options
from braidwater.tables import Table

# how often a script is expected to scan a table: enough that blocks are kept, in memory or in the block cache
PASSES = 10
REMEMBERED = 8  # matrices of which workers elsewhere keep their rows, at most,
REMEMBERED_SHARE = 0.125  # and what these take of the memory option: they are held on to here, too
FEW_PASSES = 3  # after so many, more are to be expected, and workers that stay pay
LEAST = 32 * 10**6  # bytes that readers take at any rate


class TableMatrix:
    """The columns of a table as a matrix ``(rows, columns)`` of doubles that is never held as a whole.

    `columns` are names (all of the table by default), in the order of the matrix. Cells must be numbers or truth values and not
    NULL. Rows are those of the table in its own order. The first scan reads the table and keeps typed blocks (in memory while
    they take at most a quarter of `memory`, by default the memory option, else in the block cache); later ones read the blocks.
    Close it, or use it in a ``with`` block, to let go of them.

    `engine` scans the table, by default this machine. Where the rows stay with it (`elsewhere`), what a script sums up leaves
    them. What is as long as the table and not summed up comes here too; workers that live on keep what they made of it.

    >>> import pyarrow as pa
    >>> from braidwater.tables import table
    >>> with TableMatrix(table(pa.table({"x": [1.0, 2.0, 3.0], "z": [4, 5, 6]}))) as matrix:
    ...     matrix.shape, matrix.columns
    ((3, 2), ('x', 'z'))
    """

    is_streamed_matrix = True

    def __init__(
        self,
        table: Table,
        columns: Sequence[str] | None = None,
        *,
        memory: int | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.table = table
        self.engine = engine or LocalEngine()
        self.elsewhere = not isinstance(self.engine, LocalEngine)
        self.columns = tuple(columns or table.column_names)
        fitted = Encoding(features=list(self.columns)).fit(table)
        self.design: Design = fitted.design
        with options(memory=_for_blocks(memory)):
            self.source = BlockSource(table, fitted, passes=PASSES)
            self._most_remembered = int(current_options().memory * REMEMBERED_SHARE)
        self.shape = (table.statistics([]).rows, self.design.width)
        self._staying = ExitStack()
        self._passes = 0  # since workers last came or went
        self._cuts: Sequence[Cut] = ()
        self._spread: OrderedDict[int, tuple[Any, Spread]] = OrderedDict()  # by the matrix; those used last at the end

    @property
    def bytes(self) -> int:
        """Bytes that the matrix would take in memory."""
        return self.shape[0] * self.shape[1] * 8

    @property
    def where(self) -> str:
        """What EXPLAIN says of its scans."""
        ways = self.engine.ways(self.table, self.columns, passes=PASSES)
        how = f" by {ways[0].name} ({ways[0].seconds:.2g} s to read it {PASSES} times)" if ways else ""
        rows, cols = self.shape
        return (
            f"{self.table.name}, {rows} x {cols}, {format_bytes(self.bytes)}, stays where it lies: engine {self.engine.name!r} "
            f"scans it{how}"
        )

    def aggregate(self, aggregate: Aggregate[Any, Any]) -> Any:
        """One pass, by workers that stay where many were made before it."""
        self._passes += 1
        if self._passes == FEW_PASSES:
            self._staying.enter_context(self.engine.staying(self.source))
        return self.engine.aggregate(self.source, aggregate)

    def number(self) -> None:
        """See to it that rows have their final numbers: they have from the second pass on."""
        if self.source.store is None and self.source.passes_done == 0:
            self.aggregate(Nothing())

    def spread(self, matrix: Any) -> Spread:
        """A matrix as long as the table, as its scans read it."""
        if not self.elsewhere:
            return Spread.whole(matrix)
        known = self._spread.get(id(matrix))
        if known is None:
            if not self._cuts:
                self._cuts = [cut for cut, _ in self.aggregate(WithRows(self.design, elsewhere=True)).pieces]
            known = (matrix, Spread.of(matrix, self._cuts))
        self.remember(*known)
        return known[1]

    def remember(self, matrix: Any, spread: Spread) -> None:
        """What workers have of a matrix. It is held on to, so that nobody changes it in place."""
        self._spread[id(matrix)] = matrix, spread
        self._spread.move_to_end(id(matrix))
        while len(self._spread) > REMEMBERED or self._remembered > self._most_remembered:
            self._spread.popitem(last=False)

    @property
    def _remembered(self) -> int:
        return sum(8 * matrix.shape[0] * matrix.shape[1] for matrix, _ in self._spread.values())

    def rest(self) -> None:
        """Let the workers go, until there are more passes: others need their places."""
        self._staying.close()
        self._passes = 0

    def close(self) -> None:
        self.rest()
        self._spread.clear()
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
    _warn_of_orders([sources[place] for place in streams])
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
    aligned = bool(stored) or any(each is not None for each in held)
    with _for_scan(matrix, context):
        if aligned:
            matrix.number()
        spread = [None if each is None else matrix.spread(each) for each in held]
        scan = ScanRows(matrix.design, compiled, driver, spread, whole, stored, elsewhere=matrix.elsewhere)
        found = matrix.aggregate(scan)
    for value, made in zip(stored, spreads(found), strict=matrix.elsewhere):
        matrix.remember(value, made)
    return [*stored, *compiled.final([found.folds])]


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
    return _filled(out, matrix, context)


def some_rows(matrix: TableMatrix, bounds: Sequence[int], context: Context, hop: Hop) -> Any:
    """The cells between bounds (first and last row, first and last column, from 1) of a table, by a pass over it."""
    first, last, left, right = bounds
    index_facts([Facts.of(matrix), *map(Facts.scalar, bounds)], {})
    if (last - first + 1) * matrix.shape[1] * 8 > context.memory:
        return np.array(gathered(matrix, context, hop)[first - 1 : last, left - 1 : right], order="C")
    out = np.empty((last - first + 1, matrix.shape[1]))
    _filled(out, matrix, context, first - 1)
    return np.array(out[:, left - 1 : right], order="C")


def _warn_of_orders(matrices: Sequence[TableMatrix]) -> None:
    """A server has its own order of rows for each table: row i of one need not be row i of another."""
    names = dict.fromkeys(matrix.table.name for matrix in matrices if matrix.elsewhere)
    if len(names) > 1:
        warnings.warn(
            f"Rows of the tables {' and '.join(map(repr, names))} are put side by side, each in the order in which it happens to "
            "lie. Read one table with all columns, and take the columns of it.",
            DataWarning,
            stacklevel=2,
        )


def _whole(matrix: DeferredMatrix, context: Context) -> Any:
    """The cells of an expression, by a scan that stores them."""
    dag = Dag(matrix.dag.operators)
    return computed(dag, [copied(matrix.dag, matrix.hop, dag, {})], context)[0]


def _filled(out: Array, matrix: TableMatrix, context: Context, first: int = 0) -> Array:
    """An array with the table's rows from `first` on."""
    with _for_scan(matrix, context):
        matrix.number()
        matrix.aggregate(CopyRows(matrix.design, [out], elsewhere=matrix.elsewhere, first=first))
    return out


@contextmanager
def _for_scan(matrix: TableMatrix, context: Context) -> Iterator[None]:
    workers = current_options().workers if matrix.elsewhere else context.threads
    with options(workers=workers, memory=_for_blocks(context.memory)):
        yield


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
