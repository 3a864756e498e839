"""Tables that DuckDB reads: its own files and connections, and CSV and JSON files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

from braidwater.errors import TableError, TableNotFoundError
from braidwater.tables.base import ColumnStatistics, Partition, Table, TableStatistics
from braidwater.tables.duckdb_memory import open_memory
from braidwater.tables.files import fingerprint_files, of_each


class DuckDBTable(Table):
    """A table or SELECT of a DuckDB connection. `connect` makes a connection or cursor that is closed after each use.

    Its `schema` is asked for (10 ms and more) unless somebody knows it.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        query: str | exp.Query,
        *,
        name: str,
        files: Sequence[str] = (),
        bytes: int | None = None,
        schema: pa.Schema | None = None,
    ) -> None:
        self._connect = connect
        self._query = parse_query(query) if isinstance(query, str) else query
        self._files = tuple(files)
        self._bytes = bytes
        self.name = name
        if schema is not None:
            self.schema = schema
        _ = self.schema  # a wrong name or statement is an error here, and not in the middle of a fit

    @cached_property
    def schema(self) -> pa.Schema:
        with self._run(exp.select("*").from_("this").limit(0)) as relation:
            return relation.to_arrow_table().schema

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        columns = self.column_names if columns is None else list(columns)
        self.require(columns)
        known = self._kept_statistics(columns)
        counts = [exp.Count(this=exp.Star()).as_("rows")]
        for number, column in enumerate(columns):
            if known[column].nulls is None:
                counts.append(exp.Count(this=exp.column(column, quoted=True)).as_(f"known_{number}"))
        row = self.select(exp.select(*counts).from_("this")).to_pylist()[0]
        for number, column in enumerate(columns):
            if known[column].nulls is None:
                known[column] = replace(known[column], nulls=row["rows"] - row[f"known_{number}"])
        size = self._bytes if self._bytes is not None else row["rows"] * 8 * len(self.schema)
        return TableStatistics(row["rows"], size, known)

    def _kept_statistics(self, columns: Sequence[str]) -> dict[str, ColumnStatistics]:
        """What DuckDB keeps of each column without a scan: bounds, whether there are NULLs, about how many distinct values."""
        if not columns:
            return {}
        asked = [exp.Anonymous(this="stats", expressions=[exp.column(column, quoted=True)]) for column in columns]
        with self._run(exp.select(*asked).from_("this").limit(1)) as relation:
            rows = relation.fetchall()
        found = rows[0] if rows else ({},) * len(columns)
        return {column: _column_statistics(kept) for column, kept in zip(columns, found, strict=True)}

    def partitions(self, rows: int) -> list[Partition]:
        # one stream: DuckDB scans with all its threads and hands the rows out in their order
        return [Partition(0, first_row=0)]

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        self.require(names)
        with self._run(exp.select(*(exp.column(n, quoted=True) for n in names)).from_("this")) as relation:
            # not execute().to_arrow_reader(): since 2.0 that holds the whole result in memory
            reader = relation.to_arrow_reader(batch_rows)
            try:
                yield from reader
            except OSError as error:  # errors inside a stream arrive as OSError
                raise TableError(f"Reading table {self.name!r} failed: {error}") from error
            finally:
                reader.close()

    def fingerprint(self) -> str | None:
        return None if not self._files else fingerprint_files(self._files) + self._query.sql("duckdb")

    def select(self, query: exp.Select) -> pa.Table:
        with self._run(query) as relation:
            return relation.to_arrow_table()

    @contextmanager
    def _run(self, query: exp.Select) -> Iterator[Any]:
        statement = query.with_("this", as_=self._query).sql("duckdb")
        connection = self._connect()
        try:
            yield connection.sql(statement)
        except duckdb.Error as error:
            kind = TableNotFoundError if isinstance(error, duckdb.CatalogException) else TableError
            raise kind(f"Table {self.name!r}: {error}\nThe statement was: {statement}") from error
        finally:
            connection.close()


def _column_statistics(kept: Any) -> ColumnStatistics:
    if not isinstance(kept, dict):
        return ColumnStatistics()
    nulls = 0 if kept.get("has_null") is False else None
    return ColumnStatistics(nulls, kept.get("approx_unique"), kept.get("min"), kept.get("max"))


def parse_query(query: str, dialect: str = "duckdb") -> exp.Query:
    """A table name or one SELECT of a `dialect` of sqlglot, parsed; anything else that SQL can do is refused.

    >>> parse_query("flights").sql("duckdb"), parse_query("SELECT a FROM t WHERE b > 1").sql("duckdb")
    ('SELECT * FROM flights', 'SELECT a FROM t WHERE b > 1')
    """
    text = query.strip().rstrip(";")
    if not text.lower().startswith(("select", "with", "from", "(", "values")):
        return exp.select("*").from_(_table_name(text, dialect))
    try:
        statements = sqlglot.parse(text, read=dialect)
    except (sqlglot.errors.ParseError, sqlglot.errors.TokenError) as error:
        raise TableError(f"The query cannot be parsed: {error}") from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise TableError(f"A table is one SELECT; this is something else: {query!r}.")
    return statements[0]


def _table_name(text: str, dialect: str) -> exp.Table:
    try:
        found = exp.to_table(text, dialect=dialect)
    except (sqlglot.errors.ParseError, sqlglot.errors.TokenError):
        found = exp.table_(text, quoted=True)
    if found.name == "":
        raise TableError(f"{text!r} is neither the name of a table nor a SELECT.")
    return found


def database_table(path: str, query: str, *, name: str | None = None) -> DuckDBTable:
    """A table or SELECT of a DuckDB file."""
    if not Path(path).is_file():
        raise TableNotFoundError(f"There is no DuckDB file at {path!r}.")
    if not query.strip():
        tables = _table_names(path)
        if len(tables) != 1:
            raise TableError(
                f"{path!r} holds {len(tables)} tables; say which: {', '.join(f'{path}::{t}' for t in tables)}"
            )
        query = tables[0]
    files = [path, *([f"{path}.wal"] if Path(f"{path}.wal").is_file() else [])]
    return DuckDBTable(lambda: open_database(path), query, name=name or query, files=files)


def files_table(
    function: str, files: Sequence[str], *, name: str, hive: bool = False, schema: pa.Schema | None = None
) -> DuckDBTable:
    """Files that one of DuckDB's table functions reads (`read_csv`, `read_json`, `read_parquet`)."""
    arguments: list[exp.Expression] = [exp.array(*(exp.Literal.string(file) for file in files))]
    if hive:
        arguments.append(exp.EQ(this=exp.column("hive_partitioning"), expression=exp.true()))
    if (
        function == "read_csv"
    ):  # a quoted nothing is an empty text, an unquoted one is NULL: as pandas and pyarrow write them
        arguments.append(exp.EQ(this=exp.column("allow_quoted_nulls"), expression=exp.false()))
    query = exp.select("*").from_(exp.Table(this=exp.Anonymous(this=function, expressions=arguments)))
    size = sum(of_each(os.path.getsize, files))
    found = DuckDBTable(open_memory, query.sql("duckdb"), name=name, files=files, bytes=size, schema=schema)
    found.reader = "csv" if function in ("read_csv", "read_json") else found.reader
    return found


def open_database(path: str, *, write: bool = False) -> Any:
    """A connection to a DuckDB file. One that is open in this process already is shared, whatever its mode."""
    try:
        connection = duckdb.connect(path, read_only=not write)
    except duckdb.ConnectionException:
        try:  # this process has it open in the other mode
            connection = duckdb.connect(path, read_only=write)
        except duckdb.Error as error:
            raise TableError(f"Cannot open {path!r}: {error}") from error
    except duckdb.Error as error:
        raise TableError(f"Cannot open {path!r}: {error}") from error
    return connection


def _table_names(path: str) -> list[str]:
    connection = open_database(path)
    try:
        return [row[0] for row in connection.sql("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
    finally:
        connection.close()
