"""A worker is killed in the middle of an epoch: training goes on from its checkpoint, and every row counts once."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from braidwater.events import PassStarted, WorkerLost, listen
from braidwater.parallel import AllReduce
from braidwater.testing.strategies import _own_output, _row_training, _train


class KillAt(torch.nn.Module):
    """A loss whose `last`-th call on worker 1 kills it, once only: `mark` is a file that remembers it."""

    def __init__(self, last, mark):
        super().__init__()
        self.calls, self.last, self.mark = 0, last, mark

    def forward(self, output, target):
        self.calls += 1
        if self.calls == self.last and torch.distributed.get_rank() == 1 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return _own_output(output, target)


@pytest.mark.parametrize("last", np.random.default_rng(11).integers(1, 50, 2))
def test_no_row_is_lost_and_none_counts_twice(last, tmp_path):
    training, columns = _row_training()
    training = replace(
        training,
        batch_size=4,
        loss=KillAt(last, tmp_path / "mark"),
        checkpoint=str(tmp_path / "points"),
        checkpoint_every=3,
        max_restarts=1,
    )
    heard = []
    with listen(heard.append):
        trained = _train(AllReduce(workers=2), training, columns)
    assert set(trained.weights["count.weight"][:, 0].tolist()) == {1.0}
    lost = next(event.time for event in heard if isinstance(event, WorkerLost))
    again = max(event.time for event in heard if isinstance(event, PassStarted))
    assert 0 < again - lost < 30  # seconds, on a machine that does other things too
