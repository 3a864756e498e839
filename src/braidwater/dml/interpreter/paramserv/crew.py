"""Where the workers of a parameter server run: in turns, on threads or in processes, whichever is estimated to end first."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from queue import SimpleQueue
from typing import Protocol

from braidwater.dml.builtins.base import Caller
from braidwater.dml.interpreter.paramserv.steps import Pushed, Request, Steps
from braidwater.dml.interpreter.paramserv.tasks import AsTasks
from braidwater.dml.interpreter.parfor.measure import ENOUGH, Trials
from braidwater.dml.interpreter.parfor.plan import ParforPlan, Way, Work, choose
from braidwater.dml.interpreter.parfor.tasks import engine_of, workers_for
from braidwater.dml.interpreter.parfor.threads import scope_like, share_of
from braidwater.dml.values import ListValue


class Place(Protocol):
    """Runs requests, `at_once` at a time; what was sent comes back in any order."""

    at_once: int

    def send(self, request: Request) -> None: ...

    def receive(self) -> Pushed: ...

    def close(self) -> None: ...


class Crew:
    """The workers. Requests run in turns at first; where it pays, the others do at the same time. A context manager."""

    def __init__(self, steps: Steps, requests: int, wave: int, wanted: Way | None) -> None:
        parts = len(steps.rows.parts)
        self._wave = wave
        self._steps = steps
        self._left = requests
        self._workers = workers_for(steps.caller.context, parts)
        self._wanted = wanted
        self._number = 0
        self._told = 0.0
        self._updates: list[float] = []
        self._trials = Trials(steps.caller.context)
        self._place: Place = InTurns(steps)
        self.plan = ParforPlan("in turns", reason="one worker" if parts == 1 or not self._workers.some else "")
        self._decided = bool(self.plan.reason)
        if wanted is not None and not self._decided:
            self._choose()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self._place.close()

    @property
    def at_once(self) -> int:
        """How many requests run at the same time now."""
        return self._place.at_once

    def send(self, worker: int, model: ListValue, batches: Sequence[int]) -> None:
        """Ask for a worker's gradients of some of its batches."""
        self._place.send(Request(self._number, worker, model, batches))
        self._number += 1

    def receive(self) -> Pushed:
        """What one of the workers brings; their errors are raised here."""
        pushed = self._place.receive() if self._decided else self._measured()
        self._left -= 1
        for text in pushed.printed:
            self._steps.caller.context.show(text)
        return pushed

    def _measured(self) -> Pushed:
        pushed = self._trials.run(self._place.receive)
        self._told = 2.0 * sum(getattr(item, "nbytes", 8) for item in pushed.value.items)  # the model has about as many
        if self._trials.enough and (self._updates or self._trials.seconds > ENOUGH):
            self._choose()
        return pushed

    @contextmanager
    def updating(self, pushed: int) -> Iterator[None]:
        """Around an update of the server by what so many workers have brought: it is part of the plan what that takes."""
        begun = time.perf_counter()
        yield
        if not self._decided:
            self._updates.append((time.perf_counter() - begun) / pushed)

    def _choose(self) -> None:
        """Go on as the plan says: what waits is sent there."""
        rows, context = self._steps.rows, self._steps.caller.context
        self._decided = True
        left = self._left - 1 if self._trials.count else self._left
        if left < 2:
            return
        reads = float(rows.features.nbytes + rows.labels.nbytes)
        alone = min(self._updates, default=0.0)  # the first one plans its operators
        work = Work(left, self._trials.measured, reads, self._wave, self._told, alone)
        self.plan = choose(work, self._workers, self._wanted)
        if self.plan.way == "in turns":
            return
        waiting = self._place.waiting if isinstance(self._place, InTurns) else ()
        if self.plan.way == "on threads":
            self._place = OnThreads(self._steps, self.plan.workers)
        else:
            self._place = AsTasks(self._steps, self.plan.workers, engine_of(self.plan, context))
        for request in waiting:
            self._place.send(request)


class InTurns:
    """One request after the other, here, in the order they were sent."""

    at_once = 1

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.waiting: deque[Request] = deque()

    def send(self, request: Request) -> None:
        self.waiting.append(request)

    def receive(self) -> Pushed:
        return self._steps.run(self.waiting.popleft())

    def close(self) -> None:
        self.waiting.clear()


class OnThreads:
    """Each thread has an interpreter of its own; rows and models are shared."""

    def __init__(self, steps: Steps, workers: int) -> None:
        self.at_once = workers
        self._free: SimpleQueue[Steps] = SimpleQueue()
        self._done: SimpleQueue[Future[Pushed]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="braidwater-paramserv")
        steps.caller.interpreter.settle()
        self._steps = [_for_thread(steps, workers) for _ in range(workers)]
        for each in self._steps:
            self._free.put(each)

    def send(self, request: Request) -> None:
        self._threads.submit(copy_context().run, self._run, request).add_done_callback(self._done.put)

    def _run(self, request: Request) -> Pushed:
        steps = self._free.get()
        try:
            return steps.run(request)
        finally:
            self._free.put(steps)

    def receive(self) -> Pushed:
        return self._done.get().result()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for each in self._steps:
            each.caller.context.close()


def _for_thread(steps: Steps, workers: int) -> Steps:
    caller = steps.caller
    own = share_of(caller.interpreter, workers)
    own.scopes.append(scope_like(caller.interpreter.scopes[-1]))
    return replace(steps, caller=Caller(own, caller.name, caller.span))
