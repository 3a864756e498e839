"""Tasks on worker processes: independent, restarted when they die, none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import cloudpickle

from braidwater.engines.base import Outcome, Task
from braidwater.errors import WorkerError, WorkerLostError


def run_tasks(tasks: Iterable[Task], workers: int) -> Iterator[Outcome]:
    """The outcome of every task as it completes, on at most `workers` processes at a time.

    Tasks are taken from `tasks` as workers become free. A worker that dies gives its task a `WorkerLostError` as outcome,
    and another takes its place. Leaving the iterator early stops all workers.
    """
    waiting = iter(tasks)
    pool: list[_Worker] = []
    try:
        for number in range(workers):
            task = next(waiting, None)
            if task is None:
                break
            pool.append(_Worker(number))
            pool[-1].give(task)
        while busy := [worker for worker in pool if worker.task is not None]:
            ready = wait([worker.connection for worker in busy])
            for worker in [w for w in busy if w.connection in ready]:
                yield worker.take()
                task = next(waiting, None)
                if task is not None:
                    if not worker.alive:
                        pool.remove(worker)
                        worker = _Worker(worker.number)
                        pool.append(worker)
                    worker.give(task)
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    """A process that runs one task after another. It is started as a program of its own, so that scripts need no guard."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.task: Task | None = None
        self.alive = True
        self._begun = 0.0
        self.connection, theirs = Pipe()
        command = [sys.executable, "-m", "braidwater.engines.local.worker", str(theirs.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL)
        theirs.close()

    def give(self, task: Task) -> None:
        self.task = task
        self._begun = time.perf_counter()
        with suppress(OSError):  # it died at once: `take` finds out
            self.connection.send_bytes(cloudpickle.dumps((task.function, task.arguments)))

    def take(self) -> Outcome:
        """The outcome of the task that it had."""
        task, self.task = self.task, None
        assert task is not None
        seconds = time.perf_counter() - self._begun
        try:
            value, error = cloudpickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.alive = False
            value, error = (
                None,
                WorkerLostError(f"Task {task.name!r}: worker {self.number} died {_how(self._process.wait())}."),
            )
        return Outcome(task, value, error, seconds, self.number)

    def stop(self) -> None:
        self.connection.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _how(code: int) -> str:
    if code < 0:
        return f"of signal {signal.Signals(-code).name}" + (
            " (out of memory, or killed)" if code == -signal.SIGKILL else ""
        )
    return f"with exit code {code}"


def serve(connection: Connection) -> None:
    """What a worker process does: run what comes, answer with (value, error), until the other end closes."""
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        answer: tuple[Any, BaseException | None]
        try:
            function, arguments = cloudpickle.loads(message)
            answer = (function(*arguments), None)
        except Exception as error:
            answer = (None, WorkerError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))
        try:
            packed = cloudpickle.dumps(answer)
        except Exception as error:
            packed = cloudpickle.dumps((None, WorkerError(f"The result cannot be handed over: {error}")))
        connection.send_bytes(packed)
