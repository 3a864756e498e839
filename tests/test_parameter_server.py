"""Parameter servers: the bookkeeping as pure logic, and gangs that lose their members."""

import os
import signal
import time
from dataclasses import replace
from functools import partial
from threading import Thread

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidwater.errors import OptionError, WorkerLostError
from braidwater.events import BlockDone, WorkerLost, listen
from braidwater.parallel import ParameterServer, Single
from braidwater.parallel.parameter_server.clocks import Clocks
from braidwater.parallel.parameter_server.crew import Crew
from braidwater.parallel.parameter_server.runs import Runs
from braidwater.testing.strategies import (
    _mlp_training,
    _own_output,
    _points,
    _row_training,
    _sgd,
    _train,
)

DEEDS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["work", "work", "work", "die"])), max_size=300)


@given(DEEDS, st.integers(0, 3), st.integers(1, 40), st.integers(1, 7))
@settings(deadline=None, max_examples=200)
def test_whatever_workers_do_staleness_is_bounded_and_every_step_is_taken(deeds, staleness, steps, length):
    """Workers push, wait, take runs, die and come back in any order; at last all that live are given time to end."""
    clocks, runs = Clocks(staleness), Runs(steps, length)
    held, waiting, pushes, finished = {}, set(), {}, []

    def act(worker):
        """The next thing a worker does; whether it could do anything."""
        if worker in waiting:
            if not clocks.may_go_on(worker):
                return False
            waiting.discard(worker)
        if worker not in held:
            run = runs.take(worker)
            if run is None:
                return False
            held[worker] = list(run)
            clocks.join(worker)
            pushes[worker] = min([pushes[other] for other in held if other != worker], default=0)
        elif held[worker]:
            others = [pushes[other] for other in held]
            assert pushes[worker] - min(others) <= staleness, "it computes on weights that are too old"
            held[worker].pop(0)
            pushes[worker] += 1
            clocks.tick(worker)
            waiting.add(worker)
        else:
            finished.append(worker)
            del held[worker]
            runs.finish(worker)
            clocks.leave(worker)
        return True

    def die(worker):
        held.pop(worker, None)
        waiting.discard(worker)
        runs.lose(worker)
        clocks.leave(worker)

    for worker, deed in deeds:
        die(worker) if deed == "die" else act(worker)
    while runs.left:
        assert sum(act(worker) for worker in range(4)), "all wait for each other"
    assert sorted(runs.done) == list(range(0, steps, length))


def test_who_takes_up_work_waits_for_nobody_and_nobody_for_it():
    clocks = Clocks(0)
    clocks.join(0)
    for _ in range(5):
        clocks.tick(0)
    clocks.join(1)
    assert clocks.may_go_on(0)
    assert clocks.may_go_on(1)
    clocks.tick(1)
    assert not clocks.may_go_on(1)


def test_the_end_waits_for_a_worker_that_has_not_come_yet():
    crew = Crew(None)
    crew.join(1)
    end = Thread(target=crew.end, args=(2, 30.0))
    end.start()
    end.join(0.2)
    assert end.is_alive()
    crew.join(2)
    assert crew.next_run(2, None) is None
    end.join(5)
    assert not end.is_alive()


class KillAt(torch.nn.Module):
    """A loss that kills its process in its `last`-th call, once only: `mark` is a file that remembers it.

    Then the other processes that call it wait until there are `processes` of them again.
    """

    def __init__(self, loss, last, mark, processes=0):
        super().__init__()
        self.loss, self.calls, self.last, self.mark, self.processes = loss, 0, last, mark, processes

    def forward(self, output, target):
        self.calls += torch.is_grad_enabled()
        (self.mark.parent / f"process-{os.getpid()}").touch()
        if self.mark.exists():
            while len(list(self.mark.parent.glob("process-*"))) < self.processes:
                time.sleep(0.02)
        elif self.calls == self.last:
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.loss(output, target)


def killing_sgd(module, place, last, mark):
    """An optimiser that kills server `place` of two in its `last`-th step. The trainer's optimiser runs on servers alone."""
    made, steps = _sgd(module, 0.05, 0.9), []

    def count(*_):
        steps.append(1)
        first = next(module.parameters()).grad is not None  # of the first server
        if place != first and len(steps) == last and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    made.register_step_pre_hook(count)
    return made


@pytest.mark.parametrize("restarts", [0, 1])
def test_the_rows_of_a_killed_worker_are_taken_over(restarts, tmp_path):
    """All rows count once, but those of the run that it died in: at least once, at most twice."""
    training, columns = _row_training()
    loss = KillAt(_own_output, 30, tmp_path / "mark", 3 if restarts else 0)
    training = replace(training, loss=loss, max_restarts=restarts, epochs=2)
    heard = []
    with listen(heard.append):
        trained = _train(ParameterServer(workers=2), training, columns)
    counts = trained.weights["count.weight"][:, 0].numpy()
    assert set(counts) <= {2.0, 3.0}
    assert 0 < (counts == 3.0).sum() < 201 // 16 + 1, "of one run in two epochs"
    lost = [event for event in heard if isinstance(event, WorkerLost)]
    assert [event.restart for event in lost] == [restarts == 1]
    at_work = [event.worker for event in heard if isinstance(event, BlockDone)]
    assert set(at_work) == {1, 2}
    last = max(event.time for event in heard if isinstance(event, BlockDone) and event.worker == lost[0].worker)
    assert (last > lost[0].time) == (restarts == 1), "its successor joins in"


@pytest.mark.parametrize("place", [0, 1])
def test_a_killed_server_sends_training_back_to_its_checkpoint(place, tmp_path):
    """One worker of two servers equals one process, also when it goes on from a checkpoint of both servers' states."""
    training = replace(_mlp_training(), schedule=lambda step, steps: 1 - step / steps)
    guarded = replace(
        training,
        optimizer=partial(killing_sgd, place=place, last=30, mark=tmp_path / "mark"),  # in the third epoch of 13 steps
        checkpoint=str(tmp_path / "points"),
        max_restarts=1,
    )
    heard = []
    with listen(heard.append):
        served = _train(ParameterServer(workers=1, servers=2, staleness=0), guarded, _points())
    assert [event.worker for event in heard if isinstance(event, WorkerLost)] == [place]
    alone = _train(Single(), training, _points())
    for name, weights in alone.weights.items():
        torch.testing.assert_close(served.weights[name], weights, rtol=0, atol=1e-10)
    for one, other in zip(served.history, alone.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"])


def test_a_training_that_has_lost_all_its_workers_says_so(tmp_path):
    training = replace(_mlp_training(), loss=KillAt(_own_output, 5, tmp_path / "mark"))
    with pytest.raises(WorkerLostError, match="All workers of the parameter server are gone"):
        _train(ParameterServer(workers=1), training, _points())


@pytest.mark.parametrize(
    "options", [{"servers": 0}, {"push_every": 0}, {"pull_every": 0}, {"staleness": -1}, {"workers": 0}]
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(OptionError):
        ParameterServer(**options)


def test_more_servers_than_parameters_are_refused_before_a_worker_starts():
    with pytest.raises(OptionError, match="at most 4"):
        _train(ParameterServer(servers=5), _mlp_training(), _points())
