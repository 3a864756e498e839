"""What Spark loses is made again, on executors that are processes of their own; what cannot be is an error and no wait."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from killing import kill_executor, kill_python_worker, once

from braidwater.engines import LocalEngine
from braidwater.engines.base import Task
from braidwater.engines.spark import SparkEngine
from braidwater.errors import WorkerLostError
from braidwater.events import Metric, WorkerLost, listen
from braidwater.testing.engines import ROWS, ThreePasses, Totals, source

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
KILLS = {"executor": kill_executor, "python worker": kill_python_worker}


@pytest.fixture
def engine(cluster):
    found = SparkEngine(cluster)
    assert found.session.await_slots(2, 60) == 2  # those that an earlier test has killed come back
    return found


class Deadly(Totals):
    """Totals, whose worker dies in the middle, once."""

    def __init__(self, folder, kill):
        self.folder, self.kill = folder, kill

    def transition(self, state, block):
        if (block["number"] == ROWS // 2).any() and once(self.folder, "died"):
            self.kill()
        return super().transition(state, block)


@pytest.fixture(scope="module")
def expected():
    with source() as rows:
        return LocalEngine(1).aggregate(rows, Totals())


@pytest.mark.parametrize("what", KILLS)
def test_a_pass_survives_the_loss_of_a_worker(engine, tmp_path, expected, what):
    with source("disk") as rows:
        assert np.array_equal(engine.aggregate(rows, Deadly(str(tmp_path), KILLS[what])), expected)
        assert np.array_equal(engine.aggregate(rows, Totals()), expected)
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("what", KILLS)
def test_an_iteration_repeats_only_the_pass_in_which_a_worker_was_lost(engine, tmp_path, what):
    asked = []

    class Counted(ThreePasses):
        def passes(self):
            found = []
            while len(found) < 3:
                asked.append(len(found))
                totals = yield Deadly(str(tmp_path), KILLS[what]) if len(found) == 1 else Totals()
                found.append(float(totals[0]))
            return found

    events = []
    with source("disk") as rows, listen(events.append):
        assert engine.iterate(rows, Counted()) == [ROWS] * 3
    assert asked == [0, 1, 2]
    assert [event.restart for event in events if isinstance(event, WorkerLost)] == [True]


@pytest.mark.parametrize("what", KILLS)
def test_a_gang_that_lost_a_worker_starts_again(engine, tmp_path, what):
    folder, kill = str(tmp_path), KILLS[what]

    def member(told):
        import torch
        import torch.distributed as dist

        if told.rank == 1 and once(folder, "died"):
            kill()
        total = torch.ones(1)
        dist.all_reduce(total)
        return told.restarts, total.item()

    with pytest.raises(WorkerLostError, match="lost"):
        engine.gang(member, 2)
    (tmp_path / "died").unlink()
    assert engine.session.await_slots(2, 60) == 2
    assert engine.gang(member, 2, max_restarts=2) in ([(1, 2.0)] * 2, [(2, 2.0)] * 2)


@pytest.mark.parametrize("what", KILLS)
def test_a_task_whose_place_is_lost_is_begun_anew_without_being_asked_to(engine, tmp_path, what):
    folder, kill = str(tmp_path), KILLS[what]

    def dies_once(number):
        if number == 1 and once(folder, "died"):
            kill()
        return number

    outcomes = {one.task.name: one for one in engine.tasks(Task(f"task {n}", dies_once, (n,)) for n in range(4))}
    assert [outcomes[f"task {n}"].value for n in range(4)] == [0, 1, 2, 3]
    assert outcomes["task 1"].attempts == 2


def test_a_gang_goes_on_with_fewer_workers_where_there_are_fewer_slots(engine, tmp_path, monkeypatch):
    folder = str(tmp_path)
    engine.shrink = True
    real = engine.session.slots
    monkeypatch.setattr(
        engine.session, "slots", lambda wanted=1: 1 if os.path.exists(f"{folder}/died") else real(wanted)
    )
    monkeypatch.setattr("braidwater.engines.spark.engine._SHRINK_SECONDS", 1.0)

    def member(told):
        if told.rank == 1 and once(folder, "died"):
            os.kill(os.getpid(), signal.SIGKILL)
        import torch.distributed as dist

        dist.barrier()
        return told.size

    assert engine.gang(member, 2, max_restarts=1) == [1]


@pytest.mark.parametrize("what", ["gang", "tasks", "pass"])
def test_an_interrupt_frees_the_slots(engine, what):
    class Slow(Totals):
        def transition(self, state, block):
            time.sleep(600)
            return state

    def member(told):
        told.emit(Metric(name="here", value=1.0, step=1))
        time.sleep(600)

    def run():
        if what == "gang":
            engine.gang(member, 2)
        elif what == "tasks":
            list(engine.tasks([Task("sleeps", time.sleep, (600,))]))
        else:
            with source() as rows:
                engine.aggregate(rows, Slow())

    timer = threading.Timer(6.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run()
    assert time.monotonic() - begun < 120
    timer.join()
    begun = time.monotonic()
    assert [one.value for one in engine.tasks(Task(str(n), abs, (-n,)) for n in range(2))] in ([0, 1], [1, 0])
    assert time.monotonic() - begun < 120
    assert threading.active_count() < 15
