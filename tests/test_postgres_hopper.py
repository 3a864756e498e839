"""Models hop from session to session of a server: what they learn, and what is lost when something dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pytest
import torch

import braidwater.tables
from braidwater import Trainer, search
from braidwater.blocks.base import Block
from braidwater.blocks.mini_batches import MiniBatches
from braidwater.blocks.store import MemoryStore, Unit, runs
from braidwater.deep.inputs import InputForm
from braidwater.deep.modules import MLP
from braidwater.engines import LocalEngine
from braidwater.engines.postgres import PostgresEngine
from braidwater.engines.postgres.form import unpacked
from braidwater.engines.postgres.form_sql import packed_columns
from braidwater.engines.postgres.install import install
from braidwater.engines.postgres.stream import PackedStream
from braidwater.errors import OptionError
from braidwater.events import CheckpointWritten, Metric, TaskEvent, WorkerLost, listen
from braidwater.model_selection import Choice, LogFloat, SuccessiveHalving, hop
from braidwater.model_selection.hopper.loop import batches_of
from braidwater.model_selection.hopper.partitions import Partition
from braidwater.parallel.base import Replica
from braidwater.parallel.device import torch_threads
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import own_random_numbers
from braidwater.tables import write_table
from braidwater.tables.postgres import PostgresTable

RUNNING = (
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%call%'"
)
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def installed(server) -> str:
    server.run("CREATE DATABASE hops")
    install(server.address("hops"))
    return server.address("hops")


@pytest.fixture(scope="module")
def waves(installed):
    """Two classes that only a net with a hidden layer can tell apart."""
    random = np.random.default_rng(0)
    x = random.normal(size=(3000, 3))
    late = (np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] > 0).astype(np.int64)
    return write_table(pa.table({**{f"x{i}": x[:, i] for i in range(3)}, "late": late}), f"{installed}::waves")


@pytest.fixture(scope="module")
def engine(installed):
    with PostgresEngine(installed, 2) as made:
        yield made


def net(rate: float = 1e-2, epochs: int = 2, module: object = MLP, **settings: object) -> Trainer:
    arguments = {"optimizer": "adamw", "schedule": "cosine", "batch_size": 32, "seed": 3} | settings
    arguments.setdefault("module_arguments", {"hidden": [8], "dropout": 0.2})
    return Trainer(module, learning_rate=rate, epochs=epochs, **arguments)


def packed_store(rows, encoding) -> MemoryStore:
    """The packed blocks of a table of the server, decoded here."""
    columns = packed_columns(rows, encoding.columns)
    with psycopg.connect(rows.address) as connection:
        (name,) = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'braidwater'::regnamespace AND relkind = 'r'"
        ).fetchone()
        found = connection.execute(f"SELECT rows, data FROM braidwater.{name} ORDER BY number").fetchall()
    units, buffers, start = [], [], 0
    for number, (count, data) in enumerate(found):
        block = Block.from_arrays(encoding.encode(unpacked(columns, count, data)), encoding.block_schema)
        units.append(Unit(number, block.rows, start))
        buffers.append(block.buffer)
        start += count
    return MemoryStore(encoding.block_schema, units, buffers)


def sequential(trainer: Trainer, rows, order) -> dict[str, torch.Tensor]:
    """Weights after plain SGD in this process over runs of the packed blocks, in the given order: no hops, no sessions."""
    encoding = trainer.encode(rows, "late")
    form, loss = InputForm(encoding), trainer.loss_of(encoding)
    training = trainer.make_training(trainer.make_module(form, loss), form, loss)
    store = packed_store(rows, encoding)
    parts = [Partition(store, [store.units[n] for n in run]) for run in runs(len(store.units), 2)]
    assert all(len(part.units) > 3 for part in parts)
    steps = sum(-(-part.rows // training.batch_size) for part in parts)
    with own_random_numbers(training.seed, 0), torch_threads(1):
        learner = Learner(training, Replica(), trainer.epochs * steps)
        number = 0
        for epoch, visits in enumerate(order):
            for partition in visits:
                batches = batches_of(MiniBatches(parts[partition], form.rows, batch_size=1), training, partition)
                for batch in batches.epoch(epoch):
                    learner.step(batch, number, epoch)
                    number += 1
        return learner.weights()


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one | other)


def test_hops_learn_the_weights_of_one_process_in_the_same_order_bit_for_bit(waves, engine):
    """Optimizer, schedule and the random numbers of dropout go with the model, and no row leaves the server."""
    models = [net(rate) for rate in (1e-3, 3e-3, 1e-2)]

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("rows leave the server")

    with pytest.MonkeyPatch.context() as patch:
        for reader in (PostgresTable, PackedStream):
            patch.setattr(reader, "read", refused)
        patch.setattr(LocalEngine, "tasks", refused)
        found = hop(models, waves, label="late", engine=engine)
    assert not found.errors
    assert all(sorted(order) == [0, 1] for orders in found.orders for order in orders)
    assert {worker: usage.hops for worker, usage in found.usage.items()} == {0: 6, 1: 6}
    for model, fitted, orders in zip(models, found.models, found.orders, strict=True):
        assert same_bits(fitted.module_.state_dict(), sequential(model, waves, orders))


@pytest.fixture
def shared_folder():
    """A folder that the server's user may write into too."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


class Ending(MLP):
    """A net that ends its session, or the whole server, in its twentieth step, unless somebody has before."""

    def __init__(self, inputs, outputs, flag: str, signal: int) -> None:
        super().__init__(inputs, outputs, hidden=(8,), dropout=0.2)
        self.flag, self.signal, self.calls = Path(flag), signal, 0

    def forward(self, features):
        if self.training:
            self.calls += 1
        if self.calls == 20 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), self.signal)
        return super().forward(features)


@pytest.mark.parametrize(
    "signal", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)], ids=["session", "server"]
)
def test_a_hop_whose_session_or_server_dies_is_done_again_and_changes_nothing(waves, engine, shared_folder, signal):
    given = {"flag": str(shared_folder / "once"), "signal": int(signal)}
    models = [net(module=Ending, module_arguments=given), net(3e-3)]
    lost: list[WorkerLost] = []
    with listen(lambda event: lost.append(event) if isinstance(event, WorkerLost) else None):
        found = hop(models, waves, label="late", engine=engine)
    assert (shared_folder / "once").exists()
    assert [one.restart for one in lost] == [True] * len(lost)
    assert len(lost) >= 1
    assert not found.errors
    for model, fitted, orders in zip(models, found.models, found.orders, strict=True):
        assert same_bits(fitted.module_.state_dict(), sequential(model, waves, orders))


def test_a_client_that_was_stopped_goes_on_with_the_hops_that_were_done(waves, engine, server, tmp_path):
    models = [net(rate) for rate in (1e-3, 1e-2)]
    written: list[object] = []

    def interrupt(event: object) -> None:
        if isinstance(event, TaskEvent) and isinstance(event.told, CheckpointWritten):
            written.append(event)
            if len(written) == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listen(interrupt):
        hop(models, waves, label="late", engine=engine, checkpoint=tmp_path)
    assert server.run(RUNNING, database="hops") == [(0,)]
    found = hop(models, waves, label="late", engine=engine, checkpoint=tmp_path)
    assert sum(usage.hops for usage in found.usage.values()) == 3
    for model, fitted, orders in zip(models, found.models, found.orders, strict=True):
        assert same_bits(fitted.module_.state_dict(), sequential(model, waves, orders))


KILLED = """
import os, sys
from braidwater import Trainer, search
from braidwater.engines.postgres import PostgresEngine
from braidwater.events import CheckpointWritten, TaskEvent, listen
from test_postgres_hopper import net, searched

hops = []

def die(event):
    if isinstance(event, TaskEvent) and isinstance(event.told, CheckpointWritten):
        hops.append(event)
        if len(hops) == 3:
            os.kill(os.getpid(), 9)

if __name__ == "__main__":
    with listen(die), PostgresEngine(sys.argv[1], 2) as engine:
        searched(sys.argv[1] + "::waves", engine, sys.argv[2])
"""


def searched(rows, engine, storage):
    """One model: of two, which goes where first depends on who is done first."""
    return search(
        net(epochs=3), {"learning_rate": [1e-2]}, rows, label="late", sampler="grid", hopper=True, engine=engine,
        storage=storage,
    )  # fmt: skip


def test_a_search_whose_client_was_killed_leaves_no_session_and_goes_on_to_the_same_bits(
    waves, engine, server, installed, tmp_path
):
    whole = searched(waves, engine, tmp_path / "whole")
    tables = "SELECT relname FROM pg_class WHERE relnamespace = 'braidwater'::regnamespace OR relpersistence = 't' ORDER BY 1"
    before, others = server.run(tables, database="hops"), server.run(SESSIONS, database="hops")
    (tmp_path / "client.py").write_text(KILLED)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    killed = subprocess.run(
        [sys.executable, str(tmp_path / "client.py"), installed, str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": paths}, check=False, timeout=120,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    _wait(lambda: server.run(SESSIONS, database="hops") == others)
    assert server.run(tables, database="hops") == before
    again = searched(waves, engine, tmp_path / "killed")
    assert [trial.epochs for trial in again.trials] == [3]
    assert same_bits(again.best_model().module_.state_dict(), whole.best_model().module_.state_dict())
    assert again.best_value == whole.best_value


def test_a_session_ends_in_the_middle_of_a_visit_when_its_client_is_gone(server, installed):
    """Else it would train on for nobody, for as long as its share takes."""
    script = (
        "import sys, time; from braidwater.engines.postgres.sessions import open_session; "
        "open_session(sys.argv[1], application='gone').execute('SELECT pg_sleep(600)')"
    )
    client = subprocess.Popen([sys.executable, "-c", script, installed], stderr=subprocess.DEVNULL)
    running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gone' AND state = 'active'"
    _wait(lambda: server.run(running, database="hops") == [(1,)])
    client.kill()
    client.wait()
    _wait(lambda: server.run(running, database="hops") == [(0,)])


def _wait(holds) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_models_that_are_not_worth_it_are_stopped_and_validation_rows_are_all_seen(waves, engine):
    models = [net(rate, epochs=4, metrics=["accuracy"]) for rate in (1e-5, 3e-2, 2e-5, 3e-5)]
    heard: list[float] = []

    def hear(event: object) -> None:
        if isinstance(event, TaskEvent) and isinstance(event.told, Metric) and event.told.name == "validation_loss":
            heard.append(event.told.value)

    with listen(hear):
        found = hop(
            models, waves, label="late", validation=0.2, scheduler=SuccessiveHalving(reduction=2), engine=engine
        )
    assert [trial.epochs for trial in found.trials] != [4] * 4
    assert found.best == 1
    best = found.best_model
    assert len(best.history_) == 4
    assert best.history_[-1]["validation_loss"] in heard
    _, held_out = braidwater.tables.train_test_split(waves, 0.2, seed=0)
    told = best.evaluate(held_out)  # here, by the ordinary way
    assert best.history_[-1]["validation_accuracy"] == pytest.approx(told["accuracy"], abs=1e-6)
    assert best.history_[-1]["validation_loss"] == pytest.approx(told["log_loss"], rel=1e-5)


def test_a_search_hops_inside_the_server_and_grants_epochs_by_hyperband(waves, engine):
    space = {"learning_rate": LogFloat(1e-4, 5e-2), "module_arguments.hidden": Choice([[4], [8]])}
    study = search(
        net(epochs=4, module_arguments={}), space, waves, label="late", scheduler="hyperband", sampler="random", budget=6,
        hopper=True, engine=engine,
    )  # fmt: skip
    assert len(study.trials) == 6
    assert not [trial.error for trial in study.trials if trial.error]
    assert {trial.epochs for trial in study.trials} > {4}
    assert study.best_model().history_[-1]["validation_loss"] == pytest.approx(study.best_value)


def test_what_cannot_be_told_of_rows_that_stay_is_refused(waves, engine):
    with pytest.raises(OptionError, match="at most 2, the workers of the engine"):
        hop([net()], waves, label="late", engine=engine, workers=3)
    study = search(
        net(epochs=1), {"learning_rate": [0.01]}, waves, label="late", metric="accuracy", sampler="grid", hopper=True,
        engine=engine,
    )  # fmt: skip
    assert "Trainer(metrics=" in str(study.trials[0].error)


class Slow(MLP):
    """A net that takes half a second for a step."""

    def forward(self, features):
        time.sleep(0.5 if self.training else 0)
        return super().forward(features)


def test_a_trial_that_takes_too_long_is_ended_in_its_session(waves, engine, server):
    trainer = net(epochs=1, module=Slow, module_arguments={"hidden": [2]})
    begun = time.monotonic()
    study = search(
        trainer,
        {"learning_rate": [0.01]},
        waves,
        label="late",
        sampler="grid",
        hopper=True,
        engine=engine,
        trial_timeout=1.0,
    )
    assert time.monotonic() - begun < 15  # an epoch takes 47 s
    assert "longer than its 1 seconds" in str(study.trials[0].error)
    assert server.run(RUNNING, database="hops") == [(0,)]
