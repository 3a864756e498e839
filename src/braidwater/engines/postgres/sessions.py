"""Sessions of the server as workers: opened once, kept for as long as the engine lives, each used by one thread."""

from __future__ import annotations

import json
import select
import sys
import sysconfig
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import cloudpickle
import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from braidwater.engines.once import Once, exchange
from braidwater.engines.postgres.server import SCHEMA
from braidwater.engines.postgres.session import MOST_BYTES, TOO_LARGE, Failure
from braidwater.errors import (
    BraidwaterError,
    CancelledError,
    TableError,
    UnsupportedError,
    WorkerError,
    WorkerLostError,
)
from braidwater.options import format_bytes
from braidwater.tables.postgres_session import READER, told

Shared = WeakValueDictionary[str, Once[Any]]

_INSTALLED = ("site-packages", "dist-packages", sysconfig.get_paths()["stdlib"], str(Path(__file__).parents[2]))
PATIENCE = 15.0  # seconds that a server may take to come back
_CALL = sql.SQL("SELECT {}.call(%b)").format(sql.Identifier(SCHEMA))

_PLACE = (
    "SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || d.oid FROM pg_database d "
    "WHERE d.datname = current_database()"
)

# out of the catalogue: to_regprocedure fails for a schema that one may not use
_PERMISSIONS = """
SELECT f.oid IS NOT NULL,
  has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(f.oid, 'EXECUTE'),
  CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE') ELSE has_schema_privilege(n.oid, 'CREATE') END
FROM (SELECT %s::text AS name) AS named LEFT JOIN pg_namespace n ON n.nspname = named.name
LEFT JOIN pg_proc f ON f.pronamespace = n.oid AND f.proname = 'call'
"""


# from PostgreSQL 14 on: the statement of a client that was killed ends, and does not train on for nobody
_LOOK_FOR_CLIENT = (
    "SELECT set_config(name, '2s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'"
)


def open_session(address: str, *, patience: float = 0.0, application: str = READER) -> psycopg.Connection[Any]:
    """A connection in autocommit mode; a server that is starting again is waited for, `patience` seconds at most."""
    until = time.monotonic() + patience
    while True:
        try:
            session = psycopg.connect(address, autocommit=True, application_name=application, connect_timeout=10)
            with suppress(psycopg.errors.InvalidParameterValue):  # of a platform that cannot tell
                session.execute(_LOOK_FOR_CLIENT)
            return session
        except psycopg.Error as error:
            if time.monotonic() >= until or "password" in str(error):
                raise told(error, "PostgreSQL") from error
            time.sleep(0.2)


def place_of(session: psycopg.Connection[Any]) -> str:
    """Which database of which server a session is of; as `PostgresTable.place`."""
    row = session.execute(_PLACE).fetchone()
    return "" if row is None else str(row[0])


@dataclass(frozen=True)
class Permissions:
    """Whether braidwater is installed in a database, and whether this role may run its functions and keep packed blocks."""

    installed: bool
    call: bool
    keep: bool


def permissions(session: psycopg.Connection[Any]) -> Permissions:
    """What the role of a session may do."""
    row = session.execute(_PERMISSIONS, [SCHEMA]).fetchone()
    assert row is not None
    return Permissions(*map(bool, row))


class Sessions:
    """The sessions of one engine. `lead` is the first; the others are opened when they are needed."""

    def __init__(self, address: str, size: int) -> None:
        self._address = address
        self.size = size
        self._open: list[psycopg.Connection[Any]] = []
        self._opening = Lock()
        # what each session has of values that travel once, for as long as somebody here has them too
        self._shared: WeakKeyDictionary[psycopg.Connection[Any], Shared] = WeakKeyDictionary()
        weakref.finalize(self, close_all, self._open)

    @property
    def lead(self) -> psycopg.Connection[Any]:
        return self.take(1)[0]

    @property
    def warm(self) -> int:
        """How many are open."""
        return sum(not session.closed for session in self._open)

    def take(self, count: int) -> list[psycopg.Connection[Any]]:
        """So many of them, in their order; those that were lost are opened anew, once the server answers."""
        with self._opening:
            self._open_more(count - len(self._open))
        return [self._at(place) for place in range(count)]

    def _open_more(self, count: int) -> None:
        if count <= 1:
            self._open += [open_session(self._address) for _ in range(count)]
            return
        with ThreadPoolExecutor(count, "braidwater-postgres") as pool:
            opening = [pool.submit(open_session, self._address) for _ in range(count)]
        self._open += [one.result() for one in opening if one.exception() is None]
        for one in opening:
            one.result()  # the error of one that failed

    def _at(self, place: int) -> psycopg.Connection[Any]:
        """One that was opened before. Threads that each ask for one of their own do not wait for each other."""
        if _has_ended(self._open[place]):
            self._open[place] = open_session(self._address, patience=PATIENCE)
        return self._open[place]

    def cancel(self, place: int) -> None:
        """End the statement that runs on one of them, if any does."""
        with suppress(psycopg.Error):
            self._open[place].cancel()

    def come_back(self) -> None:
        """Open what was lost again, once the server answers."""
        for session in self._open:
            with suppress(psycopg.Error):
                session.execute("SELECT 1")
        self.take(max(len(self._open), 1))

    def call(self, requests: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Run ``(function, arguments)`` on a session each, all at once: the number of each and its value, as they end.

        The first error cancels the others; leaving early does so too.
        """
        sessions = self.take(len(requests))
        with ThreadPoolExecutor(len(requests), "braidwater-postgres") as pool:
            running = {
                pool.submit(self._call, session, self._request(session, request), number): number
                for number, (session, request) in enumerate(zip(sessions, requests, strict=True))
            }
            try:
                for done in as_completed(running):
                    yield running[done], done.result()
            except BaseException:
                for number in range(len(sessions)):
                    self.cancel(number)
                raise

    def ask(self, number: int, request: Any) -> Any:
        """The value of ``(function, arguments)`` on one session."""
        session = self._at(number) if number < len(self._open) else self.take(number + 1)[number]
        return self._call(session, self._request(session, request), number)

    def _request(self, session: psycopg.Connection[Any], request: Any) -> bytes:
        shared = self._shared.setdefault(session, WeakValueDictionary())
        names = json.dumps(list(shared)).encode()
        with exchange(shared):
            return names + b"\n" + request_of(request)

    def _call(self, session: psycopg.Connection[Any], request: bytes, worker: int) -> Any:
        try:
            with exchange(self._shared[session]):
                return _answer(session, request, f"session {worker}")
        except BaseException:
            self._shared[session].clear()  # nobody knows what it got of the request
            raise

    def close(self) -> None:
        """End all sessions."""
        close_all(self._open)


def _has_ended(session: psycopg.Connection[Any]) -> bool:
    """Whether a session is closed, here or by the server, which says so without being asked."""
    idle = not session.closed and session.info.transaction_status == TransactionStatus.IDLE
    if idle and select.select([session.fileno()], [], [], 0)[0]:
        with suppress(psycopg.Error):
            session.execute("SELECT 1")
    return session.closed


def close_all(sessions: list[psycopg.Connection[Any]]) -> None:
    """End sessions, and leave none in the list."""
    while sessions:
        with suppress(psycopg.Error):
            sessions.pop().close()


def call(session: psycopg.Connection[Any], request: Any, worker: str) -> Any:
    """The value of ``(function, arguments)`` on a session, which shares nothing with us."""
    return _answer(session, b"[]\n" + request_of(request), worker)


def _answer(session: psycopg.Connection[Any], request: bytes, worker: str) -> Any:
    if len(request) > MOST_BYTES:
        raise UnsupportedError(f"A request of {format_bytes(len(request))} does not fit. {TOO_LARGE}")
    row = execute(session, _CALL, [request], binary=True).fetchone()
    assert row is not None
    return opened(row[0], worker)


_pickling = Lock()


def request_of(value: Any) -> bytes:
    """A pickle that the server can open: what lies in modules of the user's own, which it cannot import, goes by value."""
    with _pickling:  # which modules go by value holds for all threads
        return _pickled(value)


def _pickled(value: Any) -> bytes:
    own = _own_modules(frozenset(sys.modules))
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(value))
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


@lru_cache(1)  # to look at all of them takes milliseconds, and a pass in the server not many more
def _own_modules(names: frozenset[str]) -> list[ModuleType]:
    """Those of the modules `names` that the server cannot import."""
    return [module for name in names if name != "__main__" and _is_own(module := sys.modules[name])]


def _is_own(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None) or ""
    return bool(file) and not any(place in file for place in _INSTALLED)


def execute(
    session: psycopg.Connection[Any], statement: sql.Composable, values: Sequence[Any] = (), *, binary: bool = False
) -> psycopg.Cursor[Any]:
    """Run a statement; the server's errors as ours."""
    try:
        return session.execute(statement, values, binary=binary)  # type: ignore[call-overload, no-any-return]
    except psycopg.Error as error:
        raise of_server(error) from error


def of_server(error: psycopg.Error) -> BraidwaterError:
    """An error of the server, with what to do about it."""
    text = str(error)
    if isinstance(error, psycopg.InterfaceError) or (
        isinstance(error, psycopg.OperationalError) and not error.sqlstate
    ):
        return WorkerLostError(f"PostgreSQL ended a session: {' '.join(text.split())}")
    if isinstance(error, psycopg.errors.QueryCanceled):
        return CancelledError(f"PostgreSQL cancelled a statement: {' '.join(text.split())}")
    if isinstance(error, (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName)):
        return UnsupportedError("braidwater is not installed in this database: braidwater postgres install ADDRESS.")
    if "ModuleNotFoundError" in text or "ImportError" in text:
        return UnsupportedError(
            f"The server's Python cannot import what is needed ({' '.join(text.split())}). "
            "`braidwater postgres doctor ADDRESS` says what is missing."
        )
    found = told(error, "PostgreSQL")
    return found if isinstance(found, BraidwaterError) else TableError(text)


def opened(answer: bytes, worker: str) -> Any:
    """The value of an answer; an error of the worker is raised, with the worker, the block and its trace."""
    value = cloudpickle.loads(answer)
    if not isinstance(value, Failure):
        return value
    place = f"{worker} of the server, {value.where}"
    if isinstance(value.error, BraidwaterError):
        value.error.add_note(f"In {place}.")
        raise value.error
    raise WorkerError(f"{type(value.error).__name__}: {value.error} (in {place})\n{value.trace}") from value.error
