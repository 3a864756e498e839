"""A table: rows that lie somewhere, and how to read them without holding them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from sqlglot import exp

from braidwater.errors import ColumnNotFoundError


@dataclass(frozen=True)
class ColumnStatistics:
    """What is known of a column without reading its rows. None means: nobody knows.

    `minimum` and `maximum` are bounds: no value lies beyond them. `distinct` may be an estimate.
    """

    nulls: int | None = None
    distinct: int | None = None
    minimum: object = None
    maximum: object = None


@dataclass(frozen=True)
class TableStatistics:
    """What the planner knows of a table. `bytes` is the size where it lies (compressed, for a file)."""

    rows: int
    bytes: int
    columns: dict[str, ColumnStatistics] = field(default_factory=dict)
    exact: bool = True  # False where `rows` is the database's estimate


@dataclass(frozen=True)
class Partition:
    """A part of a table that can be read on its own, at the same time as others.

    `first_row` is the number of its first row in the order of the table, where that is known.
    """

    number: int
    rows: int | None = None
    first_row: int | None = None
    where: Any = None  # what the table needs to find it again; plain values only


class Table(ABC):
    """A place plus a query: rows that are read where they lie, as a stream of Arrow batches.

    The law of every table (`braidwater.testing.TABLE_CHECKS`): the partitions in their order, each read to its end, give
    the rows of `read()` in the same order, each once; reading twice gives the same rows in the same order, as long as
    `fingerprint()` gives the same text; memory does not grow with the number of rows.
    """

    name: str  # how messages and plans call it
    reader: str = "duckdb"  # who decodes the rows, for the planner: "parquet", "arrow", "duckdb" or "csv"
    encoded: bool = False  # whether its blocks were written to the cache for others to find

    def kept_blocks(self, encoder: Any) -> Any:
        """A store of this table's blocks under `encoder` that lies ready (see `BlockSource`); None where there is none."""
        return None

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the columns."""

    @abstractmethod
    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        """Rows, bytes and what is known of `columns`, from metadata or one cheap query."""

    @abstractmethod
    def partitions(self, rows: int) -> list[Partition]:
        """The table cut into parts of at least `rows` rows (the last may be smaller), in order."""

    @abstractmethod
    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows of the table (or of one of its partitions) in batches of at most `batch_rows`."""

    @abstractmethod
    def fingerprint(self) -> str | None:
        """A text that changes when the rows may have changed; None where the place cannot tell."""

    @abstractmethod
    def select(self, query: exp.Select) -> pa.Table:
        """Run a small SELECT where the rows lie. The query reads ``FROM this``; the result is held in memory."""

    @property
    def column_names(self) -> list[str]:
        return list(self.schema.names)

    def require(self, columns: Sequence[str]) -> None:
        """Raise `ColumnNotFoundError` for the first of `columns` that is not there."""
        available = set(self.schema.names)
        for column in columns:
            if column not in available:
                raise ColumnNotFoundError(self.name, column, self.column_names)

    def __len__(self) -> int:
        return self.statistics([]).rows

    def head(self, rows: int = 5) -> pa.Table:
        """The first rows, as an Arrow table."""
        batches: list[pa.RecordBatch] = []
        found = 0
        stream = self.read(batch_rows=max(rows, 1))
        for batch in stream:
            batches.append(batch.slice(0, rows - found))
            found += batches[-1].num_rows
            if found >= rows:
                break
        close = getattr(stream, "close", None)
        if close is not None:
            close()
        return pa.Table.from_batches(batches, schema=self.schema)

    def to_arrow(self) -> pa.Table:
        """All rows in memory. For small tables and tests."""
        return pa.Table.from_batches(list(self.read()), schema=self.schema)

    def __repr__(self) -> str:
        columns = ", ".join(f"{f.name} {f.type}" for f in self.schema)
        return f"<table {self.name}: {columns}>"
