"""The rows of a search: read and encoded once, then found again by every trial in its own process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import pyarrow as pa
from sqlglot import exp

from braidwater.blocks import BlockSource
from braidwater.blocks.base import BlockEncoder
from braidwater.engines import Engine
from braidwater.errors import UnsupportedError
from braidwater.tables import Table, write_table
from braidwater.tables.base import Partition, TableStatistics


class RememberedTable(Table):
    """A table that answers what it was asked before without going to where the rows lie.

    Schema, size, and the results of small SELECTs travel with it to other processes, which then fit the same encoding and find
    the same block cache without a look at the table. Rows are read from the table itself where somebody asks for them.
    """

    encoded = True

    def __init__(self, table: Table) -> None:
        self.name = table.name
        self.reader = table.reader
        self._table = table
        self._schema = table.schema
        self._fingerprint = table.fingerprint()
        self._statistics: dict[tuple[str, ...], TableStatistics] = {}
        self._answers: dict[str, pa.Table] = {}
        self._partitions: dict[int, list[Partition]] = {}

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        key = tuple(self.column_names if columns is None else columns)
        if key not in self._statistics:
            self._statistics[key] = self._table.statistics(columns)
        return self._statistics[key]

    def partitions(self, rows: int) -> list[Partition]:
        if rows not in self._partitions:
            self._partitions[rows] = self._table.partitions(rows)
        return self._partitions[rows]

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        return self._table.read(columns, partition=partition, batch_rows=batch_rows)

    def fingerprint(self) -> str | None:
        return self._fingerprint

    def select(self, query: exp.Select) -> pa.Table:
        key = query.sql("duckdb")
        if key not in self._answers:
            self._answers[key] = self._table.select(query)
        return self._answers[key]


def shareable(
    table: Table, folder: Path, columns: Sequence[str] | None = None, *, engine: Engine | None = None
) -> RememberedTable:
    """A table that other processes can open: itself where it is a file, else a Parquet file of its `columns` in `folder`.

    Data frames, Arrow data and open connections exist in one process only, and can be found again by nobody: their rows are
    written down once. Not for an `engine` whose workers are elsewhere, where the rows of `table` stay.
    """
    if engine is not None and engine.stays(table) and table.fingerprint() is None:
        raise UnsupportedError(
            f"The rows of {table.name!r} are those of a query, which no two workers read in the same order. Make a table of "
            "them (CREATE TABLE … AS SELECT …), or leave out engine: then they are read here, once."
        )
    if table.fingerprint() is None or not _travels(table):
        folder.mkdir(parents=True, exist_ok=True)
        wanted = list(table.column_names if columns is None else columns)
        written = write_table(_Columns(table, wanted), folder / f"rows-{len(list(folder.glob('rows-*')))}.parquet")
        written.name = table.name
        table = written
    return RememberedTable(table)


def encode_once(table: Table, encoder: BlockEncoder, engine: Engine) -> None:
    """Write the block cache that every trial with this encoding will find (see `BlockSource.cache_path`).

    Not of a table that stays where it lies: trials run there too, and the first of them writes it.
    """
    if engine.stays(table):
        return
    with BlockSource(table, encoder, passes=2, cache="disk") as source:
        engine.materialise(source)


def needed_columns(table: Table, arguments: Mapping[str, Any]) -> list[str] | None:
    """The columns that a fit with these `arguments` reads, as far as they are named one by one; None: all of them."""
    features = arguments.get("features")
    if features is None or not all(isinstance(name, str) and name in table.column_names for name in features):
        return None
    roles = [arguments.get(role) for role in ("label", "weight", "sample_weight", "offset")]
    named = [*features, *(role for role in roles if isinstance(role, str)), *arguments.get("exclude", ())]
    return list(dict.fromkeys(name for name in named if name in table.column_names))


def _travels(table: Table) -> bool:
    try:
        cloudpickle.dumps(table)
    except Exception:
        return False
    return True


class _Columns(Table):
    """Some of the columns of a table."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self.name = table.name
        self._table = table
        self._columns = list(columns)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([self._table.schema.field(name) for name in self._columns])

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        return self._table.statistics(self._columns if columns is None else columns)

    def partitions(self, rows: int) -> list[Partition]:
        return self._table.partitions(rows)

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        return self._table.read(
            self._columns if columns is None else columns, partition=partition, batch_rows=batch_rows
        )

    def fingerprint(self) -> str | None:
        return self._table.fingerprint()

    def select(self, query: exp.Select) -> pa.Table:
        return self._table.select(query)
