"""Nets are trained inside the server, with the numbers of the local engine, and go on from their last finished iteration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pyarrow as pa
import pytest
import torch

import braidwater
from braidwater import AllReduce, Averaging, Trainer, fit_groups, search
from braidwater.blocks.store import MemoryStore, Unit
from braidwater.deep.modules import MLP
from braidwater.engines import LocalEngine
from braidwater.engines.postgres import PostgresEngine, packing, sessions
from braidwater.engines.postgres.form import unpacked
from braidwater.engines.postgres.form_sql import packed_columns
from braidwater.engines.postgres.install import install
from braidwater.engines.postgres.sessions import open_session
from braidwater.engines.postgres.stream import PackedStream
from braidwater.errors import NullValueError, NumericalError, UnsupportedError
from braidwater.events import Event, Metric, WorkerLost, listen
from braidwater.tables import table, write_table
from braidwater.tables.postgres import PostgresTable
from braidwater.tables.split import SampledTable

if TYPE_CHECKING:
    from postgres_server import Server


@pytest.fixture(scope="module")
def installed(server: Server) -> str:
    """The address of a database that braidwater is installed in."""
    server.run("CREATE DATABASE nets")
    install(server.address("nets"))
    return server.address("nets")


@pytest.fixture(scope="module")
def points(installed):
    """Two features and a label that follows from them."""
    random = np.random.default_rng(5)
    x = random.normal(size=(6_000, 2))
    late = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    return write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "late": late}), f"{installed}::points")


@pytest.fixture(scope="module", autouse=True)
def _small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BLOCK_BYTES", 2**15)  # some ten blocks of some hundred rows
        yield


@pytest.fixture(scope="module")
def engine(installed):
    with PostgresEngine(installed, 2) as made:
        yield made


class SameBlocks(LocalEngine):
    """The local engine over blocks of the same rows as the server's packed ones."""

    def materialise(self, source):
        sample = source.table.sample if isinstance(source.table, SampledTable) else None
        rows = source.table.table if sample is not None else source.table
        columns = packed_columns(rows, source.columns)
        taken = np.ones(len(rows), bool) if sample is None else sample.is_chosen[sample.parts.codes(None, 0, len(rows))]
        with psycopg.connect(rows.address) as connection:
            (name,) = connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'braidwater'::regnamespace AND relkind = 'r'"
            ).fetchone()
            packed = connection.execute(f"SELECT rows, data FROM braidwater.{name} ORDER BY number").fetchall()
        start, units, buffers = 0, [], []
        for number, (count, data) in enumerate(packed):
            kept = unpacked(columns, count, data).filter(pa.array(taken[start : start + count]))
            block = source.encode([kept])
            units.append(Unit(number, block.rows, start))
            buffers.append(block.buffer)
            start += count
        assert len(units) > 4
        source.store = MemoryStore(source.encoder.block_schema, units, buffers)
        return source.store


def net(**settings) -> Trainer:
    given = {"epochs": 3, "batch_size": 64, "learning_rate": 0.02, "strategy": Averaging(workers=2), "seed": 3}
    return Trainer(settings.pop("module", MLP), **{**given, **settings})


def weights(trainer: Trainer) -> np.ndarray:
    return torch.cat([tensor.flatten() for tensor in trainer.module_.state_dict().values()]).numpy()


@pytest.mark.parametrize("optimizer_state", ["local", "average"])
def test_weights_and_metrics_are_those_of_the_local_engine(points, engine, optimizer_state):
    """The same blocks in the same order by the same operations: equal to the last bit, not only beyond rounding."""
    settings = {"strategy": Averaging(workers=2, optimizer_state=optimizer_state), "metrics": ["accuracy"]}
    there = net(**settings).fit(points, label="late", engine=engine, validation=0.2)
    here = net(**settings).fit(points, label="late", engine=SameBlocks(2), validation=0.2)
    np.testing.assert_array_equal(weights(there), weights(here))
    assert [one["loss"] for one in there.history_] == [one["loss"] for one in here.history_]
    for one, other in zip(there.history_, here.history_, strict=True):
        # validation rows are cut into other batches: a mean of sums in another order
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-6)
        assert one["validation_accuracy"] == pytest.approx(other["validation_accuracy"], abs=1e-9)
    assert there.history_[-1]["validation_accuracy"] > 0.9
    assert there.history_[-1]["rows"] == here.history_[-1]["rows"] < 6_000
    assert "the rows stay where they are" in str(there.plan_)


def test_no_row_leaves_the_server(points, engine):
    """Neither rows nor blocks are read by the client, whose share of the work is to average weights."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("rows leave the server")

    with pytest.MonkeyPatch.context() as patch:
        for reader in (PostgresTable, PackedStream):
            patch.setattr(reader, "read", refused)
        patch.setattr(LocalEngine, "aggregate", refused)
        fitted = net(epochs=1).fit(points, label="late", engine=engine, validation=points)
        source = fitted.encoding_.block_schema
    assert fitted.history_[0]["rows"] == 6_000
    assert source.columns


def test_a_session_keeps_its_module_and_its_optimizer(points, engine):
    """From the second epoch on a request holds the common weights, and not the module or the moments again."""
    sent = []
    original = sessions.Sessions._request

    def counted(self, session, request):
        found = original(self, session, request)
        sent.append(len(found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions.Sessions, "_request", counted)
        fitted = net(module_arguments={"hidden": [20_000]}, epochs=2).fit(points, label="late", engine=engine)
    size = weights(fitted).nbytes
    first, second = sent[-4:-2], sent[-2:]
    assert min(first) > 1.9 * size
    assert max(second) < 1.1 * size


class Dropping(torch.nn.Module):
    """A module of the user's own, which the server cannot import; it draws random numbers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(inputs, 16), torch.nn.Dropout(0.2), torch.nn.ReLU(), torch.nn.Linear(16, outputs)
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.layers(rows)


def test_a_module_of_the_users_own_that_draws_random_numbers_is_reproducible(points, engine):
    one, other = (net(module=Dropping, epochs=2).fit(points, label="late", engine=engine) for _ in range(2))
    np.testing.assert_array_equal(weights(one), weights(other))
    assert "the rows stay where they are" in str(one.plan_)


def _after_epoch(number: int, action: Callable[[], object]) -> Callable[[Event], None]:
    done = []

    def heard(event: Event) -> None:
        if isinstance(event, Metric) and event.name == "loss" and event.epoch == number and not done:
            done.append(action())

    return heard


def test_training_goes_on_after_a_session_was_lost(points, engine, server):
    """From the last finished iteration, with the weights and the optimizers that it ended with: as if nothing had been."""
    expected = weights(net().fit(points, label="late", engine=engine))
    kept, lost = (session.info.backend_pid for session in engine.sessions.take(2))
    with listen(_after_epoch(1, lambda: server.run(f"SELECT pg_terminate_backend({lost})"))):
        found = net().fit(points, label="late", engine=engine)
    assert [session.info.backend_pid == kept for session in engine.sessions.take(2)] == [True, False]
    assert lost not in [session.info.backend_pid for session in engine.sessions.take(2)]
    np.testing.assert_array_equal(weights(found), expected)
    assert [one["epoch"] for one in found.history_] == [1, 2, 3]


@pytest.mark.slow
def test_training_goes_on_after_the_server_crashed_between_iterations(points, engine, server):
    """The packed blocks are gone with the crash; they are made again, the same."""
    expected = weights(net().fit(points, label="late", engine=engine))
    with listen(_after_epoch(2, lambda: (server.stop("immediate"), server.start()))):
        found = net().fit(points, label="late", engine=engine)
    np.testing.assert_array_equal(weights(found), expected)


class Sleepy(MLP):
    """A net that takes its time."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if self.training:
            time.sleep(0.01)
        return super().forward(rows)


@pytest.mark.slow
def test_an_iteration_whose_server_dies_is_begun_anew(points, installed, server):
    with PostgresEngine(installed, 2) as engine:
        expected = weights(net(epochs=2).fit(points, label="late", engine=engine))
        timer = threading.Timer(0.3, lambda: (server.stop("immediate"), server.start()))
        lost: list[Event] = []
        with listen(_after_epoch(1, timer.start)), listen(lost.append):
            found = net(module=Sleepy, epochs=2).fit(points, label="late", engine=engine)
        timer.join()
        assert any(isinstance(event, WorkerLost) and event.restart for event in lost)
        np.testing.assert_array_equal(weights(found), expected)


def test_a_client_that_was_stopped_goes_on_from_its_checkpoint_and_leaves_nothing(
    points, engine, installed, server, tmp_path
):
    """What the stopped run has packed of a query is gone, its sessions too; of the last iteration all is kept."""
    query = table(f"{installed}::SELECT a, b, late FROM points WHERE a < 9")

    def stop() -> None:
        raise KeyboardInterrupt

    expected = weights(net().fit(query, label="late", engine=engine))
    with pytest.raises(KeyboardInterrupt), listen(_after_epoch(2, stop)):
        net(checkpoint=tmp_path).fit(query, label="late", engine=engine)
    with pytest.raises(NumericalError, match=r"loss became .* over rows"):
        net(optimizer="sgd", learning_rate=1e30).fit(query, label="late", engine=engine)
    found = net(checkpoint=tmp_path).fit(query, label="late", engine=engine)
    np.testing.assert_array_equal(weights(found), expected)
    left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'blocks_of_a_query%'"
    assert server.run(left, database="nets") == [(0,)]
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%call%'"
    assert server.run(running, database="nets") == [(0,)]


def test_blocks_of_a_client_that_was_killed_are_removed_by_the_next(points, installed, server):
    program = (
        "import os, sys; from braidwater import table; from braidwater.engines.postgres.packing import pack; "
        "from braidwater.engines.postgres.sessions import open_session; session = open_session(sys.argv[1]); "
        "pack(session, table(sys.argv[1] + '::SELECT a FROM points'), ['a']); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, installed], check=False)
    left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'blocks_of_a_query%' AND relkind = 'r'"
    assert server.run(left, database="nets") == [(1,)]
    deadline = time.monotonic() + 20
    while server.run(left, database="nets") != [(0,)] and time.monotonic() < deadline:
        with open_session(installed) as session:  # until the server has seen that its client is gone
            packing.drop(session, packing.pack(session, table(f"{installed}::SELECT b FROM points"), ["b"]))
    assert server.run(left, database="nets") == [(0,)]


@pytest.mark.slow
def test_two_users_train_on_one_table_at_once_and_neither_reads_the_others_blocks(points, installed, server):
    users = ["anna", "bert"]
    server.run(*(f"CREATE ROLE {user} LOGIN PASSWORD 'p'" for user in users))
    install(installed, grant=users)
    server.run(*(f"GRANT SELECT ON points TO {user}" for user in users), database="nets")
    found: dict[str, np.ndarray] = {}

    def train(user: str) -> None:
        address = server.address("nets", role=user, password="p")
        with PostgresEngine(address, 1) as engine:
            rows = table(f"{address}::points")
            found[user] = weights(net(strategy=Averaging(workers=1)).fit(rows, label="late", engine=engine))

    threads = [threading.Thread(target=train, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found["anna"], found["bert"])
    (name,) = server.run(
        "SELECT relname FROM pg_class WHERE relowner = 'anna'::regrole AND relkind = 'r'", database="nets"
    )[0]
    with (
        psycopg.connect(server.address("nets", role="bert", password="p")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(f"SELECT * FROM braidwater.{name}")


def test_a_gang_reads_the_rows_here_and_the_plan_says_what_leaves(points, engine):
    fitted = net(strategy=AllReduce(workers=2), epochs=1).fit(points, label="late", engine=engine)
    assert fitted.history_[0]["rows"] == 6_000
    told = str(fitted.plan_)
    assert re.search(r"engine local: [0-9.]+ KB leave the place where the rows lie", told)
    assert "Averaging(every='epoch') does not, and trains where the rows lie" in told
    assert "the rows stay where they are" in str(net().explain(points, label="late", engine=engine))


def test_errors_come_before_training_or_name_what_to_do(points, engine, installed):
    gaps = write_table(pa.table({"a": [1.0, None, 3.0] * 50, "late": [0, 1, 1] * 50}), f"{installed}::gaps")
    with pytest.raises(NullValueError, match="50 NULLs in 150"):
        net().fit(gaps, label="late", engine=engine)
    dropped = net(nulls="drop", epochs=1).fit(gaps, label="late", engine=engine)
    assert dropped.history_[0]["rows"] == 100
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "MOST_BYTES", 1000)
        with pytest.raises(UnsupportedError, match=r"at most 1 GB.*AllReduce"):
            net().fit(points, label="late", engine=engine)
    with pytest.raises(UnsupportedError, match="ORDER BY random"):
        net(shuffle=True).fit(points, label="late", engine=engine)


@pytest.mark.slow
def test_groups_and_trials_run_as_tasks_beside_sessions(points, engine, installed, server):
    server.run("CREATE TABLE sides AS SELECT *, (a > 0)::text AS side FROM points", database="nets")
    rows = table(f"{installed}::sides")
    trainer = net(strategy="single", epochs=1)
    found = fit_groups(trainer, rows, by=["side"], label="late", engine=engine)
    here = fit_groups(trainer, rows, by=["side"], label="late", engine=LocalEngine(1))
    assert len(found.models) == 2
    for code in found.models:
        np.testing.assert_array_equal(weights(found.models[code]), weights(here.models[code]))
    query = table(f"{installed}::SELECT *, 1 AS one FROM sides")
    with pytest.raises(UnsupportedError, match="CREATE TABLE"):
        fit_groups(trainer, query, by=["side"], label="late", engine=engine)
    study = search(
        trainer, {"learning_rate": [0.01, 0.05]}, points, label="late", budget=2, engine=engine, sampler="grid"
    )
    assert len(study.trials) == 2
    assert all(trial.state == "complete" for trial in study.trials), study.trials


def test_segments_tell_what_each_worker_sees(points, installed):
    for place in (points, installed):
        seen = braidwater.segments(place, 2)
        assert len({one["process"] for one in seen}) == 2
        assert seen[0]["torch"] == torch.__version__
        assert seen[0]["processor"]
        assert seen[0]["cuda"] == []
    (here,) = braidwater.segments(workers=1)
    for name in ("host", "processor", "cores", "memory", "gpus", "braidwater", "torch"):
        assert here[name] == seen[0][name]


@pytest.mark.slow
def test_without_torch_in_the_server_nets_are_trained_here_and_who_insists_is_told(points, installed, server):
    """The server's Python finds everything but torch."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for entry in Path(torch.__file__).parents[1].iterdir():
            if not entry.name.startswith("torch"):
                (Path(folder) / entry.name).symlink_to(entry)
        server.stop()
        server.start({"PYTHONPATH": f"{Path(braidwater.__file__).parents[1]}:{folder}"})
        try:
            with PostgresEngine(installed, 2) as engine:
                fitted = net(epochs=1).fit(points, label="late", engine=engine)
                assert "leave the place" in str(fitted.plan_)
            with (
                PostgresEngine(installed, 2, executor="sessions") as engine,
                pytest.raises(UnsupportedError, match="no torch"),
            ):
                net(epochs=1).fit(points, label="late", engine=engine)
            server.stop()
            server.start({})  # nor anything of ours
            with PostgresEngine(installed, 2) as engine, pytest.raises(UnsupportedError, match="postgres doctor"):
                net(epochs=1).fit(points, label="late", engine=engine)
        finally:
            server.stop()
            server.start()
