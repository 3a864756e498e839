"""Worker processes where Spark has room for them: what `WorkerProcess` is on this machine."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Pipe, wait
from typing import Any

from braidwater.engines.spark.host import Host
from braidwater.engines.spark.line import Line, Switchboard
from braidwater.engines.spark.session import Session, new_tag
from braidwater.errors import BadSignatureError, WorkerError

_KILLED = -int(signal.SIGKILL)
_LAST_SECONDS = 2.0
_JOIN_SECONDS = 10.0  # in which a job ends by itself once its processes have


class SparkPlaces:
    """Starts worker processes on Spark: a `Start` for gangs and tasks. Use it in a ``with`` block.

    Every `together` of them are one job whose tasks run at the same time or not at all (a barrier); where that is 1, each
    is a job of its own, whose loss touches nobody else.
    """

    def __init__(self, session: Session, *, together: int = 1, what: str = "tasks") -> None:
        self._session = session
        self.together = together
        self._what = what
        self._board = Switchboard(session.host)
        self._gathered: list[SparkProcess] = []
        self._jobs: dict[str, threading.Thread] = {}
        self._processes: list[SparkProcess] = []

    def __call__(self, function: str, *, preload: Sequence[str] = ()) -> SparkProcess:
        process = SparkProcess()
        self._board.expect(process.ticket, process.take)
        self._gathered.append(process)
        if len(self._gathered) == self.together:
            gathered, self._gathered = self._gathered, []
            self._launch(gathered, function, tuple(preload))
        return process

    def _launch(self, processes: list[SparkProcess], function: str, preload: tuple[str, ...]) -> None:
        board = self._board
        tickets = tuple(process.ticket for process in processes)
        host = Host(board.host, board.port, board.key, tickets, function, preload)
        tag = new_tag(self._what)
        job = threading.Thread(target=self._run, args=(host, processes, tag), daemon=True, name=f"braidwater-{tag}")
        self._jobs[tag] = job
        self._processes += processes
        job.start()

    def _run(self, host: Host, processes: list[SparkProcess], tag: str) -> None:
        reason = "Spark ended its task"
        try:
            self._session.run(host, len(processes), tag=tag, barrier=len(processes) > 1)
        except WorkerError as error:
            reason = str(error)
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
        for process in processes:
            process.lose(reason)

    def close(self) -> None:
        """End all processes and jobs; their slots are free."""
        for process in (*self._gathered, *self._processes):
            process.kill()
        for tag, job in self._jobs.items():
            job.join(_JOIN_SECONDS if all(one.called for one in self._processes) else 0.5)
            if job.is_alive():
                self._session.cancel(tag)
                job.join(_JOIN_SECONDS)
        self._jobs.clear()
        self._board.close()

    def __enter__(self) -> SparkPlaces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SparkProcess:
    """A worker process on Spark, with the methods of `WorkerProcess`. A thread carries its messages."""

    def __init__(self) -> None:
        self.ticket = uuid.uuid4().hex
        self.lost = ""
        self.called = False
        self.connection, self._theirs = Pipe()
        self._code = _KILLED
        self._ended = threading.Event()
        self._told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wake, self._woken = os.pipe()[::-1]
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._carry, daemon=True, name="braidwater-line")
        self._thread.start()

    def take(self, line: Line, host: str) -> None:
        """It has called."""
        self.called = True
        self._host = host
        self._tell(line)

    def lose(self, reason: str) -> None:
        """Spark's job is over, and with it the process, if it had not ended before."""
        self._tell(reason)

    def poll(self) -> int | None:
        return self._code if self._ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("a worker on Spark", timeout or 0)
        self._thread.join()
        return self._code

    def kill(self) -> None:
        """Cut its line: the task that holds it kills it when it sees that."""
        if not self._ended.is_set():
            self._tell(None)
            with suppress(OSError), socket.socket(fileno=os.dup(self._theirs.fileno())) as pair:
                pair.shutdown(socket.SHUT_RDWR)  # the thread may be in the middle of a message that nobody reads

    def _tell(self, what: object) -> None:
        with self._lock:
            if not self._ended.is_set():
                self._told.put(what)
                os.write(self._wake, b"x")

    def _carry(self) -> None:
        line: Line | None = None
        try:
            while True:
                ready: list[Any] = wait([self._woken] if line is None else [self._woken, line.fileno(), self._theirs])
                if line is not None and line.fileno() in ready:
                    if self._heard(line):
                        return
                elif self._woken in ready:
                    os.read(self._woken, 1)
                    told = self._told.get()
                    if not isinstance(told, Line):
                        self._last_words(line, told)
                        return
                    line = told
                elif line is not None:
                    line.send("m", self._theirs.recv_bytes())
        except (EOFError, OSError):
            pass
        finally:
            self._end(line)

    def _last_words(self, line: Line | None, reason: str | None) -> None:
        """It was killed, or its job is over: how it ended may still be on its way, by another road than the job's end."""
        if line is not None and reason is not None:
            while wait([line.fileno()], _LAST_SECONDS):
                if self._heard(line):
                    return
        self.lost = reason or ""

    def _heard(self, line: Line) -> bool:
        """Take a message; whether it was the last."""
        try:
            kind, content = line.receive()
        except BadSignatureError as error:
            self.lost = str(error)
            return True
        except (EOFError, OSError):
            self.lost = f"the line to its place on {self._host} broke: Spark's executor or Python worker there was lost"
            return True
        if kind == "e":
            self._code = int(content)
            return True
        self._theirs.send_bytes(content)
        return False

    def _end(self, line: Line | None) -> None:
        if line is not None:
            line.close()
        with self._lock:
            self._ended.set()
            self._theirs.close()
            os.close(self._wake)
            os.close(self._woken)
