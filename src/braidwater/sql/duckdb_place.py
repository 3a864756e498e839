"""A DuckDB session as the place where functions run."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.errors import TableError
from braidwater.sql.mistakes import of_duckdb
from braidwater.sql.names import Name
from braidwater.sql.place import Place, arrow_rows, postgres_type
from braidwater.tables import Table, TableStatistics
from braidwater.tables.base import ColumnStatistics
from braidwater.tables.duckdb import DuckDBTable

_ROWS = "braidwater_rows"


class DuckDBPlace(Place):
    """The session of a DuckDB connection: tables are read through the connection itself, so its temporary tables and what its
    transaction has written are seen."""

    dialect = "duckdb"

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def fields(self, name: Name) -> pa.Schema | None:
        found = self._bound(name)
        return None if found is None else found.to_arrow_table().schema

    def exists(self, name: Name) -> bool:
        return self._bound(name) is not None

    def _bound(self, name: Name, columns: Sequence[str] = ()) -> Any:
        """A query of no row of a table, not run; None where there is no such table."""
        chosen = [exp.column(column, quoted=True) for column in columns] or [exp.Star()]
        try:
            return self.connection.sql(exp.select(*chosen).from_(name.table).limit(0).sql(self.dialect))
        except duckdb.CatalogException:
            return None
        except duckdb.Error as error:
            raise TableError(f"Table {name.text}: {error}") from error

    def select(self, query: exp.Query) -> pa.Table:
        return self._execute(query, self.connection.sql).to_arrow_table()

    def table(self, query: exp.Query, name: str, rows: int | None = None, schema: pa.Schema | None = None) -> Table:
        return SessionTable(self.connection, query, name=name, rows=rows, known=schema)

    def run(self, statement: exp.Expression) -> None:
        self._execute(statement)

    def insert(self, name: Name, rows: pa.Table) -> None:
        with self._registered(rows):
            self.run(exp.insert(exp.select("*").from_(_ROWS), name.table))

    def create(
        self,
        name: Name,
        columns: Mapping[str, str],
        rows: Sequence[Mapping[str, Any]],
        *,
        keys: Sequence[str] = (),
        of: Name | None = None,
    ) -> None:
        if not rows:
            super().create(name, columns, rows, keys=keys, of=of)
            return
        if len(rows) == 1 and not keys:
            self._create_row(name, columns, rows[0])
            return
        own = self._bound(of, keys).types if of is not None and keys else ()
        types = [exp.DataType.build(str(kind), dialect=self.dialect) for kind in own]
        types += [self.sql_type(kind) for kind in columns.values()]
        pairs = zip([*keys, *columns], types, strict=True)
        selected = [exp.cast(exp.column(key, quoted=True), kind).as_(key, quoted=True) for key, kind in pairs]
        with self._registered(arrow_rows(rows, columns, keys=keys)):
            self.create_as(name, exp.select(*selected).from_(_ROWS))

    def _create_row(self, name: Name, columns: Mapping[str, str], row: Mapping[str, Any]) -> None:
        """Make a table of one row, by parameters: to register Arrow data takes longer than the statement."""
        selected = [
            exp.cast(exp.Placeholder(), self.sql_type(kind)).as_(key, quoted=True) for key, kind in columns.items()
        ]
        values = [one.tolist() if isinstance(one := row.get(key), np.ndarray) else one for key in columns]
        made = exp.Create(this=name.table, kind="TABLE", expression=exp.select(*selected))
        self._execute(made, lambda text: self.connection.execute(text, values))

    @contextmanager
    def _registered(self, rows: pa.Table) -> Iterator[None]:
        """Arrow rows under a name in statements."""
        self.connection.register(_ROWS, rows)
        try:
            yield
        finally:
            with suppress(duckdb.Error):
                self.connection.unregister(_ROWS)

    def sql_type(self, type: str) -> exp.DataType:
        return postgres_type(type).copy()

    def has_gaps(self, array: exp.Expression) -> exp.Expression:
        counted = exp.Anonymous(this="list_count", expressions=[array.copy()])
        full = exp.EQ(this=counted, expression=exp.Anonymous(this="len", expressions=[array.copy()]))
        return exp.Not(this=exp.Coalesce(this=exp.Paren(this=full), expressions=[exp.false()]))

    def without_gaps(self, name: Name, columns: Sequence[str], *, finite: bool) -> tuple[set[str], int | None]:
        named = [exp.column(column, quoted=True) for column in dict.fromkeys(columns)]
        if not named:
            return set(), None
        # where a column has no NULLs DuckDB knows that, and looks at no row
        counts = exp.select(exp.Count(this=exp.Star()), *(exp.Count(this=one) for one in named)).from_(name.table)
        ((total, *known),) = self._execute(counts).fetchall()
        full = {one.name for one, count in zip(named, known, strict=True) if count == total}
        return self._bounded(name, full) if finite else full, int(total)

    def _bounded(self, name: Name, columns: Collection[str]) -> set[str]:
        """Those of the columns whose values are known to lie between finite numbers."""
        asked = [exp.Anonymous(this="stats", expressions=[exp.column(column, quoted=True)]) for column in columns]
        rows = self._execute(exp.select(*asked).from_(name.table).limit(1)).fetchall() if asked else []
        kept = dict(zip(columns, rows[0], strict=True)) if rows else {}
        return {column for column, one in kept.items() if isinstance(one, dict) and _is_bounded(one)}

    def is_finite(self, value: exp.Expression, *, array: bool) -> exp.Expression:
        total = exp.Anonymous(this="list_sum", expressions=[value.copy()]) if array else value.copy()
        return exp.Coalesce(this=exp.Anonymous(this="isfinite", expressions=[total]), expressions=[exp.false()])

    def dot(self, one: exp.Expression, other: exp.Expression) -> exp.Expression:
        arrays = [exp.cast(array.copy(), self.sql_type("float8[]")) for array in (one, other)]
        return exp.Anonymous(this="list_dot_product", expressions=arrays)

    def type_names(self, name: Name) -> dict[str, str]:
        found = self._bound(name)
        return dict(zip(found.columns, map(_postgres_name, found.types), strict=True))

    def _execute(self, statement: exp.Expression, run: Callable[[str], Any] | None = None) -> Any:
        text = statement.sql(self.dialect)
        try:
            return (run or self.connection.execute)(text)
        except duckdb.Error as error:
            raise TableError(f"{of_duckdb(error, text)} (in: {text})") from error


class SessionTable(DuckDBTable):
    """A SELECT of a session, read through its own connection; the number of rows is counted once, and of columns that are
    `known` not to have NULLs nothing more is asked."""

    def __init__(
        self, connection: Any, query: exp.Query, *, name: str, rows: int | None, known: pa.Schema | None = None
    ) -> None:
        self._known_rows = rows
        self._full = {field.name for field in known or () if not field.nullable}
        schema = None if known is None else pa.schema([field.with_nullable(True) for field in known])
        super().__init__(lambda: _Borrowed(connection), query, name=name, schema=schema)

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        columns = self.column_names if columns is None else list(columns)
        asked = [column for column in columns if column not in self._full]
        if asked:
            found = super().statistics(asked)
        else:
            self.require(columns)
            if self._known_rows is None:
                self._known_rows = super().statistics([]).rows
            found = TableStatistics(self._known_rows, 8 * self._known_rows * len(self.schema))
        known = {column: ColumnStatistics(nulls=0) for column in columns if column in self._full}
        return replace(found, columns={**found.columns, **known})


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
