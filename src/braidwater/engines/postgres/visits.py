"""Tasks that go to where rows stay: each is a visit to the session that has its part, and a thread here waits for its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field

from braidwater.engines.base import Outcome, RunningTasks, Task
from braidwater.engines.postgres.sessions import Sessions
from braidwater.engines.postgres.visit import Part, Visited, visit
from braidwater.errors import OptionError, TaskTimeoutError, WorkerLostError
from braidwater.events import TaskEvent, WorkerLost, emit

_MOVES = 3  # times that a visit is begun anew because its session was lost, whatever its `retries`
_LOOK_SECONDS = 0.2  # between two tries to end a statement, which may not have begun when it is cancelled

PartsOf = Callable[[int, bool], Sequence[Part]]


@dataclass
class _Visit:
    """A task under way."""

    task: Task
    worker: int
    attempts: int = 1
    begun: float = field(default_factory=time.perf_counter)
    late: bool = False

    @property
    def left(self) -> float | None:
        """Seconds until it has to be ended."""
        return None if self.task.timeout is None else self.begun + self.task.timeout - time.perf_counter()


class VisitTasks(RunningTasks):
    """Tasks on `workers` sessions (see `Engine.visits`).

    `parts_of` a worker are what its tasks are given; where it is told that a session was lost it looks whether they are
    still there.
    """

    def __init__(self, tasks: Iterable[Task | None], sessions: Sessions, workers: int, parts_of: PartsOf) -> None:
        sessions.take(workers)
        self._waiting: Iterator[Task | None] = iter(tasks)
        self._sessions = sessions
        self._parts_of = parts_of
        self._pool = ThreadPoolExecutor(workers, "braidwater-visit")
        self._free = set(range(workers))
        self._under_way: dict[Future[Visited], _Visit] = {}
        self._ended = False

    def __iter__(self) -> VisitTasks:
        return self

    def __next__(self) -> Outcome:
        while True:
            self._fill()
            if not self._under_way:
                self.close()
                raise StopIteration
            for future in self._completed():
                outcome = self._take(future)
                if outcome is not None:
                    return outcome

    def stop(self, name: str) -> None:
        """Nothing to do: what it emits is heard when it has ended."""

    def close(self) -> None:
        self._ended = True
        while self._under_way:
            for one in self._under_way.values():
                self._sessions.cancel(one.worker)
            done, _ = wait(self._under_way, _LOOK_SECONDS)
            for future in done:
                del self._under_way[future]
        self._pool.shutdown()

    def _fill(self) -> None:
        while not self._ended and self._free:
            try:
                task = next(self._waiting)
            except StopIteration:
                self._ended = True
                return
            if task is None:
                return
            if task.worker not in self._free:
                raise OptionError("worker", task.worker, "the number of a worker that has nothing to do")
            self._free.discard(task.worker)
            self._start(_Visit(task, task.worker))

    def _start(self, one: _Visit) -> None:
        self._under_way[self._pool.submit(copy_context().run, self._run, one)] = one

    def _run(self, one: _Visit) -> Visited:
        parts = self._parts_of(one.worker, one.attempts > 1)
        found: Visited = self._sessions.ask(one.worker, (visit, (parts, one.task.function, one.task.arguments)))
        return found

    def _completed(self) -> list[Future[Visited]]:
        """Visits that have ended, once there are any. Those that are too late are made to."""
        while True:
            left = [seconds for one in self._under_way.values() if (seconds := one.left) is not None]
            done, running = wait(self._under_way, max(min(left), _LOOK_SECONDS) if left else None, FIRST_COMPLETED)
            if done:
                return list(done)
            for future in running:
                one = self._under_way[future]
                if one.left is not None and one.left <= 0:
                    one.late = True
                    self._sessions.cancel(one.worker)

    def _take(self, future: Future[Visited]) -> Outcome | None:
        """How a visit has ended; None where it is begun anew."""
        one = self._under_way.pop(future)
        error = future.exception()
        if isinstance(error, WorkerLostError):
            again = one.attempts <= max(one.task.retries, _MOVES)
            emit(WorkerLost(worker=one.worker, reason=f"{error}, in task {one.task.name!r}", restart=again))
            if again:
                self._start(_Visit(one.task, one.worker, one.attempts + 1))
                return None
        self._free.add(one.worker)
        seconds = time.perf_counter() - one.begun
        if error is None:
            visited = future.result()
            for event in visited.events:
                emit(TaskEvent(task=one.task.name, worker=one.worker, told=event, time=event.time))
            return Outcome(one.task, visited.value, None, seconds, one.worker, one.attempts)
        if one.late:
            error = TaskTimeoutError(
                f"Task {one.task.name!r} took longer than its {one.task.timeout:g} seconds and was ended."
            )
        return Outcome(one.task, None, error, seconds, one.worker, one.attempts)
