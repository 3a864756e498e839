"""Connections to a PostgreSQL server through ADBC, and what its errors mean."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, NamedTuple

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc

from braidwater.errors import CancelledError, TableError, TableNotFoundError, WorkerLostError

READER = "braidwater reader"  # the application name of connections that only read
_RECENT = 0.5  # seconds for which an idle connection is taken for alive


class Connections:
    """Read-only ADBC connections to one database, lent to one thread at a time and used again."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._idle: list[_Idle] = []
        self._lock = Lock()
        weakref.finalize(self, _close_all, self._idle)

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A cursor whose statements are read-only transactions of their own."""
        connection = self._waiting() or self._connect()
        try:
            with connection.cursor() as cursor:
                yield cursor
        except BaseException:
            connection.close()  # a stream may be half read, or the server gone
            raise
        with self._lock:
            self._idle.append(_Idle(connection, time.monotonic()))

    def _waiting(self) -> Any:
        """An idle connection; None where there is none, or the server has ended those that there were."""
        with self._lock:
            found = self._idle.pop() if self._idle else None
        if found is None:
            return None
        try:
            if time.monotonic() - found.since > _RECENT:  # to ask costs more than most statements
                with found.connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
        except adbc_driver_manager.Error:
            _close_all([found])
            _close_all(self._idle)
            return None
        return found.connection


class _Idle(NamedTuple):
    """A connection that nobody uses, and since when (monotonic seconds)."""

    connection: Any
    since: float


def _close_all(idle: list[_Idle]) -> None:
    while idle:
        with suppress(adbc_driver_manager.Error):
            idle.pop().connection.close()


def connect(address: str) -> Any:
    """An ADBC connection that only reads."""
    try:
        return prepared(adbc.connect(address))
    except adbc_driver_manager.Error as error:
        raise told(error, "PostgreSQL") from error


def writing_connection(address: str) -> Any:
    """An ADBC connection that may write; nothing is committed unless it is told to."""
    try:
        return adbc.connect(address)
    except adbc_driver_manager.Error as error:
        raise told(error, "PostgreSQL") from error


def prepared(connection: Any) -> Any:
    connection.adbc_connection.set_autocommit(True)  # else it would be "idle in transaction" for as long as it waits
    with connection.cursor() as cursor:
        cursor.execute(f"SET application_name = '{READER}'")
        cursor.execute("SET default_transaction_read_only = on")
    return connection


def address_of(connection: Any) -> str:
    """The connection string of a psycopg connection, its password included."""
    from psycopg.conninfo import make_conninfo

    password = connection.info.password
    return make_conninfo(connection.info.dsn, **({"password": password} if password else {}))


def told(error: Exception, what: str, statement: str = "") -> Exception:
    """The error of a driver as one of ours, with what to do about it."""
    state = getattr(error, "sqlstate", None) or ""
    text = " ".join(str(error).split())
    after = f"\nThe statement was: {statement}" if statement else ""
    low = text.lower()
    if "password authentication failed" in low or "no password supplied" in low:
        return TableError(
            f"{what}: the server refused the password ({text}). Put the right one into the address or ~/.pgpass."
        )
    if "failed to connect" in low or state.startswith("08001") or "connection refused" in low:
        return TableError(f"{what}: no connection to the server ({text}). Is it running, and is the address right?")
    if state == "42501":
        return TableError(
            f"{what}: no permission ({text}). Ask the owner for GRANT SELECT ON TABLE … TO your role.{after}"
        )
    if state in ("42P01", "3F000"):
        return TableNotFoundError(f"{what}: {text}{after}")
    if state == "57014":
        return CancelledError(f"{what}: the statement was cancelled ({text}).{after}")
    if state in ("57P01", "57P02", "57P03") or state.startswith("08") or "server closed the connection" in low:
        return WorkerLostError(f"{what}: the server ended the connection ({text}).")
    return TableError(f"{what}: {text}{after}")
