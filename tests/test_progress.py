"""Progress: what a terminal, a pipe and a notebook show of the same events."""

from __future__ import annotations

import io
import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from braidwater.errors import OptionError
from braidwater.events import (
    BlockDone,
    CheckpointWritten,
    Metric,
    PassFinished,
    PassStarted,
    RowsDropped,
    RunFinished,
    RunStarted,
    TableWritten,
    WorkerLost,
    emit,
)
from braidwater.report import log_events, progress
from braidwater.report.progress_views import Bars, Lines, Notebook, in_notebook
from braidwater.report.tracker import Tracker


def run(passes: int = 2, *, what: str = "gradient", error: str | None = None, rows: int | None = 1000) -> None:
    """A run as an engine and an estimator tell it."""
    emit(RunStarted(name="logistic_regression", passes=passes, time=100.0))
    for number in range(1, passes + 1):
        emit(PassStarted(number=number, what=what, rows=rows, time=100.0))
        for worker in (0, 1):
            emit(BlockDone(worker=worker, rows=500, start=100.0, seconds=0.1))
        emit(PassFinished(number=number, what=what, rows=1000, seconds=0.5))
        emit(Metric(name="loss", value=1 / number, step=number))
    emit(RunFinished(name="logistic_regression", seconds=1.25, error=error))


def lines(**changes: Any) -> list[str]:
    stream = io.StringIO()
    with progress("lines", stream):
        run(**changes)
    return stream.getvalue().splitlines()


def test_a_pipe_gets_one_line_a_pass_and_one_for_the_run() -> None:
    assert lines() == [
        "logistic_regression  pass 1/2  gradient  1,000 rows  500 ms  2.0 k rows/s  2 workers",
        "logistic_regression  pass 2/2  gradient  1,000 rows  500 ms  2.0 k rows/s  loss 1  2 workers",
        "logistic_regression  2 passes, 2,000 rows  1.2 s  loss 0.5",
    ]


def test_epochs_are_called_epochs() -> None:
    shown = lines(what="epoch")
    assert "epoch 1/2  1,000 rows" in shown[0]
    assert "2 epochs, 2,000 rows" in shown[-1]


def test_a_failed_run_says_so() -> None:
    assert lines(error="NaN loss\nmore")[-1].endswith("failed: NaN loss")


def test_what_a_person_must_know_is_told() -> None:
    stream = io.StringIO()
    with progress("lines", stream):
        emit(WorkerLost(worker=1, reason="SIGKILL", restart=True))
        emit(RowsDropped(rows=1200, reason="NULLs"))
        emit(TableWritten(address="out.parquet", rows=5000))
        emit(CheckpointWritten(path="c", step=300, bytes=2_000_000, seconds=0.1))
    assert stream.getvalue().splitlines() == [
        "worker 1 was lost (SIGKILL); goes on from the last checkpoint",
        "1,200 rows were dropped: NULLs",
        "wrote 5,000 rows to out.parquet",
        "checkpoint of step 300 written (2.0 MB)",
    ]


def test_nothing_is_shown_after_the_block() -> None:
    stream = io.StringIO()
    with progress("lines", stream):
        pass
    run()
    assert stream.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_style_follows_the_stream() -> None:
    assert isinstance(progress(stream=io.StringIO()).view, Lines)
    assert isinstance(progress(stream=Terminal()).view, Bars)
    with pytest.raises(OptionError, match="style='bar' is not possible; it must be one of auto, bars"):
        progress("bar")


def test_a_terminal_shows_a_bar_and_keeps_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    shown = progress("bars", stream)
    with shown:
        emit(RunStarted(name="k_means", passes=3))
        emit(PassStarted(number=2, what="assign", rows=1000))
        emit(BlockDone(worker=0, rows=250, start=0.0, seconds=0.1))
        shown.view.changed(shown.tracker, urgent=True)
        assert isinstance(shown.view, Bars)
        assert shown.view._live is not None
        shown.view._live.refresh()
        assert "pass 2/3" in stream.getvalue()
        assert "25%" in stream.getvalue()
        emit(PassFinished(number=2, what="assign", rows=1000, seconds=0.5))
        emit(RunFinished(name="k_means", seconds=2.0))
        assert shown.view._live is None, "the bar is still moving after the run"
    assert stream.getvalue().rstrip().endswith("k_means  1 pass, 1,000 rows  2.0 s")


def test_a_terminal_is_left_in_order_when_the_work_fails() -> None:
    stream = Terminal()
    shown = progress("bars", stream)

    def fail() -> None:
        with shown:
            emit(PassStarted(number=1, what="gradient", rows=10))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert isinstance(shown.view, Bars)
    assert shown.view._live is None


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """IPython as far as we use it: displays that can be updated. The list holds what was shown."""
    shown: list[str] = []

    class Handle:
        def update(self, page: Any) -> None:
            shown.append(page.text)

    class Page:
        def __init__(self, text: str) -> None:
            self.text = text

    def display(page: Page, display_id: bool) -> Handle:
        assert display_id
        shown.append(page.text)
        return Handle()

    module = types.ModuleType("IPython.display")
    module.HTML, module.display = Page, display  # type: ignore[attr-defined]
    parent = types.ModuleType("IPython")
    shell = type("ZMQInteractiveShell", (), {})()
    parent.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", parent)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


def test_a_notebook_shows_one_display_that_changes(notebook: list[str]) -> None:
    assert in_notebook()
    shown = progress(stream=io.StringIO())
    assert isinstance(shown.view, Notebook)
    with shown:
        run()
    assert "pass 1/2  gradient" in notebook[1]
    assert "2 passes, 2,000 rows" in notebook[-1]
    assert all(text.startswith("<pre") for text in notebook)


def test_names_of_columns_and_runs_are_no_markup(notebook: list[str]) -> None:
    with progress("notebook", io.StringIO()):
        emit(RunStarted(name="<b>", passes=1))
        emit(PassStarted(number=1, what="x", rows=None))
    assert "&lt;b&gt;" in notebook[0]
    stream = Terminal()
    with progress("bars", stream):
        emit(RunStarted(name="[red]", passes=1))
        emit(RunFinished(name="[red]", seconds=1.0))
    assert "[red]" in stream.getvalue()


def test_a_run_inside_a_run_goes_on_under_the_outer_name() -> None:
    tracker = Tracker()
    tracker(RunStarted(name="outer"))
    tracker(RunStarted(name="inner", passes=7))
    tracker(PassStarted(number=2, what="epoch", rows=10))
    assert tracker.title() == "outer  epoch 2/7"
    tracker(RunFinished(name="inner", seconds=1.0))
    assert tracker.running
    tracker(RunFinished(name="outer", seconds=2.0))
    assert not tracker.running
    assert tracker.seconds == 2.0


def test_a_pass_without_a_run_forgets_the_run_before() -> None:
    stream = io.StringIO()
    with progress("lines", stream):
        run(1)
        emit(PassStarted(number=1, what="evaluate", rows=10))
        emit(PassFinished(number=1, what="evaluate", rows=10, seconds=0.5))
    assert stream.getvalue().splitlines()[-1] == "pass 1  evaluate  10 rows  500 ms  20 rows/s"


def test_rows_are_counted_when_nobody_knew_how_many() -> None:
    tracker = Tracker()
    tracker(PassStarted(number=1, what="count", rows=None))
    tracker(BlockDone(worker=0, rows=40, start=0.0, seconds=0.1))
    tracker(BlockDone(worker=1, rows=2, start=0.0, seconds=0.1))
    assert tracker.current is not None
    assert (tracker.current.done, tracker.current.workers) == (42, {0, 1})


def test_metrics_of_other_workers_are_not_shown_as_the_runs() -> None:
    tracker = Tracker()
    tracker(Metric(name="step_loss", value=0.5, step=1, worker=0))
    tracker(Metric(name="step_loss", value=9.0, step=1, worker=1))
    assert tracker.metrics == {"loss": 0.5}


def test_a_log_holds_every_event_as_a_line_of_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with log_events(path):
        run(1)
        emit(Metric(name="loss", value=math.nan, step=1))
        assert len(path.read_text().splitlines()) == 8, "the last event is not in the file yet"
    records = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    kinds = ["RunStarted", "PassStarted", "BlockDone", "BlockDone", "PassFinished", "Metric", "RunFinished", "Metric"]
    assert [record["event"] for record in records] == kinds
    assert records[-1]["value"] is None
    assert records[2]["rows"] == 500
    with log_events(path):
        emit(Metric(name="loss", value=0.5, step=2))
    assert len(path.read_text().splitlines()) == 9, "an old log was overwritten"
