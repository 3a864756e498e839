"""Mini-batches that a thread gathers while a step computes: the same ones, and nothing is left of it."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.parallel import ahead
from braidwater.parallel.ahead import gathered_ahead

PATIENCE = 60  # seconds, of a machine that is busy


def batch(step, width=1):
    return MiniBatch(step, 1, 1, np.zeros((1, width)), None, None)


def threads():
    return [one for one in threading.enumerate() if one.name.startswith("braidwater-batches")]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 100), st.sampled_from([1, 2**14, 2**18]))
def test_all_mini_batches_come_in_their_order(count, width):
    assert [one.step for one in gathered_ahead(batch(step, width) for step in range(count))] == list(range(count))
    assert not threads()


def test_the_next_ones_are_gathered_while_a_step_computes():
    gathered = threading.Event()

    def batches():
        yield batch(0)
        gathered.set()
        yield batch(1)

    for one in gathered_ahead(batches()):
        assert one.step or gathered.wait(PATIENCE)


def test_no_more_is_held_than_two_groups(monkeypatch):
    monkeypatch.setattr(ahead, "_GROUP_BYTES", 4 * 8)
    made, most = [], 0
    for number, _ in enumerate(gathered_ahead(made.append(step) or batch(step) for step in range(50))):
        most = max(most, len(made) - number)
    assert most <= 8


def test_an_error_arrives_and_whoever_leaves_early_leaves_nothing_behind():
    closed = []

    def batches(broken):
        try:
            for step in range(100):
                if step == broken:
                    raise OSError("the disk is gone")
                yield batch(step)
        finally:
            closed.append(threading.current_thread())

    with pytest.raises(OSError, match="the disk is gone"):
        list(gathered_ahead(batches(40)))
    source = batches(None)
    taken = gathered_ahead(source)
    next(taken)
    taken.close()
    assert len(closed) == 2  # though it is still known here
    assert not threads()
