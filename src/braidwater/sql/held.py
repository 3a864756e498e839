"""An answer that is held in memory, and fetched as from a cursor."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


class Held:
    """The rows of an Arrow table, from the first to the last."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._place = 0

    @property
    def description(self) -> list[tuple[Any, ...]]:
        """A tuple for each column, that begins with its name."""
        return [(field.name, str(field.type)) for field in self._table.schema]

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        """The next rows."""
        part = self._table.slice(self._place, size)
        self._place += part.num_rows
        # by columns: two of them may have the same name
        return list(zip(*(column.to_pylist() for column in part.columns), strict=True))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that are left."""
        return self.fetchmany(self._table.num_rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, None behind the last."""
        return next(iter(self.fetchmany(1)), None)

    def to_arrow_reader(self) -> pa.RecordBatchReader:
        """All rows."""
        return self._table.to_reader()
