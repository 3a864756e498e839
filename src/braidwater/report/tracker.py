"""What is going on, put together from events: the state that progress bars and lines show."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from braidwater.events import (
    BlockDone,
    CheckpointWritten,
    Event,
    Metric,
    PassFinished,
    PassStarted,
    RolledBack,
    RowsDropped,
    RunFinished,
    RunStarted,
    TableWritten,
    WorkerLost,
)
from braidwater.options import format_bytes

_ASIDE = ("write blocks", "evaluate")  # passes that are not among those that a run announces


@dataclass
class Pass:
    """A pass over the rows, or an epoch, as far as it has come."""

    number: int
    what: str
    rows: int | None
    origin: str
    started: float
    done: int = 0
    seconds: float = 0.0
    workers: set[int] = field(default_factory=set)

    def rows_a_second(self, now: float) -> float:
        seconds = self.seconds or now - self.started
        return self.done / seconds if seconds > 0 else 0.0


class Tracker:
    """Follows the events of one run after the other. `notes` are sentences that a person should see, in their order."""

    def __init__(self) -> None:
        self.name = ""
        self.passes: int | None = None
        self.current: Pass | None = None
        self.finished: list[Pass] = []
        self.metrics: dict[str, float] = {}
        self.notes: list[str] = []
        self.seconds = 0.0
        self.error: str | None = None
        self.started = time.time()
        self._depth = 0

    @property
    def running(self) -> bool:
        return self._depth > 0 or self.current is not None

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._run_started(event)
            case RunFinished():
                self._run_finished(event)
            case PassStarted():
                if self._depth == 0:  # a pass of its own, such as an evaluation
                    self.name, self.passes, self.metrics = "", None, {}
                self.current = Pass(event.number, event.what, event.rows, event.origin, event.time)
            case BlockDone():
                if self.current is not None:
                    self.current.done += event.rows
                    self.current.workers.add(event.worker)
            case PassFinished():
                self._pass_finished(event)
            case Metric():
                if event.worker in (None, 0):
                    self.metrics[event.name.removeprefix("step_")] = event.value
            case _:
                self._note(event)

    def _run_started(self, event: RunStarted) -> None:
        self._depth += 1
        if (
            self._depth == 1
        ):  # a run inside a run (the evaluation after an epoch) goes on under the name of the outer one
            self.name, self.passes = event.name, event.passes
            self.finished, self.metrics, self.current = [], {}, None
            self.error, self.seconds, self.started = None, 0.0, event.time
        elif self.passes is None:
            self.passes = event.passes

    def _run_finished(self, event: RunFinished) -> None:
        self._depth = max(self._depth - 1, 0)
        if self._depth == 0:
            self.seconds, self.error, self.current = event.seconds, event.error, None

    def _pass_finished(self, event: PassFinished) -> None:
        found = self.current or Pass(event.number, event.what, event.rows, "", event.time - event.seconds)
        found.done, found.seconds = event.rows, event.seconds
        self.finished.append(found)
        self.current = None

    def _note(self, event: Event) -> None:
        match event:
            case WorkerLost():
                after = "goes on from the last checkpoint" if event.restart else "the work stops"
                self.notes.append(f"worker {event.worker} was lost ({event.reason}); {after}")
            case RolledBack():
                self.notes.append(
                    f"back to the last checkpoint, at {event.rate_factor:g} x the learning rate: {event.reason}"
                )
            case RowsDropped():
                self.notes.append(f"{event.rows:,} rows were dropped: {event.reason}")
            case TableWritten():
                self.notes.append(f"wrote {event.rows:,} rows to {event.address}")
            case CheckpointWritten():
                self.notes.append(f"checkpoint of step {event.step:,} written ({format_bytes(event.bytes)})")

    def take_notes(self) -> list[str]:
        """The notes since the last time."""
        notes, self.notes = self.notes, []
        return notes

    def title(self) -> str:
        """What runs now, in a few words.

        >>> tracker = Tracker()
        >>> tracker(RunStarted(name="k_means", passes=9)); tracker(PassStarted(number=2, what="assign", rows=10))
        >>> tracker.title()
        'k_means  pass 2/9  assign'
        """
        if self.current is None:
            return self.name
        return "  ".join(part for part in (self.name, self.pass_title(self.current)) if part)

    def pass_title(self, which: Pass) -> str:
        kind = "epoch" if which.what.startswith("epoch") else "pass"
        counted = self.passes is not None and which.number <= self.passes and which.what not in _ASIDE
        total = f"/{self.passes}" if counted else ""
        what = which.what.removeprefix("epoch").strip(" :")
        return "  ".join(part for part in (f"{kind} {which.number}{total}", what) if part)

    def figures(self, which: Pass) -> str:
        """Speed, metrics and workers of a pass, as one text."""
        parts = [format_rate(which.rows_a_second(time.time()))]
        parts += [f"{name} {value:.4g}" for name, value in list(self.metrics.items())[:3]]
        if len(which.workers) > 1:
            parts.append(f"{len(which.workers)} workers")
        return "  ".join(parts)

    def summary(self) -> str:
        """The run that ended, as one line."""
        from braidwater.planner import format_seconds

        epochs = [one for one in self.finished if one.what.startswith("epoch")]
        counted = epochs or self.finished
        count, rows = len(counted), sum(one.done for one in counted)
        plural = ("epoch" if epochs else "pass") + ("" if count == 1 else "s" if epochs else "es")
        parts = [self.name or "run"]
        if count:
            parts.append(f"{count} {plural}, {rows:,} rows")
        parts.append(format_seconds(self.seconds))
        parts += [f"{name} {value:.4g}" for name, value in list(self.metrics.items())[:3]]
        if self.error is not None:
            parts.append(f"failed: {self.error.splitlines()[0] if self.error else ''}")
        return "  ".join(parts)


def format_rate(rows_a_second: float) -> str:
    """Rows a second as a person reads them.

    >>> format_rate(1_234_567), format_rate(5_300), format_rate(12)
    ('1.2 M rows/s', '5.3 k rows/s', '12 rows/s')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rows_a_second >= size:
            return f"{rows_a_second / size:.1f} {unit} rows/s"
    return f"{rows_a_second:.0f} rows/s"
