"""Worker processes for tasks, each beside a session of the server that carries its messages."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import ForkingPickler
from typing import Any

import psycopg

from braidwater.engines.postgres.beside import end, start, talk
from braidwater.engines.postgres.sessions import call, close_all, open_session
from braidwater.errors import BraidwaterError
from braidwater.options import Options

_PATIENCE = 15.0  # seconds that a server may take to come back, where a session was lost
_TALK_SECONDS = 2.0  # of one statement


class SessionPlaces:
    """Starts worker processes on the server's machine, at most `workers` at a time, each with a session of its own.

    A session whose process has ended is used again: the next one starts in 0.1 s, as all that it imports is there.
    """

    def __init__(self, address: str, workers: int) -> None:
        self._address = address
        self._workers = workers
        self._lost = False
        self._idle: list[psycopg.Connection[Any]] = []
        weakref.finalize(self, close_all, self._idle)

    def __call__(self, function: str, *, preload: Sequence[str] = ()) -> SessionProcess:
        while self._idle:
            session = self._idle.pop()
            if _answers(session):
                break
        else:
            session = open_session(self._address, patience=_PATIENCE if self._lost else 0.0)
        return SessionProcess(session, function, preload, self._workers, self._take_back)

    def _take_back(self, session: psycopg.Connection[Any]) -> None:
        self._lost = session.closed
        if not session.closed:
            self._idle.append(session)

    def close(self) -> None:
        """End the sessions that have no process."""
        close_all(self._idle)


def _answers(session: psycopg.Connection[Any]) -> bool:
    with suppress(psycopg.Error):
        session.execute("SELECT 1")
    return not session.closed


class SessionProcess:
    """A worker process beside a session, as `engines.local.fork_server.Process` has it. A thread carries its messages.

    Messages are answered one at a time: whoever has said something that wants an answer waits for it, so that a session's
    statements and their results are all that is needed.
    """

    def __init__(
        self,
        session: psycopg.Connection[Any],
        function: str,
        preload: Sequence[str],
        workers: int,
        take_back: Callable[[psycopg.Connection[Any]], None],
    ) -> None:
        self.connection, self._inner = Pipe()
        self.lost = ""
        self._session = session
        self._take_back = take_back
        self._code = 1
        self._killed = False
        self._thread = threading.Thread(
            target=self._run, args=(function, tuple(preload), workers), daemon=True, name="braidwater-session"
        )
        self._thread.start()

    def poll(self) -> int | None:
        return None if self._thread.is_alive() else self._code

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        return self._code

    def kill(self) -> None:
        self._killed = True
        _hang_up(self._inner)
        if self._thread.is_alive():
            with suppress(psycopg.Error):
                self._session.cancel()

    def _run(self, function: str, preload: tuple[str, ...], workers: int) -> None:
        try:
            given: Options = self._inner.recv()
            self._ask(start, function, preload, given, workers)
            self._carry()
        except (EOFError, OSError):
            pass  # nobody wants it any more
        except (psycopg.Error, BraidwaterError) as error:
            if not self._killed:
                self.lost = f"with its session: {' '.join(str(error).split())}"
        finally:
            self._end()
            self._inner.close()

    def _carry(self) -> None:
        waits = False  # for the process; else for the client
        while not self._killed:
            said = None if waits else self._inner.recv_bytes()
            found, code = self._ask(talk, said, _TALK_SECONDS)
            for message in found:
                self._inner.send_bytes(message)
            if code is not None:
                self._code = code
                return
            waits = not (found and _wants_answer(found[-1]))

    def _ask(self, function: Any, *arguments: Any) -> Any:
        return call(self._session, (function, arguments), "a task")

    def _end(self) -> None:
        """End the process beside the session; with a broken session it ends by itself."""
        for _ in range(2):  # a late cancellation may hit the first
            with suppress(psycopg.Error, BraidwaterError):
                code = self._ask(end)
                self._code = code if self._killed else self._code
                break
        self._take_back(self._session)


def _wants_answer(message: bytes) -> bool:
    """Whether the process waits for the client after this: it has ended its task, or tells a metric."""
    kind, content = ForkingPickler.loads(message)
    return bool(kind == "outcome" or (kind == "event" and content["event"] == "Metric"))


def _hang_up(connection: Connection) -> None:
    """Wake a thread that waits for a message here."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as plain:
        plain.shutdown(socket.SHUT_RDWR)
