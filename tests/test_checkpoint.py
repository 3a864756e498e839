"""Killed with SIGKILL in the middle of an epoch and resumed: the same weights, bit for bit."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from braidwater.deep import EarlyStopping, Trainer
from braidwater.errors import CorruptModelError, ModelSchemaError, UnsupportedError
from braidwater.events import CheckpointWritten, WorkerLost, listen
from braidwater.parallel import AllReduce, Averaging
from braidwater.parallel.checkpoint import Checkpoints, MemberState, Progress, join_tensors, split_tensors


def module(inputs, outputs):
    """Everything that has a state: dropout draws numbers, batch normalisation counts."""
    return nn.Sequential(nn.Linear(inputs, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, outputs))


class KillingLoss(nn.Module):
    """A loss that kills its process in its `last`-th call; once only, where `mark` is a file that remembers it."""

    def __init__(self, last=None, mark=None):
        super().__init__()
        self.calls, self.last, self.mark = 0, last, mark

    def forward(self, output, target):
        self.calls += torch.is_grad_enabled()
        if self.calls == self.last and not (self.mark and os.path.exists(self.mark)):
            if self.mark:
                open(self.mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return nn.functional.cross_entropy(output, target, reduction="none")


def trainer(folder, **changes):
    settings = {
        "module": module,
        "loss": KillingLoss(),
        "label_kind": "class",
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 0.02,
        "schedule": "cosine",
        "strategy": "single",
        "early_stopping": EarlyStopping(2),
        "checkpoint": folder,
        "checkpoint_every": 5,
        "seed": 7,
    }
    return Trainer(**{**settings, **changes})


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    random = np.random.default_rng(0)
    features = random.normal(size=(4, 260))
    label = (features[0] + features[1] ** 2 + random.normal(0, 0.5, 260) > 1).astype(int)
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(pa.table({**{f"x{j}": column for j, column in enumerate(features)}, "y": label}), path)
    return str(path)


def fit(made, rows):
    return made.fit(rows, label="y", validation=0.2)


def assert_same_run(one, other):
    for name, weights in other.module_.state_dict().items():
        assert torch.equal(weights, one.module_.state_dict()[name]), name
    assert one.steps_ == other.steps_
    timeless = [
        [{k: v for k, v in record.items() if k != "seconds"} for record in run.history_] for run in (one, other)
    ]
    assert timeless[0] == timeless[1]


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(rows, tmp_path):
    whole = fit(trainer(None), rows)
    script = f"""
import torch
from test_checkpoint import KillingLoss, fit, trainer
torch.set_num_threads({torch.get_num_threads()})
fit(trainer({str(tmp_path)!r}, loss=KillingLoss(33)), {rows!r})
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    folders = sorted(folder.name for folder in tmp_path.iterdir())
    assert folders == ["step-000000000028", "step-000000000030"], "the last two; 33 steps were taken, 14 an epoch"
    progress = json.loads((tmp_path / "step-000000000030" / "checkpoint.json").read_text())["progress"]
    assert (progress["epoch"], progress["step"]) == (2, 2), "in the middle of an epoch"
    assert_same_run(fit(trainer(str(tmp_path)), rows), whole)


def test_resuming_a_finished_training_trains_no_more(rows, tmp_path):
    first = fit(trainer(str(tmp_path)), rows)
    heard = []
    with listen(heard.append):
        again = fit(trainer(str(tmp_path)), rows)
    assert not [event for event in heard if isinstance(event, CheckpointWritten)]
    assert_same_run(again, first)


def test_without_resume_training_starts_anew(rows, tmp_path):
    fit(trainer(str(tmp_path)), rows)
    heard = []
    with listen(heard.append):
        fit(trainer(str(tmp_path), resume=False), rows)
    assert next(event.step for event in heard if isinstance(event, CheckpointWritten)) == 5


@pytest.mark.parametrize("strategy", [AllReduce(2), Averaging(2, every=3)], ids=["all_reduce", "averaging"])
def test_a_gang_that_lost_a_worker_goes_on_to_the_same_weights(strategy, rows, tmp_path):
    whole = fit(trainer(None, strategy=strategy, early_stopping=None), rows)
    heard = []
    killed = trainer(
        str(tmp_path / "points"),
        loss=KillingLoss(20, str(tmp_path / "mark")),
        strategy=strategy,
        early_stopping=None,
        max_restarts=1,
    )
    with listen(heard.append):
        fit(killed, rows)
    assert [event.restart for event in heard if isinstance(event, WorkerLost)] == [True]
    for name, weights in whole.module_.state_dict().items():
        torch.testing.assert_close(killed.module_.state_dict()[name], weights, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("state", ["local", "average", "reset"])
def test_averaging_by_aggregates_resumes_after_an_epoch(state, rows, tmp_path):
    strategy = Averaging(2, optimizer_state=state)
    plain = {"module": lambda i, o: nn.Linear(i, o), "strategy": strategy, "early_stopping": None, "schedule": None}
    whole = fit(trainer(None, **plain, epochs=4), rows)
    fit(trainer(str(tmp_path), **plain, epochs=2), rows)
    assert_same_run(fit(trainer(str(tmp_path), **plain, epochs=4), rows), whole)


def test_a_checkpoint_of_another_training_is_refused(rows, tmp_path):
    fit(trainer(str(tmp_path), epochs=1), rows)
    with pytest.raises(ModelSchemaError, match="its seed is 7, here it is 8"):
        fit(trainer(str(tmp_path), seed=8), rows)


@pytest.mark.parametrize("damage", ["cut", "changed", "json"])
def test_a_damaged_checkpoint_is_refused(damage, rows, tmp_path):
    fit(trainer(str(tmp_path), epochs=1), rows)
    newest = sorted(tmp_path.iterdir())[-1]
    file = newest / ("checkpoint.json" if damage == "json" else "member-0.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "changed":
        content[-3] ^= 1
    else:
        del content[-10:]
    file.write_bytes(content)
    with pytest.raises(CorruptModelError):
        fit(trainer(str(tmp_path)), rows)


def test_what_was_left_half_written_is_not_taken(tmp_path):
    points = Checkpoints(tmp_path, {})
    state = MemberState({"weight": torch.ones(2)}, {})
    points.write_member(1, 0, state)
    assert points.newest(0) is None
    points.complete(1, 1, Progress(steps=1))
    points.write_member(2, 0, state)
    found = points.newest(0)
    assert found is not None
    assert found[0].steps == 1


def test_no_pickle_is_written(rows, tmp_path):
    fit(trainer(str(tmp_path), epochs=1), rows)
    assert {file.suffix for folder in tmp_path.iterdir() for file in folder.iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad, torch.optim.RMSprop])
def test_the_state_of_an_optimiser_survives_the_way_through_json(optimizer):
    module = nn.Linear(3, 2)
    made = optimizer(module.parameters(), lr=0.1)
    module(torch.ones(4, 3)).sum().backward()
    made.step()
    plain, tensors = split_tensors(made.state_dict(), "optimizer")
    state = join_tensors(json.loads(json.dumps(plain)), tensors)
    other = optimizer(nn.Linear(3, 2).parameters(), lr=0.5)
    other.load_state_dict(state)
    for one, two in zip(made.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True):
        assert all(
            torch.equal(torch.as_tensor(one[name]), torch.as_tensor(two[name])) for name in one if one[name] is not None
        )
    assert other.param_groups[0]["lr"] == 0.1


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(UnsupportedError, match="optimizer/rule"):
        split_tensors({"rule": print}, "optimizer")
