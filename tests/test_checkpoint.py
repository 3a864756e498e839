"""Killed with SIGKILL in the middle of an epoch and resumed: the same weights, bit for bit."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from braidwater.deep import EarlyStopping, Trainer
from braidwater.engines import LocalEngine
from braidwater.errors import CheckpointError, CorruptModelError, ModelSchemaError, UnsupportedError
from braidwater.events import CheckpointWritten, WorkerLost, listen
from braidwater.parallel import AllReduce, Averaging, Data, Sharded, Single
from braidwater.parallel import checkpoint as checkpoint_module
from braidwater.parallel.checkpoint import Checkpoints, Progress
from braidwater.parallel.member_state import MemberState, join_tensors, split_tensors
from braidwater.parallel.shards import Part
from braidwater.testing.strategies import _mlp_training, _points, uneven_store


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
    folders = sorted(folder.name for folder in tmp_path.glob("step-*"))
    assert folders[-1] in ("step-000000000028", "step-000000000030"), "33 steps were taken, 14 an epoch"
    progress = json.loads((tmp_path / folders[-1] / "checkpoint.json").read_text())["progress"]
    assert (progress["epoch"], progress["step"]) in ((2, 0), (2, 2))
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


def state(value, rows=2, parts=None):
    return MemberState({"weight": torch.full((rows, 3), float(value))}, {}, parts or {})


def test_what_was_left_half_written_is_not_taken(tmp_path):
    points = Checkpoints(tmp_path, {})
    points.write_member(1, 0, state(1))
    assert points.newest() is None
    points.complete(1, 1, {"steps": 1})
    points.write_member(2, 0, state(2))
    assert points.newest().progress.steps == 1
    points.sweep()
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-000000000001"]


def test_training_goes_on_while_a_checkpoint_is_written_from_a_copy(tmp_path, monkeypatch):
    may_write = threading.Event()
    save = checkpoint_module.save_file
    monkeypatch.setattr(checkpoint_module, "save_file", lambda *given: (may_write.wait(20), save(*given)))
    points, live = Checkpoints(tmp_path, {}), state(1)
    assert points.write(0, 1, live, Progress(steps=1)) is None
    live.tensors["weight"].fill_(5)
    assert points.written() is None
    assert points.newest() is None
    threading.Timer(0.2, may_write.set).start()
    before = points.write(0, 1, live, Progress(steps=2))  # one at a time: this waits for the first
    assert before.steps == 1
    assert before.bytes == sum(file.stat().st_size for file in (tmp_path / "step-000000000001").iterdir())
    assert points.wait().steps == 2
    assert points.wait() is None
    values = [
        Checkpoints(tmp_path, {}).newest().member(0).tensors["weight"][0, 0].item(),
        *live.tensors["weight"][0, :1],
    ]
    assert values == [5, 5]
    shutil.rmtree(tmp_path / "step-000000000002")
    assert points.newest().member(0).tensors["weight"][0, 0] == 1


def test_worker_0_waits_for_the_parts_of_the_others(tmp_path):
    points = [Checkpoints(tmp_path, {}) for _ in range(2)]
    points[0].write(0, 2, state(1), Progress(steps=1))
    time.sleep(0.1)
    assert points[0].written() is None
    assert points[0].newest() is None
    points[1].write(1, 2, state(2), Progress(steps=1))
    assert points[1].wait() is None
    assert points[0].wait().steps == 1
    assert points[0].newest().members == 2
    points[0].write(0, 2, state(3), Progress(steps=2))
    points[0].abandon()  # the other will never come
    assert points[0].newest().progress.steps == 1


def test_a_disk_that_is_full_is_an_error_of_the_training_and_the_last_checkpoint_is_kept(rows, tmp_path):
    wide = {"module": lambda i, o: nn.Linear(i, o), "early_stopping": None, "epochs": 3}
    fit(trainer(str(tmp_path), **{**wide, "epochs": 1}), rows)
    newest = Checkpoints(tmp_path, {}).newest()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"could not be written to .*File too large.*one before it is whole"):
            fit(trainer(str(tmp_path), **wide), rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Checkpoints(tmp_path, {}).newest().folder == newest.folder
    fit(trainer(str(tmp_path), **wide), rows)


WRITER = """
import itertools, os, signal, sys, tempfile
import torch
from braidwater.parallel.checkpoint import Checkpoints, Progress
from braidwater.parallel.member_state import MemberState

def write_four(path, told, last):
    moments = 0

    def on_event(event, arguments):  # files opened, made, renamed, removed
        nonlocal moments
        if any(str(argument).startswith(path) for argument in arguments[:2]):
            moments += 1
            if moments == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)
    points = Checkpoints(path, {})
    for steps in range(1, 5):
        points.write(0, 1, MemberState({"weight": torch.full((9,), float(steps))}, {}), Progress(steps=steps))
        points.wait()
        os.write(told, bytes([steps]))
    os._exit(0)

for last in itertools.count(1):
    with tempfile.TemporaryDirectory() as path:
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            write_four(path, told, last)
        os.close(told)
        _, status = os.waitpid(child, 0)
        in_place = max(os.read(heard, 9), default=0)
        os.close(heard)
        found = Checkpoints(path, {}).newest()
        steps = 0 if found is None else found.progress.steps
        assert in_place <= steps <= in_place + 1, (last, in_place, steps)
        if found is not None:
            assert torch.equal(found.member(0).tensors["weight"], torch.full((9,), float(steps)))
        if status == 0:
            break
print(last)
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint():
    """Before each thing that writing does to files, in turn, the process is killed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", WRITER]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 40


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_parts_are_put_together_for_any_number_of_workers(workers, tmp_path):
    whole = torch.arange(27.0).reshape(9, 3)
    points = Checkpoints(tmp_path, {})
    for rank, (begin, end) in enumerate([(0, 4), (4, 9), (9, 9)]):
        part = Part((9, 3), (begin, 0), (end - begin, 3))
        points.write_member(1, rank, MemberState({"weight": whole[begin:end].clone()}, {}, {"weight": part}))
    points.complete(1, 3, {"steps": 1})
    found = points.newest()
    assert found.member(1).tensors == {}
    for rank in range(workers):
        begin, end = 9 * rank // workers, 9 * (rank + 1) // workers
        taken = found.part("weight", Part((9, 3), (begin, 0), (end - begin, 3)), torch.float32)
        assert torch.equal(taken, whole[begin:end])
    (tmp_path / "step-000000000001" / "member-1.safetensors").write_bytes(b"changed")
    with pytest.raises(CorruptModelError, match=r"member-1.safetensors' was changed"):
        points.newest().part("weight", Part((9, 3), (0, 0), (9, 3)), torch.float32)


class BreakingLoss(nn.Module):
    """The loss of the strategy checks, which fails in its `last`-th call."""

    def __init__(self, last):
        super().__init__()
        self.calls, self.last = 0, last

    def forward(self, output, target):
        self.calls += 1
        if self.calls == self.last:
            raise CheckpointError("enough")
        return (output - target) ** 2


@pytest.mark.parametrize(
    ("strategy", "other"),
    [(AllReduce(2), AllReduce(3)), (Sharded(2, min_parameters=1), Sharded(3, min_parameters=1))],
    ids=["all_reduce", "sharded"],
)
def test_another_number_of_workers_goes_on_to_the_same_weights(strategy, other, tmp_path):
    """13 steps an epoch; broken off in the 22nd, in the middle of an epoch."""
    training = replace(_mlp_training(), optimizer=adamw, clip_norm=0.5)
    data = Data(uneven_store(_points()))
    whole = Single().train(training, data, LocalEngine(1))
    broken = replace(training, loss=BreakingLoss(22), checkpoint=str(tmp_path), checkpoint_every=5)
    with pytest.raises(CheckpointError, match="enough"):
        strategy.train(broken, data, LocalEngine(2))
    resumed_at = Checkpoints(tmp_path, {}).newest().progress.steps
    assert resumed_at in (15, 20)
    found = other.train(replace(training, checkpoint=str(tmp_path)), data, LocalEngine(3))
    assert found.steps == whole.steps
    for name, weights in whole.weights.items():
        torch.testing.assert_close(found.weights[name], weights, rtol=0, atol=1e-10, msg=name)
    np.testing.assert_allclose([r["loss"] for r in found.history], [r["loss"] for r in whole.history], rtol=1e-10)


def adamw(module):
    return torch.optim.AdamW(module.parameters(), lr=0.01)


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
