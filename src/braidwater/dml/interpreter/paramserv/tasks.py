"""The workers of a parameter server as tasks of an engine: processes that are told of the script and its rows once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from braidwater.dml.builtins.base import Caller
from braidwater.dml.interpreter.liveness import Liveness
from braidwater.dml.interpreter.paramserv.steps import Pushed, Request, Rows, Steps
from braidwater.dml.interpreter.parfor.handing_over import Home, arrived, folder_for, handed_over, taken
from braidwater.dml.interpreter.parfor.tasks import RETRIES
from braidwater.dml.interpreter.scope import Module
from braidwater.dml.runtime.workers import blas
from braidwater.dml.syntax import Span
from braidwater.dml.syntax.nodes import Function
from braidwater.dml.values import ListValue
from braidwater.errors import DMLError

if TYPE_CHECKING:
    from braidwater.engines import Engine, Task


@dataclass(frozen=True)
class Site:
    """What a process needs to know of the script, and its rows."""

    home: Home
    functions: Mapping[str, tuple[Module, Function]]
    hyperparams: ListValue
    rows: Mapping[str, Any]  # features, labels, and the numbers of all workers' rows, one worker after the other
    ends: Sequence[int]  # of the workers in these
    batch_size: int
    whole: bool
    seed: int
    span: Span


class AsTasks:
    """Requests as tasks. The first ones bring the site along, later ones only where a process says that it does not know it."""

    def __init__(self, steps: Steps, workers: int, engine: Engine) -> None:
        self.at_once = workers
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._numbers = count()
        self._training = uuid4().hex
        self._opened = ExitStack()
        steps.caller.interpreter.settle()
        folder = self._opened.enter_context(folder_for(engine, "paramserv"))
        rows = {
            "features": steps.rows.features,
            "labels": steps.rows.labels,
            "numbers": np.concatenate(steps.rows.parts),
        }
        self._site = Site(
            Home.of(steps.caller.interpreter, workers),
            steps.functions,
            steps.hyperparams,
            handed_over(rows, folder),
            np.cumsum([len(part) for part in steps.rows.parts]).tolist(),
            steps.rows.batch_size,
            steps.whole,
            steps.seed,
            steps.caller.span,
        )
        self._outcomes = engine.tasks(self._tasks())
        self._opened.callback(self._outcomes.close)

    def send(self, request: Request) -> None:
        self._waiting.append((request, next(self._numbers) < self.at_once))

    def _tasks(self) -> Iterator[Task | None]:
        from braidwater.engines import Task

        while True:
            if self._waiting:
                request, with_site = self._waiting.popleft()
                arguments = (self._training, self._site if with_site else None, request)
                yield Task(f"paramserv, worker {request.worker + 1}", run_request, arguments, retries=RETRIES)
            else:
                yield None

    def receive(self) -> Pushed:
        while True:
            outcome = next(self._outcomes)
            if outcome.error is not None:
                raise outcome.error
            if outcome.value is not None:
                pushed: Pushed = outcome.value
                if pushed.error is not None:
                    raise pushed.error
                return replace(pushed, value=arrived(pushed.value))
            self._waiting.appendleft((outcome.task.arguments[-1], True))

    def close(self) -> None:
        self._opened.close()


_KNOWN: dict[str, Steps] = {}  # of this process, by the training; it has one at a time


def run_request(training: str, site: Site | None, request: Request) -> Pushed | None:
    """In a process: run a request by what earlier ones of the same training left here. None where that is nothing."""
    if training not in _KNOWN:
        if site is None:
            return None
        _KNOWN.clear()
        _KNOWN[training] = _steps_of(site)
    try:
        with blas.held():
            return _KNOWN[training].run(replace(request, model=arrived(request.model)))
    except DMLError as error:  # as it is: the script's error, not a worker's
        return Pushed(request.worker, ListValue([]), (), error)


def _steps_of(site: Site) -> Steps:
    rows = taken(site.rows)
    parts = np.split(rows["numbers"], site.ends[:-1])
    interpreter = site.home.interpreter(site.home.main, Liveness([], ()), {})
    caller = Caller(interpreter, "paramserv", site.span)
    return Steps(caller, site.functions, site.hyperparams, Rows(rows["features"], rows["labels"], parts, site.batch_size),
                 site.whole, site.seed)  # fmt: skip
