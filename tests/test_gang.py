"""A gang: processes that talk, whose events, results, errors and deaths arrive where it was started."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from braidwater.blocks.source import BlockSource
from braidwater.engines import LocalEngine
from braidwater.engines.local.fork_server import WorkerProcess
from braidwater.engines.local.gang import run_gang
from braidwater.engines.phase import enter
from braidwater.errors import LabelError, OptionError, WorkerError, WorkerLostError
from braidwater.events import Metric, WorkerLost, emit, listen
from braidwater.options import current_options, options
from braidwater.testing.strategies import uneven_store

SECRET = 41


def alive(process):
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def processes(monkeypatch):
    """The process ids of the members that are started, as they are."""
    found = []

    class Noted(WorkerProcess):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            found.append(self.pid)

    monkeypatch.setattr("braidwater.engines.local.gang_process.WorkerProcess", Noted)
    return found


@pytest.fixture(scope="module")
def gang():
    """One gang for many questions: what its members saw, and the events that came back."""
    store = uneven_store({"x": np.arange(201.0)})
    source = BlockSource.__new__(BlockSource)
    source.store, source.table, source.encoder = store, object(), None
    events, threads = [], []

    def hear(event):
        events.append(event)
        threads.append(threading.current_thread())

    def member(told):  # a local function: it travels by value
        import torch
        import torch.distributed as dist

        total = torch.tensor([float(told.rank + 1)])
        dist.all_reduce(total)
        told.emit(Metric(name="told", value=float(told.rank), step=1, worker=told.rank))
        emit(Metric(name="plain", value=1.0, step=1, worker=told.rank))
        return {
            "rank": told.rank,
            "size": told.size,
            "restarts": told.restarts,
            "sum": total.item(),
            "rows": told.source.store.read(1).rows,
            "table": told.source.table,
            "secret": SECRET,
            "process": os.getpid(),
            "threads": torch.get_num_threads(),
            "memory": current_options().memory,
        }

    with listen(hear), options(memory="123MB"):
        found = run_gang(member, 2, source=source)
    return found, events, threads


def test_results_come_in_order_of_rank(gang):
    assert [found["rank"] for found in gang[0]] == [0, 1]
    assert {found["size"] for found in gang[0]} == {2}
    assert {found["restarts"] for found in gang[0]} == {0}


def test_members_talk_by_collectives(gang):
    assert [found["sum"] for found in gang[0]] == [3.0, 3.0]


def test_members_read_the_store_and_get_no_table(gang):
    assert [found["rows"] for found in gang[0]] == [64, 64]
    assert [found["table"] for found in gang[0]] == [None, None]


def test_members_are_processes_that_share_the_cores(gang):
    processes = {found["process"] for found in gang[0]}
    assert len(processes | {os.getpid()}) == 3
    assert {found["threads"] for found in gang[0]} == {max(len(os.sched_getaffinity(0)) // 2, 1)}
    assert not any(alive(process) for process in processes)


def test_members_see_the_options_and_globals_of_their_caller(gang):
    assert {found["memory"] for found in gang[0]} == {123_000_000}
    assert {found["secret"] for found in gang[0]} == {41}


def test_events_reach_listeners_in_the_thread_that_started_the_gang(gang):
    heard = {(event.name, event.worker) for event in gang[1]}
    assert heard == {("told", 0), ("told", 1), ("plain", 0), ("plain", 1)}
    assert set(gang[2]) == {threading.current_thread()}


def test_an_error_arrives_with_its_rank_traceback_and_cause():
    def member(told):
        import torch.distributed as dist

        if told.rank == 1:
            raise LabelError("the label has no classes")
        dist.barrier()  # would wait for ever

    with pytest.raises(WorkerError, match="Worker 1 of 2 failed") as caught:
        LocalEngine().gang(member, 2)
    assert "in member" in str(caught.value)
    assert isinstance(caught.value.__cause__, LabelError)


def test_a_killed_member_is_an_error_that_names_it_and_what_killed_it():
    def member(told):
        import torch.distributed as dist

        if told.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()

    with pytest.raises(WorkerLostError, match="Worker 1 of 2 died: killed by SIGKILL"):
        run_gang(member, 2)


def test_a_gang_that_lost_a_member_starts_anew():
    def member(told):
        import torch.distributed as dist

        if told.rank == 0 and told.restarts == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()
        return told.restarts

    heard = []
    with listen(heard.append):
        assert run_gang(member, 2, max_restarts=2) == [1, 1]
    assert [(event.worker, event.restart) for event in heard if isinstance(event, WorkerLost)] == [(0, True)]


def test_a_member_that_was_stopped_is_missed_where_the_others_wait(processes):
    def member(told):
        import torch.distributed as dist

        if told.rank == 2:
            enter("the rows of step", 17)
            time.sleep(1.5)  # it says twice a second what it is at
            os.kill(os.getpid(), signal.SIGSTOP)
        enter("step", 17)
        dist.barrier()

    heard = []
    expected = r"Worker 2 of 3 did not come to step 17 within 3 s: it has been at the rows of step 17 .*said nothing"
    with listen(heard.append), pytest.raises(WorkerLostError, match=expected):
        run_gang(member, 3, timeout=3.0)
    assert [event.worker for event in heard if isinstance(event, WorkerLost)] == [2]
    assert not any(alive(process) for process in processes)


def test_a_member_that_is_silent_and_missed_by_nobody_is_given_up(monkeypatch):
    def member(told):
        if told.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return told.rank

    monkeypatch.setattr("braidwater.engines.local.gang._LEAST_SILENCE", 5.0)
    heard = []
    with listen(heard.append):
        assert run_gang(member, 2, timeout=1.0, on_loss="continue") == [0, None]
    assert "said nothing for" in next(event.reason for event in heard if isinstance(event, WorkerLost))


def test_a_member_that_runs_out_of_memory_is_named_so():
    def member(told):
        import torch

        return told.rank == 0 or torch.empty(2**50)

    with pytest.raises(WorkerError, match="Worker 1 of 2 ran out of memory"):
        run_gang(member, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"workers": 0},
        {"workers": 1, "max_restarts": -1},
        {"workers": 1, "on_loss": "wait"},
        {"workers": 1, "timeout": 0},
    ],
)
def test_impossible_numbers_are_refused(arguments):
    with pytest.raises(OptionError):
        run_gang(print, **arguments)


SCRIPT = """
import os, sys, time
from braidwater.engines.local.fork_server import WorkerProcess
from braidwater.engines.local.gang import run_gang
from braidwater.events import Metric, listen

def member(told):
    told.emit(Metric(name="process", value=float(os.getpid()), step=1))
    time.sleep({pause})
    return told.rank

with listen(lambda event: print(int(event.value), flush=True)):
    print(run_gang(member, 2))
"""


def start_script(tmp_path, pause):
    script = tmp_path / "script.py"  # without an if __name__ guard, and its function lives in __main__
    script.write_text(textwrap.dedent(SCRIPT.format(pause=pause)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_script_without_a_guard_can_start_a_gang(tmp_path):
    out, err = start_script(tmp_path, 0).communicate(timeout=120)
    assert out.splitlines()[-1] == "[0, 1]", err
    assert err == ""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_member_outlives_its_starter(tmp_path, end):
    starter = start_script(tmp_path, 100)
    members = [int(starter.stdout.readline()) for _ in range(2)]
    assert all(alive(member) for member in members)
    starter.send_signal(end)
    _, err = starter.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while any(alive(member) for member in members) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(member) for member in members)
    if end == signal.SIGINT:
        assert "KeyboardInterrupt" in err
