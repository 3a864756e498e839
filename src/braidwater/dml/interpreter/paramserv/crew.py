"""Where the workers of a parameter server run: in turns, on threads or in processes, whichever is estimated to end first."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from braidwater.dml.builtins.base import Caller
from braidwater.dml.context import Context
from braidwater.dml.interpreter.paramserv.steps import Pushed, Request, Rows, Steps
from braidwater.dml.interpreter.parfor.plan import Measured, ParforPlan, Share, Way, choose
from braidwater.dml.interpreter.parfor.processes import opened, processes_run
from braidwater.dml.interpreter.parfor.threads import scope_like, share_of
from braidwater.dml.runtime.workers import blas
from braidwater.dml.syntax import Span
from braidwater.dml.values import ListValue
from braidwater.errors import DMLError
from braidwater.options import current_options, options

TRIED = 0.05  # seconds of steps in turns, two at least, before there is a plan
MESSAGE = 0.001  # seconds of a request to a process, and of its answer
COPIED = 2e-9  # seconds of a byte in them


class Place(Protocol):
    """Runs requests, `at_once` at a time; what was sent comes back in any order."""

    at_once: int

    def send(self, request: Request) -> None: ...

    def receive(self) -> Pushed: ...

    def close(self) -> None: ...


class Crew:
    """The workers. Requests run in turns at first; where it pays, the others do at the same time. A context manager."""

    def __init__(self, steps: Steps, requests: int, workers: int, wanted: Way | None) -> None:
        self._steps = steps
        self._left = requests
        self._workers = min(workers, len(steps.rows.parts))
        self._wanted = wanted
        self._number = self._tried = 0
        self._seconds = 0.0
        self._place: Place = InTurns(steps)
        self.plan = ParforPlan("in turns", reason="one worker" if self._workers < 2 else "")
        self._decided = bool(self.plan.reason)
        if wanted is not None and not self._decided:
            self._choose(Measured(0.0, 0.0, 0.0), 0)

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
        context = self._steps.caller.context
        before, share = context.statistics, Share(context.statistics)
        context.statistics = share
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            pushed = self._place.receive()
        finally:
            context.statistics = before
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self._tried += 1
        self._seconds += wall
        if self._tried > 1 and self._seconds > TRIED:
            self._choose(Measured(wall, cpu, min(share.large / max(wall, 1e-9), 1.0)), _bytes(pushed))
        return pushed

    def _choose(self, measured: Measured, message: int) -> None:
        """Go on as the plan says: what waits is sent there."""
        rows = self._steps.rows
        sent = float(rows.features.nbytes + rows.labels.nbytes)
        told = MESSAGE + COPIED * message
        self._decided = True
        if self._left < 2:
            return
        self.plan = choose(self._left, self._workers, measured, sent, processes_run(), self._wanted, told)
        waiting = self._place.waiting if isinstance(self._place, InTurns) else ()
        if self.plan.way != "in turns":
            make = OnThreads if self.plan.way == "on threads" else InProcesses
            self._place = make(self._steps, self.plan.workers)
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


@dataclass(frozen=True)
class Site:
    """What a process needs to know of the script, and where the rows lie."""

    folder: str
    functions: dict[str, tuple[str, str, Path, str]]  # text, file and directory of the module, name
    library: tuple[Path, ...]
    arguments: dict[str, Any]
    context: dict[str, Any]
    hyperparams: ListValue
    parts: Sequence[Any]
    batch_size: int
    whole: bool
    seed: int
    span: Span


class InProcesses:
    """Processes of the local engine, which read the script anew and map the rows from a file."""

    def __init__(self, steps: Steps, workers: int) -> None:
        from braidwater.engines.local import LocalEngine

        self.at_once = workers
        steps.caller.interpreter.settle()
        place = current_options().cache_directory / "paramserv"
        place.mkdir(parents=True, exist_ok=True)
        self._folder = TemporaryDirectory(dir=place)
        self._site = _site(steps, self._folder.name, workers)
        np.save(Path(self._folder.name) / "features.npy", steps.rows.features)
        np.save(Path(self._folder.name) / "labels.npy", steps.rows.labels)
        self._waiting: deque[Request] = deque()
        with options(workers=workers):
            self._outcomes = LocalEngine().tasks(self._tasks())

    def _tasks(self) -> Iterator[Any]:
        from braidwater.engines.base import Task

        while True:
            if self._waiting:
                request = self._waiting.popleft()
                yield Task(f"paramserv, worker {request.worker + 1}", run_request, (self._site, request))
            else:
                yield None

    def send(self, request: Request) -> None:
        self._waiting.append(request)

    def receive(self) -> Pushed:
        outcome = next(self._outcomes)
        error = outcome.error or outcome.value.error
        if error is not None:
            raise error
        pushed: Pushed = outcome.value
        return pushed

    def close(self) -> None:
        self._outcomes.close()
        self._folder.cleanup()


def _site(steps: Steps, folder: str, workers: int) -> Site:
    interpreter, rows = steps.caller.interpreter, steps.rows
    context = interpreter.context
    functions = {
        which: (function.span.source.text, module.file, module.directory, function.name)
        for which, (module, function) in steps.functions.items()
    }
    kept = {"strict": context.strict, "plain": context.plain, "directory": context.directory, "threads": 1,
            "memory": max(context.memory // workers, 1)}  # fmt: skip
    return Site(folder, functions, interpreter.loader.library, dict(interpreter.arguments), kept, steps.hyperparams,
                rows.parts, rows.batch_size, steps.whole, steps.seed, steps.caller.span)  # fmt: skip


_KNOWN: dict[str, Steps] = {}  # of this process, by the folder of the rows; one training at a time


def run_request(site: Site, request: Request) -> Pushed:
    """In a process: run a request by what earlier ones of the same training left here."""
    if site.folder not in _KNOWN:
        _KNOWN.clear()
        _KNOWN[site.folder] = _steps_of(site)
    try:
        with blas.held():
            return _KNOWN[site.folder].run(request)
    except DMLError as error:  # as it is: the script's error, not a worker's
        return Pushed(request, request.model, (), error)


def _steps_of(site: Site) -> Steps:
    from braidwater.dml.interpreter.interpreter import Interpreter
    from braidwater.dml.interpreter.liveness import Liveness
    from braidwater.dml.interpreter.scope import Scope

    functions = {}
    for which, (text, file, directory, name) in site.functions.items():
        loader, module = opened(text, file, directory, site.library)
        functions[which] = (module, module.functions[name])
    interpreter = Interpreter(Context(**site.context), site.arguments, loader)
    interpreter.scopes.append(Scope(module, Liveness(module.script.statements, ()), {}))
    features, labels = (
        np.asarray(np.load(Path(site.folder) / f"{name}.npy", mmap_mode="r")) for name in ("features", "labels")
    )
    caller = Caller(interpreter, "paramserv", site.span)
    rows = Rows(features, labels, site.parts, site.batch_size)
    return Steps(caller, functions, site.hyperparams, rows, site.whole, site.seed)


def _bytes(pushed: Pushed) -> int:
    items = (*pushed.value.items, *pushed.request.model.items)
    return int(sum(getattr(item, "nbytes", 8) for item in items))
