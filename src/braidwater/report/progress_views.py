"""Showing how far the work has come: bars on a terminal, a line a pass elsewhere, one changing line in a notebook."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from html import escape
from types import TracebackType
from typing import IO, Any

from braidwater.errors import OptionError
from braidwater.events import BlockDone, Event, Metric, PassFinished, RunFinished, listen
from braidwater.report.tracker import Pass, Tracker

_REFRESH_SECONDS = 0.1
_BAR_WIDTH = 16


def progress(style: str = "auto", stream: IO[str] | None = None) -> Progress:
    """Show the progress of what runs inside a ``with`` block.

    `style` is ``bars``, ``lines``, ``notebook`` or ``none``; ``auto`` takes bars where `stream` (standard error) is a
    terminal, the notebook's own display in a notebook, and else one line a pass, fit for a log file::

        with bw.progress():
            model.fit(table, label="late")
    """
    stream = sys.stderr if stream is None else stream
    views: dict[str, type[Bars | Lines | Notebook | Silent]] = {
        "bars": Bars,
        "lines": Lines,
        "notebook": Notebook,
        "none": Silent,
    }
    if style == "auto":
        style = "notebook" if in_notebook() else "bars" if stream.isatty() else "lines"
    if style not in views:
        raise OptionError("style", style, "one of auto, bars, lines, notebook, none")
    return Progress(views[style](stream))


class Progress:
    """A listener that keeps a `View` up to date while its ``with`` block runs."""

    def __init__(self, view: View) -> None:
        self.tracker = Tracker()
        self.view = view
        self._listening: AbstractContextManager[None] | None = None

    def __call__(self, event: Event) -> None:
        self.tracker(event)
        for note in self.tracker.take_notes():
            self.view.note(note)
        match event:
            case PassFinished():
                self.view.pass_finished(self.tracker, self.tracker.finished[-1])
            case RunFinished() if not self.tracker.running:
                self.view.run_finished(self.tracker)
            case BlockDone() | Metric():
                self.view.changed(self.tracker, urgent=False)
            case _:
                self.view.changed(self.tracker, urgent=True)

    def __enter__(self) -> Progress:
        self._listening = listen(self)
        self._listening.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listening is not None:
            self._listening.__exit__(kind, error, trace)
        self.view.close()


class View(ABC):
    """A way to show a `Tracker` to people."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    @abstractmethod
    def changed(self, tracker: Tracker, *, urgent: bool) -> None:
        """Something went on. Not `urgent`: may be skipped when something was shown a moment ago."""

    @abstractmethod
    def pass_finished(self, tracker: Tracker, which: Pass) -> None:
        """A pass ended."""

    @abstractmethod
    def run_finished(self, tracker: Tracker) -> None:
        """A run ended."""

    @abstractmethod
    def note(self, text: str) -> None:
        """A sentence that stays."""

    def close(self) -> None:
        """Leave the screen in order."""


class Silent(View):
    """Shows nothing."""

    def changed(self, tracker: Tracker, *, urgent: bool) -> None:
        pass

    def pass_finished(self, tracker: Tracker, which: Pass) -> None:
        pass

    def run_finished(self, tracker: Tracker) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Lines(View):
    """A line a pass, and one for the run: for log files and pipes."""

    def changed(self, tracker: Tracker, *, urgent: bool) -> None:
        pass

    def pass_finished(self, tracker: Tracker, which: Pass) -> None:
        from braidwater.planner import format_seconds

        name = f"{tracker.name}  " if tracker.name else ""
        took = format_seconds(which.seconds)
        self.note(f"{name}{tracker.pass_title(which)}  {which.done:,} rows  {took}  {tracker.figures(which)}")

    def run_finished(self, tracker: Tracker) -> None:
        self.note(tracker.summary())

    def note(self, text: str) -> None:
        self.stream.write(text + "\n")
        self.stream.flush()


class Bars(View):
    """One live bar: the rows of the pass that runs. A finished run leaves one line."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)
        self._live: Any = None
        self._task: Any = None
        self._shown = 0.0

    def changed(self, tracker: Tracker, *, urgent: bool) -> None:
        now = time.monotonic()
        if not tracker.running or (not urgent and now - self._shown < _REFRESH_SECONDS):
            return
        self._shown = now
        live, which = self._started(), tracker.current
        if which is None:
            live.update(self._task, description=tracker.name or "run", total=None, figures="")
            return
        title, figures = self._fitted(tracker, which)
        total = which.rows if which.rows is None or which.rows >= which.done else None
        live.update(self._task, description=title, total=total, completed=which.done, figures=figures)

    def _fitted(self, tracker: Tracker, which: Pass) -> tuple[str, str]:
        """Title and figures cut to the width of the terminal: rich would give up the bar instead."""
        width = self._console.width - _BAR_WIDTH - len("100% 0:00:00") - 5
        title, figures = tracker.title() or "run", tracker.figures(which)
        if len(title) + len(figures) > width:
            title = tracker.pass_title(which)
        return title, figures[: max(width - len(title), 0)]

    def pass_finished(self, tracker: Tracker, which: Pass) -> None:
        if self._live is not None:
            title, figures = self._fitted(tracker, which)
            full = max(which.done, 1)
            self._live.update(self._task, description=title, total=full, completed=full, figures=figures)
            self._shown = 0.0

    def run_finished(self, tracker: Tracker) -> None:
        self.close()
        self._console.print(tracker.summary(), markup=False, style="red" if tracker.error is not None else None)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, style="yellow" if "lost" in text or "dropped" in text else "dim")

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _started(self) -> Any:
        if self._live is None:
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Live

            # transient: what stays on the screen is the summary, and not a bar that stopped somewhere
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=_BAR_WIDTH),
                TaskProgressColumn(),
                TextColumn("{task.fields[figures]}", style="cyan", markup=False),
                TimeElapsedColumn(),
            )
            self._live = Live(*columns, console=self._console, transient=True, refresh_per_second=8)
            self._task = self._live.add_task("", total=None, figures="")
            self._live.start()
        return self._live


class Notebook(View):
    """One display that changes in its place, with what stays above it. Needs nothing but IPython itself."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self._kept: list[str] = []
        self._handle: Any = None
        self._shown = 0.0

    def changed(self, tracker: Tracker, *, urgent: bool) -> None:
        now = time.monotonic()
        if not tracker.running or (not urgent and now - self._shown < 2 * _REFRESH_SECONDS):
            return
        self._shown = now
        which = tracker.current
        done = (
            "" if which is None else f"{which.done:,} of {which.rows:,} rows" if which.rows else f"{which.done:,} rows"
        )
        figures = "" if which is None else tracker.figures(which)
        self._show("  ".join(part for part in (tracker.title() or "run", done, figures) if part))

    def pass_finished(self, tracker: Tracker, which: Pass) -> None:
        self._show("  ".join((tracker.name, tracker.pass_title(which), tracker.figures(which))))

    def run_finished(self, tracker: Tracker) -> None:
        self.note(tracker.summary())

    def note(self, text: str) -> None:
        self._kept.append(text)
        self._show("")

    def close(self) -> None:
        self._show("")
        self._handle = None
        self._kept = []

    def _show(self, line: str) -> None:
        from IPython.display import HTML, display  # type: ignore[import-not-found,unused-ignore]

        text = escape("\n".join([*self._kept, line]).rstrip("\n"))
        page = HTML(f"<pre style='margin:0'>{text}</pre>")
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)


def in_notebook() -> bool:
    """Whether standard output is a notebook's (a Jupyter kernel), and not a terminal's."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
