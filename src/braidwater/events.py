"""What work says about itself while it runs.

Working code calls `emit`; progress bars, logs, the HTML report and the measured figures of a plan listen. Working code
prints nothing and knows none of its listeners::

    with listen(print):
        model.fit(table, label="late")

Events of worker threads and processes reach the listeners of the thread that started the work, in that thread.
Every event is a frozen dataclass of plain values, so it can cross a process as `as_record(event)`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened, at `time` seconds since the epoch."""

    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """A fit, prediction or evaluation began. `passes` is expected, not promised; None when nobody knows."""

    name: str
    rows: int | None = None
    passes: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The run ended; `error` is its message when it failed."""

    name: str
    seconds: float
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class PassStarted(Event):
    """A pass over the rows (or an epoch) began. `what` says what it computes; `number` counts from 1."""

    number: int
    what: str
    rows: int | None = None
    origin: str = "table"  # "table", "table+write" (the cache is being written), "memory" or "disk" (block cache)


@dataclass(frozen=True, kw_only=True)
class BlockDone(Event):
    """A worker is through with a block. `start` is when it took it up (seconds since the epoch).

    Of `seconds`, `data_seconds` went by until the rows were there, and `exchange_seconds` in messages to other workers.
    """

    worker: int
    rows: int
    start: float
    seconds: float
    bytes: int = 0
    data_seconds: float = 0.0
    exchange_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PassFinished(Event):
    """The pass is over; `seconds` of wall time, `cpu_seconds` of this process and its finished children."""

    number: int
    what: str
    rows: int
    seconds: float
    cpu_seconds: float = 0.0
    bytes_read: int = 0


@dataclass(frozen=True, kw_only=True)
class Metric(Event):
    """A figure: a loss, an accuracy, a norm of a gradient. `step` counts passes or optimiser steps from 1."""

    name: str
    value: float
    step: int
    epoch: int | None = None
    worker: int | None = None


@dataclass(frozen=True, kw_only=True)
class Histogram(Event):
    """How the numbers of a tensor are spread: ``counts[i]`` of them lie between ``edges[i]`` and ``edges[i + 1]``."""

    name: str
    edges: list[float]
    counts: list[int]
    step: int


@dataclass(frozen=True, kw_only=True)
class CheckpointWritten(Event):
    """Training can go on from here after a crash."""

    path: str
    step: int
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class WorkerLost(Event):
    """A worker died; `restart` says whether the work goes on from the last checkpoint."""

    worker: int
    reason: str
    restart: bool


@dataclass(frozen=True, kw_only=True)
class RolledBack(Event):
    """A loss was not finite: training goes back to its newest checkpoint, its learning rate times `rate_factor` from there on."""

    reason: str
    rate_factor: float


@dataclass(frozen=True, kw_only=True)
class RowsDropped(Event):
    """Rows left out by a declared policy."""

    rows: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class MemoryUsed(Event):
    """Resident memory of this process (bytes), now and at its highest."""

    resident: int
    peak: int


@dataclass(frozen=True, kw_only=True)
class TableWritten(Event):
    """A table was written and is in place."""

    address: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """A plan was chosen; `text` is what `explain` prints."""

    text: str


@dataclass(frozen=True, kw_only=True)
class SearchStarted(Event):
    """A search over models began. `trials` and `seconds` are its budget, `metric` is what trials are compared by.

    Where it goes on with a study, `ended` trials of that are over, the best of them being `best_trial` with `best_value`.
    """

    name: str
    metric: str
    direction: str
    trials: int | None = None
    seconds: float | None = None
    ended: int = 0
    best_trial: int | None = None
    best_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrialStarted(Event):
    """A trial of a search is trained, for the first time or on from where it was."""

    number: int
    parameters: dict[str, Any]
    epochs: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrialEnded(Event):
    """A stretch of a trial is over: it is complete, paused, pruned or failed (`state`)."""

    number: int
    state: str
    value: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrialJoined(Event):
    """A trial joined the scan that other trials ride along: it begins at block `block` of `blocks`, as one of `riders`."""

    number: int
    block: int
    blocks: int
    riders: int


@dataclass(frozen=True, kw_only=True)
class ScanShared(Event):
    """The trials of a scan have ended: it read `blocks_read` blocks, scans of their own would have read `blocks_alone`."""

    blocks_read: int
    blocks_alone: int


@dataclass(frozen=True, kw_only=True)
class TaskEvent(Event):
    """An event of a task that runs in a worker process, as `Engine.tasks` passes it on: `told` is what the task emitted."""

    task: str
    worker: int
    told: Event


Listener = Callable[[Event], None]
_session_listeners: list[Listener] = []
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("braidwater_listeners", default=())
_interceptor: ContextVar[Listener | None] = ContextVar("braidwater_interceptor", default=None)


def emit(event: Event) -> None:
    """Tell every listener, in the order they began to listen."""
    interceptor = _interceptor.get()
    if interceptor is not None:
        interceptor(event)
        return
    for listener in (*_session_listeners, *_listeners.get()):
        listener(event)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Call `listener(event)` for what happens inside the `with` block."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


@contextmanager
def intercept(listener: Listener) -> Iterator[None]:
    """Call `listener(event)`, and no other listener, for what happens inside the `with` block: to pass it on in another form."""
    token = _interceptor.set(listener)
    try:
        yield
    finally:
        _interceptor.reset(token)


def listen_always(listener: Listener) -> Callable[[], None]:
    """Call `listener(event)` for the rest of the session; call what is returned to stop."""
    _session_listeners.append(listener)
    return lambda: _session_listeners.remove(listener)


@contextmanager
def running(name: str, *, rows: int | None = None, passes: int | None = None) -> Iterator[None]:
    """Tell that a run begins, and how it ended."""
    started = time.perf_counter()
    error: str | None = None
    emit(RunStarted(name=name, rows=rows, passes=passes))
    try:
        yield
    except BaseException as failure:
        error = str(failure) or type(failure).__name__
        raise
    finally:
        emit(RunFinished(name=name, seconds=time.perf_counter() - started, error=error))


def as_record(event: Event) -> dict[str, Any]:
    """The event as a dictionary of plain values, its kind under ``event``.

    >>> as_record(Metric(time=0.0, name="loss", value=0.5, step=3))["event"]
    'Metric'
    """
    fields = dataclasses.asdict(event)
    if isinstance(event, TaskEvent):
        fields["told"] = as_record(event.told)
    return {"event": type(event).__name__, **fields}


def from_record(record: dict[str, Any]) -> Event:
    """The event that `as_record` wrote down."""
    fields = dict(record)
    kind = {cls.__name__: cls for cls in Event.__subclasses__()}[fields.pop("event")]
    if kind is TaskEvent:
        fields["told"] = from_record(fields["told"])
    return kind(**fields)
