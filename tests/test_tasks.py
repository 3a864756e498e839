"""Tasks on worker processes: what is beyond the conformance suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from braidwater.engines import LocalEngine, Task
from braidwater.errors import OptionError
from braidwater.events import Metric, TaskEvent, as_record, from_record


def test_a_task_costs_less_than_a_millisecond() -> None:
    begun: list[float] = []

    def tasks():
        yield Task("warm up", os.getpid)
        while len(begun) < 1:
            yield None
        for number in range(500):
            yield Task(f"task {number}", os.getpid)

    running = LocalEngine(1).tasks(tasks())
    process = next(running).value
    begun.append(_cpu_seconds(os.getpid()) + _cpu_seconds(process))
    count = sum(1 for _ in zip(range(499), running, strict=False))
    spent = _cpu_seconds(os.getpid()) + _cpu_seconds(process) - begun[0]
    running.close()
    assert count == 499
    assert spent / count < 1e-3


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(OptionError, match="timeout=0"):
        Task("never", os.getpid, timeout=0)
    with pytest.raises(OptionError, match="retries=-1"):
        Task("never", os.getpid, retries=-1)


def test_an_event_of_a_task_can_be_written_down() -> None:
    event = TaskEvent(time=1.0, task="trial 3", worker=1, told=Metric(time=1.0, name="loss", value=0.5, step=2))
    assert from_record(as_record(event)) == event


def test_workers_leave_when_their_parent_is_killed() -> None:
    script = textwrap.dedent(
        """
        import os, sys, time
        from braidwater.engines import LocalEngine, Task

        def work():
            return os.getpid()

        def sleep(parent):
            while True:
                pass

        running = LocalEngine(1).tasks([Task("say", work), Task("hang", sleep, (1,))])
        print(next(running).value, flush=True)
        next(running)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{worker}")


def _cpu_seconds(process: int) -> float:
    with open(f"/proc/{process}/stat") as handle:
        fields = handle.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
