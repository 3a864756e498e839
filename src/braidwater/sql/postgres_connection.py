"""A session of a PostgreSQL server in which the functions can be called."""

from __future__ import annotations

from typing import Any

import psycopg
import pyarrow as pa
import sqlglot
from psycopg.pq import TransactionStatus

from braidwater.engines.postgres.sessions import open_session
from braidwater.errors import UnsupportedError
from braidwater.sql.connection import PARSED, Connection
from braidwater.sql.mistakes import PlacedError
from braidwater.sql.postgres_place import PostgresPlace, rows_to_arrow, written

APPLICATION = "braidwater sql"


class PostgresConnection(Connection):
    """Statements go to the server as they are written; our functions are run here, and what they give takes their place.

    Functions of a row (`linregr_predict` ...) are SQL functions of the server, see `braidwater.sql.postgres_scalars.install`.
    """

    def __init__(self, address: str, schema: str) -> None:
        self.schema = schema
        self._connection = open_session(address, application=APPLICATION)
        self.place = PostgresPlace(self._connection, address)

    def arrow(self) -> pa.Table:
        return pa.table({}) if self._answer is None else rows_to_arrow(self.columns, self.fetchall())

    def close(self) -> None:
        assert self.place.engine is not None
        self.place.engine.close()
        self._connection.close()

    def _run(self, text: str) -> None:
        word = text.split(None, 1)[0].lower() if text.split() else ""
        mentioned = f"{self.schema}." in text.lower() and word.startswith(PARSED)
        tree = sqlglot.parse_one(text, read="postgres") if mentioned else None
        calls = self._calls(text, tree)
        if not calls:
            self._keep(self._execute(text))
            return
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            raise UnsupportedError(
                f"{calls[0].name} reads through sessions of its own, which do not see what this transaction has not committed. "
                "COMMIT first."
            )
        assert tree is not None
        with self._connection.transaction():
            self._run_calls(calls)
            answer = self._execute(written(tree), written_by_user=False)
        self._keep(answer)

    def _keep(self, answer: psycopg.Cursor[Any]) -> None:
        self._answer = answer if answer.description is not None else None

    def _execute(self, text: str, *, written_by_user: bool = True) -> psycopg.Cursor[Any]:
        try:
            return self._connection.execute(text)
        except psycopg.Error as error:
            message = error.diag.message_primary or str(error).split("\n")[0]
            if isinstance(error, psycopg.errors.InvalidSchemaName) and self.schema in message:
                message += ". Its functions are installed by: braidwater postgres install ADDRESS"
            place = error.diag.statement_position
            raise PlacedError(message, int(place) - 1 if place and written_by_user else None) from error
