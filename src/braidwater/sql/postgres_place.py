"""A session of a PostgreSQL server as the place where functions run: rows stay there, its engine makes the passes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import sqlglot
from psycopg import sql
from sqlglot import exp

from braidwater.engines.postgres import PostgresEngine
from braidwater.errors import TableError
from braidwater.sql.names import Name
from braidwater.sql.place import Place, postgres_type
from braidwater.tables import Table
from braidwater.tables.postgres import PostgresTable
from braidwater.tables.postgres_session import connect, told
from braidwater.tables.postgres_types import in_postgres

_COLUMNS = """
SELECT a.attname::text, CASE WHEN t.typcategory = 'A' THEN e.typname::text || '[]' ELSE t.typname::text END
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_TYPES = {
    "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "float4": pa.float32(), "float8": pa.float64(),
    "numeric": pa.float64(), "bool": pa.bool_(), "bytea": pa.binary(), "date": pa.date32(), "timestamp": pa.timestamp("us"),
}  # fmt: skip
_ODD = ("NaN", "Infinity", "-Infinity")


class PostgresPlace(Place):
    """The session of a psycopg connection. Estimators read through sessions of their own, which see what is committed."""

    dialect = "postgres"

    def __init__(self, connection: psycopg.Connection[Any], address: str) -> None:
        self.connection = connection
        self.address = address
        self.engine = PostgresEngine(address)

    def fields(self, name: Name) -> pa.Schema | None:
        types = self.type_names(name)
        return pa.schema([(column, _arrow(kind)) for column, kind in types.items()]) if types else None

    def type_names(self, name: Name) -> dict[str, str]:
        return dict(self._execute(_COLUMNS, (name.table.sql(self.dialect),)).fetchall())

    def select(self, query: exp.Query) -> pa.Table:
        cursor = self._execute(self._text(query))
        names = [column.name for column in cursor.description or ()]
        return rows_to_arrow(names, cursor.fetchall())

    def table(self, query: exp.Query, name: str, rows: int | None = None, schema: pa.Schema | None = None) -> Table:
        return PostgresTable(lambda: connect(self.address), self._text(query), name=name, address=self.address)

    def run(self, statement: exp.Expression) -> None:
        self._execute(self._text(statement))

    def insert(self, name: Name, rows: pa.Table) -> None:
        place = sql.SQL(", ").join([sql.Placeholder()] * rows.num_columns)
        statement = sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(*name.parts), place)
        values = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
        try:
            with self.connection.cursor() as cursor:
                cursor.executemany(statement, values)
        except psycopg.Error as error:
            raise told(error, f"Writing table {name.text}") from error

    def sql_type(self, type: str) -> exp.DataType:
        return postgres_type(type).copy()

    def has_gaps(self, array: exp.Expression) -> exp.Expression:
        null = exp.Is(this=exp.paren(array.copy()), expression=exp.null())
        return exp.or_(null, exp.not_(_absent(array, exp.null())))

    def is_finite(self, value: exp.Expression, *, array: bool) -> exp.Expression:
        odd = [exp.cast(exp.Literal.string(one), "DOUBLE") for one in _ODD]
        if array:
            return exp.and_(*(_absent(value, one) for one in odd))
        return exp.not_(exp.In(this=value.copy(), expressions=odd))

    def dot(self, one: exp.Expression, other: exp.Expression) -> exp.Expression:
        tree = sqlglot.parse_one("(SELECT sum(a * b) FROM unnest(one, other) AS u(a, b))", read=self.dialect)
        arrays = {
            name: exp.cast(array.copy(), self.sql_type("float8[]")) for name, array in (("one", one), ("other", other))
        }
        return tree.transform(lambda node: arrays.get(node.name, node) if isinstance(node, exp.Column) else node)

    def _text(self, statement: exp.Expression) -> str:
        return written(in_postgres(statement))

    def _execute(self, text: str, values: tuple[Any, ...] | None = None) -> psycopg.Cursor[Any]:
        try:
            return self.connection.execute(text, values)
        except psycopg.Error as error:
            if isinstance(error, psycopg.errors.SyntaxErrorOrAccessRuleViolation):
                raise TableError(f"{error}\nThe statement was: {text}") from error
            raise told(error, "PostgreSQL", text) from error


def written(statement: exp.Expression) -> str:
    """A statement as text. sqlglot writes the array of several sub-queries as that of the first; in parentheses they all stay.

    >>> written(sqlglot.parse_one("SELECT ARRAY[(SELECT 1), (SELECT 2)]", read="postgres"))
    'SELECT ARRAY[((SELECT 1)), ((SELECT 2))]'
    """
    for array in [one for one in statement.find_all(exp.Array) if "value_constructor" in one.args]:
        for one in list(array.expressions):
            if isinstance(one, exp.Subquery):
                one.replace(exp.Paren(this=one.copy()))
    text: str = statement.sql("postgres")
    return text


def rows_to_arrow(names: list[str], rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows of a cursor as Arrow; decimals as doubles, as sums of integers come as such."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    arrays = [pa.array([float(one) if isinstance(one, Decimal) else one for one in column]) for column in columns]
    return pa.Table.from_arrays(arrays, names=names)


def _absent(array: exp.Expression, value: exp.Expression) -> exp.Expression:
    found = exp.Anonymous(this="array_position", expressions=[array.copy(), value])
    return exp.Is(this=found, expression=exp.null())


def _arrow(kind: str) -> pa.DataType:
    return pa.list_(_arrow(kind[:-2])) if kind.endswith("[]") else _TYPES.get(kind, pa.string())
