"""A session in which MADlib's functions can be called: statements in, rows out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

import braidwater.sql.functions  # noqa: F401 - fills the registry
from braidwater.errors import StatementError, UserError
from braidwater.extras import needed_for
from braidwater.options import current_options
from braidwater.sql.calls import Call, calls_in, run_call
from braidwater.sql.duckdb_place import DuckDBPlace
from braidwater.sql.held import Held
from braidwater.sql.mistakes import CallError, PlacedError, of_duckdb
from braidwater.sql.place import Place
from braidwater.sql.rewriting import for_duckdb, needs_turning, plain_insert
from braidwater.sql.scalars import SCALARS
from braidwater.sql.script import Statement, place_of, statements

PARSED = ("select", "with", "insert", "create", "drop", "update", "delete", "(", "values", "merge")


class Connection(ABC):
    """A session of a database that knows the functions of `schema`. Its answers are fetched as from DuckDB's own connection."""

    place: Place
    schema: str

    def execute(self, script: str) -> Self:
        """Run the statements of a script; the answer is that of the last. A statement takes effect as a whole, or not at all."""
        self._answer: Any = None
        for statement in statements(script):
            if statement.is_command:
                raise StatementError(
                    "Commands with a backslash are for `braidwater sql`.", statement.line, statement.column, script
                )
            self.run(statement)
        return self

    sql = execute

    def run(self, statement: Statement) -> None:
        """Run one statement."""
        try:
            self._run(statement.text)
        except CallError as error:
            raise self._located(statement, error, error.name) from error
        except PlacedError as error:
            line, column = place_of(statement.text, error.position or 0)
            raise self._at(statement, str(error), line, column) from error
        except sqlglot.errors.ParseError as error:
            first = error.errors[0] if error.errors else {}
            line, column = (
                first.get("line") or 1,
                max((first.get("col") or 1) - len(first.get("highlight") or "x") + 1, 1),
            )
            what = str(first.get("description") or error).rstrip(".")
            raise self._at(statement, f"{what}.", line, column) from error
        except UserError as error:
            if isinstance(error, StatementError):
                raise
            raise self._located(statement, error, self._calling) from error

    @property
    def columns(self) -> list[str]:
        """The names of the columns of the answer; none where the statement gave nothing."""
        return [] if self._answer is None else [one[0] for one in self._answer.description or ()]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows of the answer that were not fetched yet."""
        return [] if self._answer is None else list(self._answer.fetchall())

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row of the answer, None behind the last."""
        return None if self._answer is None else self._answer.fetchone()

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        """The next rows of the answer."""
        return [] if self._answer is None else list(self._answer.fetchmany(size))

    def df(self) -> Any:
        """The answer as a pandas data frame."""
        return self.arrow().to_pandas()

    @abstractmethod
    def arrow(self) -> pa.Table:
        """The answer as an Arrow table."""

    @abstractmethod
    def close(self) -> None:
        """End the session."""

    @abstractmethod
    def _run(self, text: str) -> None:
        """Run a statement and keep its answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    _calling = ""  # the function that is being run, for messages

    def _calls(self, text: str, tree: exp.Expression | None) -> list[Call]:
        return [] if tree is None or f"{self.schema}." not in text.lower() else calls_in(tree, self.schema)

    def _run_calls(self, calls: list[Call]) -> None:
        for call in calls:
            self._calling = call.name
            run_call(self.place, call, self._evaluate)
        self._calling = ""

    def _evaluate(self, arguments: list[exp.Expression]) -> list[Any]:
        """The values of the arguments of a call."""
        query = exp.select(*(one.copy().as_(f"a{number}") for number, one in enumerate(arguments)))
        row: dict[str, Any] = self.place.select(query).to_pylist()[0]
        return list(row.values())

    def _located(self, statement: Statement, error: Exception, name: str) -> StatementError:
        found = statement.text.lower().find(name.lower()) if name else -1
        line, column = place_of(statement.text, max(found, 0))
        return self._at(statement, str(error).split("\n\nLINE ")[0], line, column)

    def _at(self, statement: Statement, message: str, line: int, column: int) -> StatementError:
        first = statement.column - 1 if line == 1 else 0
        lines = statement.text.split("\n")
        shown = lines[min(line, len(lines)) - 1]
        return StatementError(message, statement.line + line - 1, first + column, shown, column)


class DuckDBConnection(Connection):
    """A session of an embedded DuckDB. Functions of a row are macros of an attached database that is gone with the session."""

    def __init__(self, connection: Any, schema: str) -> None:
        self._connection = connection
        self.schema = schema
        self.place = DuckDBPlace(connection)
        self._in_transaction = self._broken = False
        _add_scalars(connection, schema)

    def arrow(self) -> pa.Table:
        return pa.table({}) if self._answer is None else self._answer.to_arrow_reader().read_all()

    def close(self) -> None:
        self._connection.close()

    def _run(self, text: str) -> None:
        self._connection.abort()  # of an answer that was not fetched to its end
        word = text.split(None, 1)[0].lower() if text.split() else ""
        if word in ("begin", "start", "commit", "end", "rollback", "abort"):
            self._transaction(word)
            return
        if self._broken:
            raise UserError("The transaction has failed; nothing is run before ROLLBACK.")
        try:
            self._dispatch(word, text)
        except BaseException:
            if self._in_transaction:  # as in PostgreSQL, nothing of a transaction stays after an error
                self._roll_back()
                self._broken = True
            raise

    def _dispatch(self, word: str, text: str) -> None:
        inserted = plain_insert(text, self._column_types) if word == "insert" else None
        if inserted is not None:
            self._answer = self._execute(inserted)
            return
        tree = self._parsed(word, text)
        calls = self._calls(text, tree)
        if tree is not None and calls:
            self._with_calls(tree, text, calls)
            return
        turned = None if tree is None else for_duckdb(tree, text, self._column_types)
        for one in [text] if turned is None else [one.sql("duckdb") for one in turned]:
            self._answer = self._execute(one)

    def _with_calls(self, tree: exp.Expression, text: str, calls: list[Call]) -> None:
        """What the functions write and the statement around them are one transaction."""
        own = not self._in_transaction
        if own:
            self._execute("BEGIN TRANSACTION")
        try:
            self._run_calls(calls)
            for one in for_duckdb(tree, text, self._column_types) or [tree]:
                held = self._arrow_of(one.sql("duckdb"))
            if own:
                self._execute("COMMIT")
        except BaseException:
            if own:
                self._roll_back()
            raise
        self._answer = None if held is None else Held(held)

    def _roll_back(self) -> None:
        with suppress(duckdb.Error):
            self._connection.execute("ROLLBACK")

    def _arrow_of(self, text: str) -> pa.Table | None:
        """What a statement gives, held: COMMIT would end a stream."""
        try:
            relation = self._connection.sql(text)
            return None if relation is None else relation.to_arrow_table()
        except duckdb.Error as error:
            raise of_duckdb(error, text) from error

    def _transaction(self, word: str) -> None:
        if word in ("begin", "start"):
            self._execute("BEGIN TRANSACTION")
            self._in_transaction = True
            return
        if not self._broken:  # what has failed is rolled back already, as in PostgreSQL, whatever it is ended with
            self._execute("ROLLBACK" if word in ("rollback", "abort") else "COMMIT")
        self._in_transaction = self._broken = False

    def _parsed(self, word: str, text: str) -> exp.Expression | None:
        """The tree of a statement; None where it is for DuckDB as it is."""
        if not word.startswith(PARSED) or not (f"{self.schema}." in text.lower() or needs_turning(word, text)):
            return None
        try:
            found = sqlglot.parse_one(text, read="postgres")
        except sqlglot.errors.SqlglotError:
            if f"{self.schema}." in text.lower() or not self._is_valid(text):
                raise
            return None
        return None if isinstance(found, exp.Command) else found

    def _is_valid(self, text: str) -> bool:
        """Whether DuckDB's own parser can read a text."""
        try:
            return bool(duckdb.extract_statements(text))
        except duckdb.Error:
            return False

    def _column_types(self, table: exp.Table) -> dict[str, str] | None:
        found = exp.select("*").from_(table.copy()).limit(0).sql("duckdb")
        try:
            relation = self._connection.sql(found)
        except duckdb.Error:
            return None
        return dict(zip(relation.columns, map(str, relation.types), strict=True))

    def _execute(self, text: str) -> Any:
        try:
            return self._connection.execute(text)
        except duckdb.Error as error:
            raise of_duckdb(error, text) from error


def connect(database: Any = ":memory:", *, schema: str = "madlib") -> Connection:
    """A session in which the functions of `schema` can be called.

    `database` is ``":memory:"``, the path of a DuckDB file, ``postgresql://USER@HOST/DATABASE``, or a DuckDB connection, of which
    the session is a cursor (its temporary tables are not seen).

    >>> session = connect()
    >>> _ = session.execute("CREATE TABLE line AS SELECT i AS x, 2 * i + 1 AS y FROM generate_series(1, 5) AS t(i)")
    >>> _ = session.execute("SELECT madlib.linregr_train('line', 'model', 'y', 'ARRAY[1, x]')")
    >>> [round(value, 9) for value in session.execute("SELECT coef FROM model").fetchone()[0]]
    [1.0, 2.0]
    """
    if not isinstance(database, (str, Path)):
        return DuckDBConnection(database.cursor(), schema)
    if str(database).startswith(("postgresql://", "postgres://")):
        with needed_for("SQL on PostgreSQL"):
            from braidwater.sql.postgres_connection import PostgresConnection

        return PostgresConnection(str(database), schema)
    options = current_options()
    # as tables of files do: a third of the bound is for DuckDB's own buffers
    settings: dict[str, Any] = {
        "memory_limit": f"{max(options.memory // 3 // 10**6, 64)}MB", "threads": options.workers
    }  # fmt: skip
    try:
        return DuckDBConnection(duckdb.connect(str(database), config=settings), schema)
    except duckdb.Error as error:
        raise UserError(f"Cannot open {str(database)!r}: {error}") from error


def _add_scalars(connection: Any, schema: str) -> None:
    """The functions of a row, in a database of their own in memory: nothing is left in a file."""
    name = exp.to_identifier(schema, quoted=True).sql("duckdb")
    connection.execute("SET SESSION integer_division = true")  # as in PostgreSQL; for this session alone
    connection.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {name}")
    for one in SCALARS:
        names = [parameter for parameter, _ in one.parameters]
        if one.default is not None:
            names[-1] += f" := {one.default[1]}"
        connection.execute(f"CREATE OR REPLACE MACRO {name}.main.{one.name}({', '.join(names)}) AS ({one.duckdb})")
