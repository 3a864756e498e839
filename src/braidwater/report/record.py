"""Remembering a run: its events, in the form that a report draws."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from braidwater.events import (
    BlockDone,
    Event,
    Metric,
    PassFinished,
    PassStarted,
    RolledBack,
    RowsDropped,
    RunFinished,
    RunStarted,
    WorkerLost,
    listen,
)
from braidwater.report.charts import Series, Span

_DATA, _EXCHANGE = "waiting for rows", "exchange"  # parts of a span beside computing
_MOST_SPANS = 20_000  # about what 100 GB of blocks in one pass make; a report with more could not be opened


@dataclass
class Record:
    """The events of one or more runs. Times are kept as they came (seconds since the epoch)."""

    started: float | None = None
    seconds: float = 0.0
    passes: list[PassFinished] = field(default_factory=list)
    spans: list[tuple[int, BlockDone]] = field(default_factory=list)
    metrics: dict[str, list[Metric]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)
    _kinds: list[str] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.started = event.time if self.started is None else self.started
            case PassStarted():
                self.started = event.time if self.started is None else self.started
                self._kinds.append(event.what)
            case BlockDone():
                if len(self.spans) < _MOST_SPANS:
                    self.spans.append((max(len(self._kinds) - 1, 0), event))
            case PassFinished():
                self.passes.append(event)
            case Metric():
                self.metrics[event.name].append(event)
            case RunFinished():
                self.seconds += event.seconds
            case RolledBack():
                self.notes.append(f"Training went back to its last checkpoint: {event.reason}")
            case WorkerLost():
                self.notes.append(f"Worker {event.worker} was lost: {event.reason}.")
            case RowsDropped():
                self.notes.append(f"{event.rows:,} rows were dropped: {event.reason}.")

    @contextmanager
    def recording(self) -> Iterator[Record]:
        """Listen inside the ``with`` block."""
        with listen(self):
            yield self

    def curves(self, *names: str) -> list[Series]:
        """The metrics `names` (all that were emitted more than once, where none is given) over their steps."""
        wanted = names or tuple(name for name, found in self.metrics.items() if len(found) > 1)
        series = []
        for name in wanted:
            found = [metric for metric in self.metrics.get(name, []) if metric.worker in (None, 0)]
            if found:
                steps = name.startswith("step_")  # many an epoch
                x = [float(m.step if steps or m.epoch is None else m.epoch) for m in found]
                series.append(Series(name, x, [m.value for m in found]))
        return series

    def timeline(self) -> tuple[list[Span], list[str]]:
        """What each worker was at, in seconds since the first of it; groups are the kinds of passes.

        A span of a training (a quarter of a second) shows its shares of waiting, computing and exchange, one after the other.
        """
        if not self.spans:
            return [], []
        begin = min(min(block.start for _, block in self.spans), self.started or float("inf"))
        kinds = list(dict.fromkeys(self._kinds)) or ["pass"]
        if any(block.data_seconds or block.exchange_seconds for _, block in self.spans):
            kinds += [_DATA, _EXCHANGE]
        spans = []
        for number, block in self.spans:
            kind = self._kinds[number] if self._kinds else "pass"
            hint = f"pass {number + 1} ({kind}): {block.rows:,} rows in {block.seconds * 1000:.1f} ms"
            start = block.start - begin
            computing = max(block.seconds - block.data_seconds - block.exchange_seconds, 0.0)
            for seconds, what in ((block.data_seconds, _DATA), (computing, kind), (block.exchange_seconds, _EXCHANGE)):
                if seconds > 0:
                    told = hint if what == kind else f"{hint}, {what} {seconds * 1000:.1f} ms"
                    spans.append(Span(block.worker, start, start + seconds, kinds.index(what), told))
                start += seconds
        return spans, kinds
