"""A search as it runs, on a terminal: trials in training with their curves, the best so far, and how long it will take."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from braidwater.events import Event, Metric, ScanShared, SearchStarted, TaskEvent, TrialEnded, TrialStarted, listen

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 16
_REFRESH_SECONDS = 0.25


@contextmanager
def watch(stream: IO[str] | None = None) -> Iterator[None]:
    """Show what `search` is at inside a ``with`` block: a table that changes on a terminal, a line a trial elsewhere.

    `stream` is standard error where it is left out::

        with watch():
            study = search(model, space, table, label="late")
    """
    stream = sys.stderr if stream is None else stream
    view: _Lines | _Table = _Table(stream) if stream.isatty() else _Lines(stream)
    try:
        with listen(view):
            yield
    finally:
        view.close()


@dataclass
class Running:
    """A trial in training."""

    parameters: dict[str, Any]
    epochs: int | None
    since: float
    curve: list[float] = field(default_factory=list)


class Progress:
    """What is known of a search from its events."""

    def __init__(self) -> None:
        self.name = self.metric = ""
        self.sign = 1.0
        self.trials: int | None = None
        self.seconds: float | None = None
        self.started = time.time()
        self.running: dict[int, Running] = {}
        self.states: dict[int, str] = {}
        self.before = 0  # trials that had ended when the search went on
        self.best: tuple[float, int, dict[str, Any]] | None = None
        self.reading = ""  # of a scan that trials shared, once it has ended

    def __call__(self, event: Event) -> None:
        match event:
            case SearchStarted():
                vars(self).update(vars(Progress()))
                self.name, self.metric, self.trials, self.seconds = (
                    event.name,
                    event.metric,
                    event.trials,
                    event.seconds,
                )
                self.sign = -1.0 if event.direction == "maximize" else 1.0
                self.before = event.ended
                if event.best_value is not None and event.best_trial is not None:
                    self.best = (event.best_value, event.best_trial, {})
                self.started = event.time
            case TrialStarted():
                self.running[event.number] = Running(event.parameters, event.epochs, event.time)
            case TaskEvent(told=Metric() as told):
                self._metric(event.task, told)
            case TrialEnded():
                self._ended(event)
            case ScanShared():
                self.reading = f"  {event.blocks_read} blocks read for {event.blocks_alone}"

    def _metric(self, task: str, told: Metric) -> None:
        number = task.removeprefix("trial ")
        if (
            number.isdigit()
            and int(number) in self.running
            and told.name.removeprefix("validation_") == self.metric.removeprefix("validation_")
        ):
            self.running[int(number)].curve.append(told.value)

    def _ended(self, event: TrialEnded) -> None:
        found = self.running.pop(event.number, None)
        self.states[event.number] = event.state
        if event.value is None or event.state == "failed" or not math.isfinite(event.value):
            return
        if self.best is None or self.sign * event.value < self.sign * self.best[0]:
            self.best = (event.value, event.number, {} if found is None else found.parameters)

    def counts(self) -> str:
        """How many trials are in which state."""
        states = list(self.states.values())
        told = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        total = "" if self.trials is None else f" of {self.trials}"
        return f"{self.before + len(states)}{total} trials" + (f" ({', '.join(told)})" if told else "") + self.reading

    def left(self, now: float) -> float | None:
        """About how many seconds it will take."""
        spent = now - self.started
        bounds = [] if self.seconds is None else [self.seconds - spent]
        if self.trials is not None and self.states:
            bounds.append(spent / len(self.states) * (self.trials - self.before - len(self.states)))
        return max(min(bounds), 0.0) if bounds else None


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """A curve in a line of text; what is no number is a gap.

    >>> sparkline([8, 7, 5, 3, 2, 1])
    '█▇▅▃▂▁'
    """
    shown = list(values)[-width:]
    finite = [value for value in shown if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_BARS[round((v - low) / step)] if math.isfinite(v) else " " for v in shown)


class _Lines:
    """A line for every trial that ends, for log files."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._progress = Progress()

    def __call__(self, event: Event) -> None:
        found = self._progress
        found(event)
        if isinstance(event, TrialEnded):
            value = "" if event.value is None else f"  {found.metric} {event.value:.5g}"
            best = "" if found.best is None else f"  best {found.best[0]:.5g} (trial {found.best[1]})"
            error = "" if event.error is None else f"  {event.error}"
            self._stream.write(f"trial {event.number}  {event.state}{value}{best}{error}\n")
            self._stream.flush()

    def close(self) -> None:
        pass


class _Table:
    """A table of the trials in training."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)
        self._progress = Progress()
        self._live: Any = None
        self._shown = 0.0

    def __call__(self, event: Event) -> None:
        self._progress(event)
        if isinstance(event, SearchStarted):
            from rich.live import Live

            self.close()
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        now = time.monotonic()
        if self._live is not None and now - self._shown > _REFRESH_SECONDS:
            self._shown = now
            self._live.update(self._drawn(), refresh=True)

    def _drawn(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        from braidwater.planner import format_seconds

        found, now = self._progress, time.time()
        left = found.left(now)
        title = f"{found.name}  {found.counts()}" + ("" if left is None else f"  {format_seconds(left)} left")
        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
        for name in ("trial", "hyperparameters", "epochs", found.metric, "", "seconds"):
            table.add_column(Text(name), overflow="ellipsis", no_wrap=True)
        for number, trial in sorted(found.running.items()):
            last = f"{trial.curve[-1]:.5g}" if trial.curve else ""
            epochs = f"{len(trial.curve)}" + ("" if trial.epochs is None else f"/{trial.epochs}")
            cells = [
                str(number),
                _told(trial.parameters),
                epochs,
                last,
                sparkline(trial.curve),
                f"{now - trial.since:.0f}",
            ]
            table.add_row(*(Text(cell) for cell in cells))
        if found.best is not None:
            value, number, parameters = found.best
            table.caption = Text(f"best {found.metric} {value:.5g}: trial {number}, {_told(parameters)}")
            table.caption_justify = "left"
        return table

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            found = self._progress
            best = "" if found.best is None else f"  best {found.metric} {found.best[0]:.5g} (trial {found.best[1]})"
            self._console.print(f"{found.name}  {found.counts()}{best}", markup=False)


def _told(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{n}={v:.3g}" if isinstance(v, float) else f"{n}={v}" for n, v in parameters.items())
