"""A DuckDB session as the place where functions run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from braidwater.errors import TableError
from braidwater.sql.mistakes import of_duckdb
from braidwater.sql.names import Name
from braidwater.sql.place import Place
from braidwater.tables import Table, TableStatistics
from braidwater.tables.duckdb import DuckDBTable

_ROWS = "braidwater_rows"


class DuckDBPlace(Place):
    """The session of a DuckDB connection: tables are read through the connection itself, so its temporary tables and what its
    transaction has written are seen."""

    dialect = "duckdb"

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def fields(self, name: Name) -> pa.Schema | None:
        query = exp.select("*").from_(name.table).limit(0).sql(self.dialect)
        try:
            return self.connection.sql(query).to_arrow_table().schema
        except duckdb.CatalogException:
            return None
        except duckdb.Error as error:
            raise TableError(f"Table {name.text}: {error}") from error

    def select(self, query: exp.Query) -> pa.Table:
        return self._execute(query, self.connection.sql).to_arrow_table()

    def table(self, query: exp.Query, name: str, rows: int | None = None) -> Table:
        return SessionTable(self.connection, query, name=name, rows=rows)

    def run(self, statement: exp.Expression) -> None:
        self._execute(statement)

    def insert(self, name: Name, rows: pa.Table) -> None:
        self.connection.register(_ROWS, rows)
        try:
            self.run(exp.insert(exp.select("*").from_(_ROWS), name.table))
        finally:
            with suppress(duckdb.Error):
                self.connection.unregister(_ROWS)

    def sql_type(self, type: str) -> exp.DataType:
        return exp.DataType.build(type, dialect="postgres")

    def has_gaps(self, array: exp.Expression) -> exp.Expression:
        counted = exp.Anonymous(this="list_count", expressions=[array.copy()])
        full = exp.EQ(this=counted, expression=exp.Anonymous(this="len", expressions=[array.copy()]))
        return exp.Not(this=exp.Coalesce(this=exp.Paren(this=full), expressions=[exp.false()]))

    def without_gaps(self, name: Name, columns: Sequence[str], *, finite: bool) -> set[str]:
        asked = [exp.Anonymous(this="stats", expressions=[exp.column(column, quoted=True)]) for column in columns]
        if not asked:
            return set()
        rows = self._execute(exp.select(*asked).from_(name.table).limit(1), self.connection.sql).fetchall()
        found = {c: kept for c, kept in zip(columns, rows[0] if rows else (), strict=False) if isinstance(kept, dict)}
        full = {column for column, kept in found.items() if kept.get("has_null") is False}
        return {c for c in full if _is_bounded(found[c])} if finite else full

    def is_finite(self, value: exp.Expression, *, array: bool) -> exp.Expression:
        total = exp.Anonymous(this="list_sum", expressions=[value.copy()]) if array else value.copy()
        return exp.Coalesce(this=exp.Anonymous(this="isfinite", expressions=[total]), expressions=[exp.false()])

    def dot(self, one: exp.Expression, other: exp.Expression) -> exp.Expression:
        arrays = [exp.cast(array.copy(), self.sql_type("float8[]")) for array in (one, other)]
        return exp.Anonymous(this="list_dot_product", expressions=arrays)

    def type_names(self, name: Name) -> dict[str, str]:
        found = self.connection.sql(exp.select("*").from_(name.table).limit(0).sql(self.dialect))
        return dict(zip(found.columns, map(_postgres_name, found.types), strict=True))

    def _execute(self, statement: exp.Expression, run: Callable[[str], Any] | None = None) -> Any:
        text = statement.sql(self.dialect)
        try:
            return (run or self.connection.execute)(text)
        except duckdb.Error as error:
            raise TableError(f"{of_duckdb(error, text)} (in: {text})") from error


class SessionTable(DuckDBTable):
    """A SELECT of a session, read through its own connection; the number of rows is counted once."""

    def __init__(self, connection: Any, query: exp.Query, *, name: str, rows: int | None) -> None:
        self._known_rows = rows
        super().__init__(lambda: _Borrowed(connection), query.sql("duckdb"), name=name)

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        if columns or (columns is None and self.column_names):
            return super().statistics(columns)
        if self._known_rows is None:
            self._known_rows = super().statistics([]).rows
        return TableStatistics(self._known_rows, 8 * self._known_rows * len(self.schema))


class _Borrowed:
    """The session's connection for one use; closing it leaves it open."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def sql(self, statement: str) -> Any:
        return self._connection.sql(statement)

    def close(self) -> None:
        """The session goes on."""


def _is_bounded(kept: dict[str, Any]) -> bool:
    """Whether the bounds of a column are finite numbers; NaN is larger than all others, so it would be one of them."""
    bounds = (kept.get("min"), kept.get("max"))
    return all(isinstance(one, (int, float)) and math.isfinite(one) for one in bounds)


_NAMES = {
    "DOUBLE": "float8", "FLOAT": "float4", "INTEGER": "int4", "BIGINT": "int8", "SMALLINT": "int2", "VARCHAR": "text",
    "BOOLEAN": "bool", "BLOB": "bytea", "TIMESTAMP WITH TIME ZONE": "timestamptz",
}  # fmt: skip


def _postgres_name(type: Any) -> str:
    text = str(type)
    bare = text.rstrip("[]")
    return _NAMES.get(bare, bare.lower()) + text[len(bare) :]
