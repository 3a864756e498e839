"""Tasks on worker processes: independent, restarted when they die, none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import wait

import cloudpickle

from braidwater.engines.base import Outcome, RunningTasks, Task
from braidwater.engines.local.fork_server import Start, WorkerProcess
from braidwater.errors import OptionError, TaskTimeoutError, WorkerLostError
from braidwater.events import Metric, TaskEvent, WorkerLost, emit, from_record
from braidwater.options import Options, current_options

_LEAST_MEMORY = 32 * 10**6  # that `Options` accepts
_MOVES = 3  # times that a task is begun anew because the machine of its worker was lost, whatever its `retries`
_SLOW_TO_IMPORT = ("numpy", "scipy.sparse", "scipy.linalg", "pyarrow", "duckdb", "numba", "sklearn", "torch", "torch._dynamo",
                   "torchmetrics", "braidwater.dml")  # fmt: skip


class LocalTasks(RunningTasks):
    """Tasks on at most `workers` processes at a time (see `Engine.tasks`).

    A process takes one task after another; one that dies is replaced. The first takes seconds to start, later ones 0.1 s
    (see `fork_server`), a task 0.2 ms. When this process is gone they leave by themselves.
    """

    def __init__(self, tasks: Iterable[Task | None], workers: int, start: Start = WorkerProcess) -> None:
        self._pool = _Pool(workers, start)
        # a generator that does not know `self`: dropping the last reference ends the workers at once
        self._outcomes = _outcomes(self._pool, iter(tasks))

    def __iter__(self) -> LocalTasks:
        return self

    def __next__(self) -> Outcome:
        return next(self._outcomes)

    def stop(self, name: str) -> None:
        for worker in self._pool.busy:
            if worker.task is not None and worker.task.name == name:
                worker.stopping = True

    def close(self) -> None:
        self._outcomes.close()
        self._pool.stop()


def _outcomes(pool: _Pool, waiting: Iterator[Task | None]) -> Generator[Outcome, None, None]:
    try:
        while True:
            pool.fill(waiting)
            if not pool.busy:
                return
            yield pool.next_outcome()
    finally:
        pool.stop()


class _Pool:
    """The worker processes of one call, and the pump that takes their messages."""

    def __init__(self, size: int, start: Start) -> None:
        self._start = start
        self._options = _share_of_options(size)
        self._free = list(reversed(range(size)))  # places without a process
        self._workers: list[_Worker] = []
        self._ended = False

    @property
    def busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.task is not None]

    def fill(self, waiting: Iterator[Task | None]) -> None:
        """Give free workers something to do, as long as there is something."""
        while not self._ended and (self._free or len(self.busy) < len(self._workers)):
            try:
                task = next(waiting)
            except StopIteration:
                self._ended = True
                return
            if task is None:
                return
            self._idle_worker(task.worker).give(task)

    def _idle_worker(self, number: int | None) -> _Worker:
        """A worker without a task, started where there is none; the one of this number, where a task asks for it."""
        for worker in self._workers:
            if worker.task is None and number in (None, worker.number):
                return worker
        if number is not None and number not in self._free:
            raise OptionError("worker", number, "the number of a worker that has nothing to do")
        self._free.remove(number := self._free[-1] if number is None else number)
        self._workers.append(_Worker(number, self._options, self._start))
        return self._workers[-1]

    def next_outcome(self) -> Outcome:
        """Pump messages until a task has ended for good."""
        while True:
            by_connection = {worker.connection: worker for worker in self.busy}
            deadline = min(worker.deadline for worker in self.busy)
            limit = None if deadline == float("inf") else max(deadline - time.perf_counter(), 0.0)
            for connection in wait(list(by_connection), limit):
                outcome = self._take(by_connection[connection])  # type: ignore[index]
                if outcome is not None:
                    return outcome
            for worker in self.busy:
                if time.perf_counter() >= worker.deadline:
                    return self._too_late(worker)

    def _take(self, worker: _Worker) -> Outcome | None:
        task = worker.task
        assert task is not None
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            return self._lost(worker, task)
        if kind == "begun":
            worker.begin()
            return None
        if kind == "event":
            event = from_record(content)
            emit(TaskEvent(task=task.name, worker=worker.number, told=event, time=event.time))
            if isinstance(event, Metric):
                worker.answer()
            return None
        value, error = cloudpickle.loads(content)
        return worker.outcome(value, error)

    def _lost(self, worker: _Worker, task: Task) -> Outcome | None:
        """The process died: the task is begun anew, or has ended so."""
        reason = worker.end()
        self._remove(worker)
        again = worker.attempts <= (max(task.retries, _MOVES) if worker.place_lost else task.retries)
        emit(WorkerLost(worker=worker.number, reason=f"{reason}, in task {task.name!r}", restart=again))
        if not again:
            times = "" if worker.attempts == 1 else f" It was begun {worker.attempts} times."
            return worker.outcome(
                None, WorkerLostError(f"Task {task.name!r}: worker {worker.number} died {reason}.{times}")
            )
        self._idle_worker(task.worker).give(task, worker.attempts + 1)
        return None

    def _too_late(self, worker: _Worker) -> Outcome:
        task = worker.task
        assert task is not None
        worker.stop()
        self._remove(worker)
        reason = f"Task {task.name!r} took longer than its {task.timeout:g} seconds and was ended."
        return worker.outcome(None, TaskTimeoutError(reason))

    def _remove(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._free.append(worker.number)

    def stop(self) -> None:
        """End all processes."""
        self._ended = True
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.stop()
        self._workers.clear()


class _Worker:
    """A process that runs one task after another. It is started as a program of its own, so that scripts need no guard."""

    def __init__(self, number: int, options: Options, start: Start) -> None:
        self.number = number
        self.task: Task | None = None
        self.attempts = 0
        self.stopping = False
        self.deadline = float("inf")
        self._begun = 0.0
        preload = [name for name in _SLOW_TO_IMPORT if name in sys.modules]  # a task needs what its starter needed
        self._process = start("braidwater.engines.local.worker:main", preload=preload)
        self.connection = self._process.connection
        with suppress(OSError):
            self.connection.send(options)

    def give(self, task: Task, attempts: int = 1) -> None:
        packed = cloudpickle.dumps((task.function, task.arguments))
        self.task, self.attempts, self.stopping = task, attempts, False
        self.deadline, self._begun = float("inf"), time.perf_counter()
        with suppress(OSError):  # it died at once: who waits for its messages finds out
            self.connection.send(("task", packed))

    def begin(self) -> None:
        """The process has started and imported what its task needs: the time of the task runs from now on."""
        self._begun = time.perf_counter()
        if self.task is not None and self.task.timeout is not None:
            self.deadline = self._begun + self.task.timeout

    def answer(self) -> None:
        """Let the task that emitted a metric go on, or stop it."""
        with suppress(OSError):
            self.connection.send(("stop" if self.stopping else "go on", None))

    def outcome(self, value: object, error: BaseException | None) -> Outcome:
        """How the task ended that it had."""
        task, self.task = self.task, None
        assert task is not None
        self.deadline = float("inf")
        return Outcome(task, value, error, time.perf_counter() - self._begun, self.number, self.attempts)

    @property
    def place_lost(self) -> bool:
        """Whether not the process died but its place: on another machine, that is none of the task's doing."""
        return bool(self._process.lost)

    def end(self) -> str:
        """How the process, whose connection has broken, ended."""
        self.connection.close()
        try:
            code = self._process.wait(5)
            return self._process.lost or _how(code)
        except subprocess.TimeoutExpired:
            self.kill()
            return "without a word"

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        self.kill()
        self._process.wait()
        self.connection.close()


def _share_of_options(workers: int) -> Options:
    """What one of `workers` processes may use of what is in force here."""
    whole = current_options()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = max(whole.memory // workers, _LEAST_MEMORY)
    return replace(whole, workers=max(cores // workers, 1), memory=memory)


def _how(code: int) -> str:
    if code < 0:
        return f"of signal {signal.Signals(-code).name}" + (
            " (out of memory, or killed)" if code == -signal.SIGKILL else ""
        )
    return f"with exit code {code}"
