"""A table whose rows are a function of another table's, computed as they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
from sqlglot import exp

from braidwater.tables.arrow import select_from_stream
from braidwater.tables.base import Partition, Table, TableStatistics

Function = Callable[[pa.RecordBatch], pa.RecordBatch]
Streams = Callable[[Iterator[pa.RecordBatch], Function], Iterator[pa.RecordBatch]]


def _one_by_one(batches: Iterator[pa.RecordBatch], function: Function) -> Iterator[pa.RecordBatch]:
    return map(function, batches)


class ComputedTable(Table):
    """The rows of `table` after `function`, which keeps their number and order. Nothing is computed until it is read.

    `streams` applies the function to a stream of batches and keeps their order; an engine puts its workers there. `reads` are the
    columns of `table` that the function is given, by default all.
    """

    def __init__(
        self,
        table: Table,
        function: Function,
        schema: pa.Schema,
        *,
        name: str,
        streams: Streams = _one_by_one,
        reads: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self._table = table
        self.reader = table.reader
        self._function = function
        self._schema = schema
        self._streams = streams
        self._reads = reads

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        self.require(self.column_names if columns is None else columns)
        inner = self._table.statistics([])
        return TableStatistics(inner.rows, inner.bytes, {}, inner.exact)

    def partitions(self, rows: int) -> list[Partition]:
        return self._table.partitions(rows)

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        if columns is not None:
            self.require(columns)
        stream = self._table.read(self._reads, partition=partition, batch_rows=batch_rows)
        for batch in self._streams(stream, self._function):
            yield batch if columns is None else batch.select(list(columns))

    def fingerprint(self) -> str | None:
        return None  # the function has no name that would change with what it does

    def select(self, query: exp.Select) -> pa.Table:
        return select_from_stream(self, query)
