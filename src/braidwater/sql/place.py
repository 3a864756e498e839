"""Where a function of the SQL face runs: the database of a session, behind the few things that functions need of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.engines import Engine
from braidwater.errors import TableError, TableNotFoundError
from braidwater.sql.names import Name
from braidwater.tables import Table


class Place(ABC):
    """A session of a database. What a function writes is in the session's transaction: all of it is there, or nothing.

    `dialect` is that of sqlglot in which statements are written, `engine` makes the passes over tables that lie here (None: the
    local one, as the planner sees fit).
    """

    dialect: str
    engine: Engine | None = None

    @abstractmethod
    def fields(self, name: Name) -> pa.Schema | None:
        """Names and Arrow types of the columns of a table; None where there is no such table."""

    @abstractmethod
    def select(self, query: exp.Query) -> pa.Table:
        """Run a SELECT whose result is small."""

    @abstractmethod
    def table(self, query: exp.Query, name: str, rows: int | None = None, schema: pa.Schema | None = None) -> Table:
        """The rows of a SELECT as a table that estimators train on; `rows` is their number where it is known, and `schema` what
        columns it has, of which only those can have NULLs that may."""

    @abstractmethod
    def run(self, statement: exp.Expression) -> None:
        """Run a statement that gives nothing."""

    @abstractmethod
    def insert(self, name: Name, rows: pa.Table) -> None:
        """Add rows to a table, by the order of their columns."""

    @abstractmethod
    def sql_type(self, type: str) -> exp.DataType:
        """The type that PostgreSQL calls `type` (``float8[][]``, ``text`` ...) as this database has it."""

    @abstractmethod
    def has_gaps(self, array: exp.Expression) -> exp.Expression:
        """Whether an array is NULL or has a NULL in it."""

    def without_gaps(self, name: Name, columns: Sequence[str], *, finite: bool) -> tuple[set[str], int | None]:
        """Those of the columns that are known, without a look at the rows, to have no NULLs (and only finite numbers); and the
        number of rows, where that has been found out by the way."""
        return set(), None

    @abstractmethod
    def is_finite(self, value: exp.Expression, *, array: bool) -> exp.Expression:
        """Whether a double (all of an array of doubles) is neither NULL, nor NaN, nor infinite."""

    @abstractmethod
    def dot(self, one: exp.Expression, other: exp.Expression) -> exp.Expression:
        """The sum of the products of two arrays of doubles."""

    @abstractmethod
    def type_names(self, name: Name) -> dict[str, str]:
        """The types of a table's columns, as this database calls them."""

    def schema(self, name: Name) -> pa.Schema:
        """Names and types of the columns of a table that must be there."""
        found = self.fields(name)
        if found is None:
            raise TableNotFoundError(f"There is no table {name.text}.")
        return found

    def exists(self, name: Name) -> bool:
        """Whether there is such a table."""
        return self.fields(name) is not None

    def refuse_existing(self, *names: Name) -> None:
        """Raise `TableError` where a table that is to be written is there already."""
        for name in names:
            if self.exists(name):
                raise TableError(f"The output table {name.text} exists already. Drop it first, or give another name.")

    def create(
        self,
        name: Name,
        columns: Mapping[str, str],
        rows: Sequence[Mapping[str, Any]],
        *,
        keys: Sequence[str] = (),
        of: Name | None = None,
    ) -> None:
        """Make a table of `rows`: the columns `keys` with the types that they have in the table `of`, and `columns` by type."""
        selected: list[exp.Expression] = [exp.column(key, quoted=True) for key in keys]
        selected += [
            exp.cast(exp.null(), self.sql_type(kind)).as_(column, quoted=True) for column, kind in columns.items()
        ]
        query = exp.select(*selected).where(exp.false())
        self.create_as(name, query.from_(of.table) if of is not None and keys else query)
        if rows:
            self.insert(name, arrow_rows(rows, columns, keys=keys))

    def create_as(self, name: Name, query: exp.Query) -> None:
        """Make a table of the rows of a SELECT."""
        self.run(exp.Create(this=name.table, kind="TABLE", expression=query))


@lru_cache
def postgres_type(type: str) -> exp.DataType:
    """What PostgreSQL calls `type`, parsed once; to be copied."""
    return exp.DataType.build(type, dialect="postgres")


_SCALARS = {
    "float8": pa.float64(), "text": pa.string(), "bigint": pa.int64(), "integer": pa.int32(), "boolean": pa.bool_(),
    "bytea": pa.binary(), "float4": pa.float32(), "int2": pa.int16(),
}  # fmt: skip


def arrow_type(type: str) -> pa.DataType:
    """The Arrow type of what PostgreSQL calls `type`.

    >>> arrow_type("float8[][]")
    ListType(list<item: list<item: double>>)
    """
    return pa.list_(arrow_type(type[:-2])) if type.endswith("[]") else _SCALARS[type]


def arrow_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, keys: Sequence[str] = ()) -> pa.Table:
    """Rows as Arrow: the columns `keys` by what they hold, the others by their types."""
    arrays = [pa.array([row[key] for row in rows]) for key in keys]
    for column, kind in columns.items():
        values = [row.get(column) for row in rows]
        arrays.append(pa.array([v.tolist() if isinstance(v, np.ndarray) else v for v in values], arrow_type(kind)))
    return pa.table(arrays, names=[*keys, *columns])
