"""Parquet files, read by pyarrow: a third of DuckDB's CPU where the columns are taken as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq
from sqlglot import exp

from braidwater.errors import TableError
from braidwater.tables.base import ColumnStatistics, Partition, Table, TableStatistics
from braidwater.tables.duckdb import files_table
from braidwater.tables.files import fingerprint_files, of_each, one_schema


class ParquetTable(Table):
    """One or many Parquet files of one schema. A partition is a run of row groups of one file."""

    reader = "parquet"

    def __init__(self, files: Sequence[str], *, name: str) -> None:
        self.name = name
        self._files = tuple(files)
        _ = self._metadata

    @cached_property
    def _metadata(self) -> list[pq.FileMetaData]:
        found, schemas = zip(*of_each(_footer, self._files), strict=True)
        one_schema(self._files, schemas)
        return list(found)

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the files, in their order."""
        return self._files

    @property
    def schema(self) -> pa.Schema:
        return self._metadata[0].schema.to_arrow_schema().remove_metadata()

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        columns = self.column_names if columns is None else list(columns)
        self.require(columns)
        rows = sum(metadata.num_rows for metadata in self._metadata)
        size = sum(of_each(os.path.getsize, self._files))
        return TableStatistics(rows, size, {column: self._column(column) for column in columns})

    def _column(self, name: str) -> ColumnStatistics:
        """NULLs and bounds from the footers; None as soon as one row group does not say."""
        nulls: int | None = 0
        bounds: list[tuple[object, object]] | None = []
        first = self._metadata[0]
        places = [i for i in range(first.num_columns) if first.schema.column(i).path == name]
        for metadata in self._metadata:
            for group in range(metadata.num_row_groups):
                stats = metadata.row_group(group).column(places[0]).statistics if places else None
                nulls = None if nulls is None or stats is None or stats.null_count is None else nulls + stats.null_count
                if stats is None or not stats.has_min_max or bounds is None:
                    bounds = None
                else:
                    bounds.append((stats.min, stats.max))
        if not bounds:
            return ColumnStatistics(nulls)
        return ColumnStatistics(nulls, None, min(b[0] for b in bounds), max(b[1] for b in bounds))  # type: ignore[type-var]

    def partitions(self, rows: int) -> list[Partition]:
        parts: list[Partition] = []
        first_row = 0
        for file, metadata in enumerate(self._metadata):
            groups: list[int] = []
            held = 0
            for group in range(metadata.num_row_groups):
                groups.append(group)
                held += metadata.row_group(group).num_rows
                if held >= rows or group == metadata.num_row_groups - 1:
                    parts.append(Partition(len(parts), held, first_row, (file, tuple(groups))))
                    first_row += held
                    groups, held = [], 0
        return parts or [Partition(0, 0, 0, (0, ()))]

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        self.require(names)
        places = self._all_groups() if partition is None else [partition.where]
        for file, groups in places:
            path = self._files[file]
            try:
                # pre_buffer would hold whole row groups; the engine's threads read different partitions at a time
                # (the footer of a file with hundreds of row groups takes 10 ms to parse: once, not for every partition)
                with pq.ParquetFile(path, metadata=self._metadata[file], pre_buffer=False, buffer_size=2**16) as source:
                    stream = source.iter_batches(batch_rows, list(groups), columns=names, use_threads=False)
                    yield from (batch.select(names) for batch in stream)
            except (pa.ArrowInvalid, OSError) as error:
                raise TableError(f"Reading {path!r} failed: {error}") from error

    def _all_groups(self) -> list[tuple[int, tuple[int, ...]]]:
        return [(file, tuple(range(metadata.num_row_groups))) for file, metadata in enumerate(self._metadata)]

    def fingerprint(self) -> str:
        return fingerprint_files(self._files)

    def select(self, query: exp.Select) -> pa.Table:
        return files_table("read_parquet", self._files, name=self.name, schema=self.schema).select(query)


def _footer(file: str) -> tuple[pq.FileMetaData, pa.Schema]:
    try:
        found = pq.read_metadata(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(f"{file!r} cannot be read as Parquet: {error}") from error
    return found, found.schema.to_arrow_schema()
