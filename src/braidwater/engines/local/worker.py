"""What a worker process for tasks does; it ends with the process that started it."""

from __future__ import annotations

import os
import queue
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
from threadpoolctl import threadpool_limits

from braidwater.errors import TaskStopped, WorkerError
from braidwater.events import Event, Metric, as_record, listen
from braidwater.options import options


def main(descriptor: int) -> None:
    """Run the tasks that come over the connection `descriptor`, answer with (value, error), until its other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the starter decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # held back by the starter until now
    connection = Connection(descriptor)
    in_force = connection.recv()
    os.environ.setdefault("OMP_NUM_THREADS", str(in_force.workers))  # for libraries that are not loaded yet
    line = _Line(connection)
    with options(**asdict(in_force)), listen(line.tell), threadpool_limits(in_force.workers):
        for packed in line.tasks():
            line.send("outcome", _run(packed, line))


class _Line:
    """The connection to the one who started this process. A thread reads it, and leaves the process when it closes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                kind, content = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # in the middle of a task too: nobody waits for it any more
            if kind == "task":
                self._tasks.put(content)
            else:
                self._answers.put(kind)

    def tasks(self) -> Iterator[bytes]:
        while True:
            yield self._tasks.get()

    def send(self, kind: str, content: object) -> None:
        try:
            self._connection.send((kind, content))
        except OSError:
            os._exit(1)

    def tell(self, event: Event) -> None:
        """Pass an event on; a metric is discussed there, and its task may end here."""
        with self._lock:
            self.send("event", as_record(event))
            if isinstance(event, Metric) and self._answers.get() == "stop":
                raise TaskStopped(f"Stopped at {event.name} = {event.value:.6g} of step {event.step}.")


def _run(packed: bytes, line: _Line) -> bytes:
    answer: tuple[Any, BaseException | None]
    try:
        function, arguments = cloudpickle.loads(packed)  # imports what the task needs
        line.send("begun", None)
        answer = (function(*arguments), None)
    except TaskStopped as error:
        answer = (None, error)
    except Exception as error:
        failure = WorkerError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        answer = (None, failure)
    try:
        found: bytes = cloudpickle.dumps(answer)
    except Exception as error:
        found = cloudpickle.dumps((None, WorkerError(f"The result cannot be handed over: {error}")))
    return found
