"""Arrow data in memory, and Arrow (Feather) files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property

import duckdb
import pyarrow as pa
import pyarrow.ipc
from sqlglot import exp

from braidwater.errors import TableError
from braidwater.tables.base import ColumnStatistics, Partition, Table, TableStatistics
from braidwater.tables.duckdb_memory import open_memory
from braidwater.tables.files import fingerprint_files, of_each, one_schema


class ArrowTable(Table):
    """An Arrow table in memory; pandas and polars frames become one, mostly without a copy."""

    reader = "arrow"

    def __init__(self, data: pa.Table, *, name: str) -> None:
        self.name = name
        self._data = data

    @property
    def schema(self) -> pa.Schema:
        return self._data.schema.remove_metadata()

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        columns = self.column_names if columns is None else list(columns)
        self.require(columns)
        known = {column: ColumnStatistics(nulls=self._data.column(column).null_count) for column in columns}
        return TableStatistics(self._data.num_rows, self._data.nbytes, known)

    def partitions(self, rows: int) -> list[Partition]:
        size = max(rows, 1)
        total = self._data.num_rows
        starts = range(0, max(total, 1), size)
        return [Partition(n, min(size, total - start), start) for n, start in enumerate(starts)]

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        self.require(names)
        data = self._data.select(names).replace_schema_metadata(None)
        if partition is not None:
            data = data.slice(partition.first_row, partition.rows)
        yield from data.to_batches(batch_rows)

    def fingerprint(self) -> None:
        return None  # it cannot change, and nobody can find it again after this process

    def select(self, query: exp.Select) -> pa.Table:
        return select_from(self._data, query, self.name)


class ArrowFileTable(Table):
    """Arrow IPC files (also called Feather), compressed or not. A partition is a run of record batches of one file."""

    reader = "arrow"

    def __init__(self, files: Sequence[str], *, name: str) -> None:
        self.name = name
        self._files = tuple(files)
        _ = self._sizes

    @cached_property
    def _sizes(self) -> list[list[int]]:
        """Rows of every record batch of every file."""
        schemas, sizes = zip(*of_each(self._look, self._files), strict=True)
        self._schema = one_schema(self._files, schemas).remove_metadata()
        return list(sizes)

    def _look(self, file: str) -> tuple[pa.Schema, list[int]]:
        with self._open(file) as source, _reader(source, file) as reader:
            return reader.schema, [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]

    def _open(self, file: str) -> pa.NativeFile:
        try:
            return pa.memory_map(file)
        except OSError as error:
            raise TableError(f"{file!r} cannot be opened: {error}") from error

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        self.require(self.column_names if columns is None else columns)
        rows = sum(sum(sizes) for sizes in self._sizes)
        return TableStatistics(rows, sum(of_each(os.path.getsize, self._files)))

    def partitions(self, rows: int) -> list[Partition]:
        parts: list[Partition] = []
        first_row = 0
        for file, sizes in enumerate(self._sizes):
            begin = held = 0
            for number, size in enumerate(sizes):
                held += size
                if held >= rows or number == len(sizes) - 1:
                    parts.append(Partition(len(parts), held, first_row, (file, begin, number + 1)))
                    first_row += held
                    begin, held = number + 1, 0
        return parts or [Partition(0, 0, 0, (0, 0, 0))]

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        self.require(names)
        places = [(f, 0, len(sizes)) for f, sizes in enumerate(self._sizes)] if partition is None else [partition.where]
        for file, begin, end in places:
            with self._open(self._files[file]) as source, _reader(source, self._files[file]) as reader:
                for number in range(begin, end):
                    whole = reader.get_batch(number).select(names).replace_schema_metadata(None)
                    yield from (whole.slice(start, batch_rows) for start in range(0, whole.num_rows, batch_rows))

    def fingerprint(self) -> str:
        return fingerprint_files(self._files)

    def select(self, query: exp.Select) -> pa.Table:
        return select_from_stream(self, query)


def select_from_stream(table: Table, query: exp.Select) -> pa.Table:
    """Run `query` by DuckDB over the stream of a table that has no SQL of its own; only the columns it names are read."""
    named = {column.name for column in query.find_all(exp.Column)}
    columns = [name for name in table.column_names if name in named] or table.column_names[:1]
    if query.find(exp.Star) and not query.find(exp.Count):
        columns = table.column_names
    schema = pa.schema([table.schema.field(name) for name in columns])
    return select_from(pa.RecordBatchReader.from_batches(schema, table.read(columns)), query, table.name)


def select_from(data: pa.Table | pa.RecordBatchReader, query: exp.Select, name: str) -> pa.Table:
    """Run `query`, which reads ``FROM this``, by DuckDB over Arrow data."""
    connection = open_memory()
    try:
        connection.register("this", data)
        return connection.sql(query.sql("duckdb")).to_arrow_table()
    except duckdb.Error as error:
        raise TableError(f"Table {name!r}: {error}\nThe statement was: {query.sql('duckdb')}") from error
    finally:
        connection.close()


def _reader(source: pa.NativeFile, file: str) -> pa.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid as error:
        raise TableError(f"{file!r} cannot be read as an Arrow file: {error}") from error
