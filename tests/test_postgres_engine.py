"""The PostgreSQL engine keeps the contract of an engine in each of its ways, with the answers of the local one."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from braidwater import LinearRegression, LogisticRegression
from braidwater.aggregates import Count, Gram, Moments
from braidwater.blocks import BlockSource
from braidwater.cli.app import app
from braidwater.encoding import Encoding
from braidwater.engines import LocalEngine
from braidwater.engines.postgres import PostgresEngine
from braidwater.engines.postgres import install as postgres_install
from braidwater.engines.postgres.install import doctor, install
from braidwater.errors import CancelledError, NullValueError, OptionError, UnsupportedError
from braidwater.events import WorkerLost, listen
from braidwater.tables import table, write_table
from braidwater.testing import ENGINE_CHECKS, engines

if TYPE_CHECKING:
    from postgres_server import Server

_numbers = itertools.count()
# The engine hands gangs to the local one; once, from rows in the server, shows that it does
LOCAL = ("_gang", "_member")
HERE = [c for c in ENGINE_CHECKS if "shares_the_blocks" in c.__name__ or not any(word in c.__name__ for word in LOCAL)]


@pytest.fixture(scope="module")
def installed(server: Server) -> str:
    """The address of a database that braidwater is installed in."""
    server.run("CREATE DATABASE trained")
    install(server.address("trained"))
    return server.address("trained")


@pytest.fixture(scope="module")
def sessions(installed):
    """Engines by workers and executor, which share their sessions among the tests."""
    made: dict[tuple[int, str], PostgresEngine] = {}

    def make(workers: int = 2, executor: str = "sessions") -> PostgresEngine:
        return made.setdefault((workers, executor), PostgresEngine(installed, workers, executor=executor))

    yield make
    for engine in made.values():
        engine.close()


@pytest.fixture(scope="module")
def flights(installed):
    """Numbers, a category with NULLs, a truth value, a vector, a date and a label, in several blocks."""
    random = np.random.default_rng(3)
    rows = 30_000
    words = np.array(["red", "green", "blue", None], dtype=object)[random.integers(0, 4, rows)]
    distance = random.normal(1e3, 2.0, rows)
    data = pa.table(
        {
            "distance": distance,
            "day": pa.array(random.integers(1, 32, rows), pa.int16()),
            "colour": pa.array(words.tolist(), pa.string()),
            "winter": random.random(rows) < 0.3,
            "wide": pa.array(list(random.normal(size=(rows, 40))), pa.list_(pa.float64())),
            "gap": pa.array([None if row % 9 == 0 else float(row % 7) for row in range(rows)]),
            "late": pa.array((random.random(rows) < 1 / (1 + np.exp(1000 - distance))).astype(np.int64)),
        }
    )
    return write_table(data, f"{installed}::flights")


@pytest.mark.parametrize("check", HERE, ids=lambda check: check.__name__)
def test_law(check, installed, sessions, monkeypatch):
    def stored(data, name="data"):
        """The rows of a check, in the server."""
        address = f"{installed}::checked_{data.num_rows}_{'_'.join(data.schema.names)}"
        try:
            return table(address, name=name)
        except Exception:
            return write_table(data, address)

    class Shared(tempfile.TemporaryDirectory):
        """A folder that the server's user may write into too."""

        def __init__(self) -> None:
            super().__init__()
            os.chmod(self.name, 0o777)

    monkeypatch.setattr(engines, "table", stored)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", Shared)
    check(sessions)


EXECUTORS = ("sessions", "aggregate", "copy", "sql", "auto")


def test_every_way_gives_the_answer_of_the_local_engine(flights, sessions):
    encoding = Encoding(features=["distance", "day"], label="late").fit(flights)
    wide = Encoding(
        features=["colour", "winter", "wide", "gap", "day"], nulls="mean", label="late", label_kind="class"
    ).fit(flights)
    for kind, fitted, executors in (
        (lambda: Gram(encoding.design), encoding, EXECUTORS),
        (lambda: Moments(encoding.design), encoding, EXECUTORS),
        (Count, encoding, EXECUTORS),
        (lambda: Gram(wide.design, 2), wide, EXECUTORS[:3]),
    ):
        with BlockSource(flights, fitted) as rows:
            expected = LocalEngine(2).aggregate(rows, kind())
        exact = set()
        for executor in executors:
            for workers in (1, 2) if executor == "sessions" else (2,):
                with BlockSource(flights, fitted) as rows:
                    found = sessions(workers, executor).aggregate(rows, kind())
                if isinstance(found, int):
                    assert found == expected
                    continue
                assert found.rows == expected.rows == 30_000
                for name in ("mean", "products", "variance", "cross_products"):
                    if hasattr(expected, name):
                        size = np.abs(getattr(expected, name)).max()
                        np.testing.assert_allclose(
                            getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-12 * size
                        )
                if executor in ("sessions", "aggregate"):
                    exact.add(found.mean.tobytes())
        assert len(exact) <= 1  # to the last bit, on any number of workers and by either way


def test_models_are_those_of_the_local_engine_and_are_packed_once(flights, sessions, installed):
    features = ["distance", "day", "colour", "winter"]
    for model in (LogisticRegression(nulls="mean"), LinearRegression(nulls="mean")):
        here = type(model)(**model.get_params()).fit(flights, label="late", features=features)
        there = model.fit(flights, label="late", features=features, engine=sessions(2))
        np.testing.assert_allclose(there.coef_, here.coef_, rtol=1e-6, atol=1e-9)
        assert "the rows stay where they are" in str(there.plan_)
        assert "leave the place" in str(there.plan_)
        assert "leave the server" in str(here.plan_)
    made = "SELECT count(*) FROM pg_class WHERE relnamespace = 'braidwater'::regnamespace AND relname LIKE 'blocks_%'"
    with psycopg.connect(installed, autocommit=True) as connection:
        before = connection.execute(made).fetchone()
        LinearRegression(nulls="mean").fit(flights, label="late", features=features, engine=sessions(2))
        assert connection.execute(made).fetchone() == before
        blocks = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'blocks_%' AND relkind = 'r'"
        ).fetchone()[0]
        connection.execute(
            "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"
        )
        plan = connection.execute(
            f"EXPLAIN SELECT braidwater.aggregate(number, rows, data, 'x') FROM braidwater.{blocks}"
        ).fetchall()
        assert any("Parallel Seq Scan" in row[0] for row in plan)
        assert any("Partial Aggregate" in row[0] for row in plan)


def test_changed_rows_are_packed_anew_and_a_query_leaves_nothing(installed):
    address = f"{installed}::changing"
    write_table(pa.table({"x": np.arange(10.0)}), address)
    rows = table(address)
    encoding = Encoding(features=["x"]).fit(rows)

    def total(engine, source_table):
        with BlockSource(source_table, encoding, passes=2) as source:
            return [engine.aggregate(source, Gram(encoding.design)).mean[0] for _ in range(2)]

    with PostgresEngine(installed, 2, executor="sessions") as engine:
        assert total(engine, rows) == [4.5, 4.5]
        with psycopg.connect(installed, autocommit=True) as other:
            other.execute("UPDATE changing SET x = x + 1")
        assert total(engine, rows) == [5.5, 5.5]
        assert total(engine, table(f"{installed}::SELECT x * 2 AS x FROM changing")) == [11.0, 11.0]
    with psycopg.connect(installed) as other:
        assert other.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'blocks_of_a_query%'").fetchone() == (0,)


def test_predictions_are_written_by_the_server(flights, sessions, installed):
    features = ["distance", "day", "colour"]
    model = LogisticRegression(nulls="mean").fit(flights, label="late", features=features)
    expected = model.predict(flights).to_arrow()
    with psycopg.connect(installed, autocommit=True) as connection:
        written = write_table(model.predict(flights, engine=sessions(2)), f'{installed}::"Predicted flights"')
        found = written.to_arrow()
        assert found.column("wide").equals(expected.column("wide"))
        for name in ("late", "prediction", "distance"):
            assert found.column(name).to_pylist() == expected.column(name).to_pylist()
        probability = next(name for name in expected.schema.names if name.startswith("probability"))
        np.testing.assert_allclose(
            found.column(probability).to_numpy(), expected.column(probability).to_numpy(), rtol=1e-12
        )
        kept = connection.execute('SELECT pg_typeof(day)::text FROM "Predicted flights" LIMIT 1')
        assert kept.fetchone() == ("smallint",)


def test_segments_tell_what_each_worker_sees(sessions, installed):
    seen = sessions(2).segments()
    assert len({one["process"] for one in seen}) == 2
    with psycopg.connect(installed) as connection:
        row = connection.execute("SELECT cores, gpus FROM braidwater.segments").fetchone()
    assert row == (seen[0]["cores"], seen[0]["gpus"])


def test_without_permission_the_rows_are_streamed_and_the_plan_says_so(server, installed, flights):
    server.run("CREATE ROLE reader LOGIN PASSWORD 'r'", "GRANT SELECT ON flights TO reader", database="trained")
    address = server.address("trained", role="reader", password="r")
    rows = table(f"{address}::flights")
    with PostgresEngine(address, 2) as engine:
        model = LinearRegression().fit(rows, label="late", features=["distance", "day"], engine=engine)
        here = LinearRegression().fit(flights, label="late", features=["distance", "day"])
        np.testing.assert_allclose(model.coef_, here.coef_, rtol=1e-9)
        assert "leave the place where the rows lie" in str(model.plan_)
        assert "GRANT EXECUTE" in str(model.plan_)
        assert server.run("SELECT count(*) FROM pg_class WHERE relowner = 'reader'::regrole", database="trained") == [
            (0,)
        ]
        with pytest.raises(OptionError):
            PostgresEngine(address, executor="magic")
    with (
        PostgresEngine(address, 1, executor="sessions") as engine,
        pytest.raises(UnsupportedError, match="GRANT EXECUTE"),
    ):
        LinearRegression().fit(rows, label="late", features=["day"], engine=engine)


def test_errors_of_the_server_arrive_with_their_place(flights, sessions):
    encoding = Encoding(features=["gap"]).fit(flights)
    for executor in ("sessions", "aggregate", "copy"):
        with (
            BlockSource(flights, encoding) as rows,
            pytest.raises(NullValueError, match="3334 NULLs in 30000") as caught,
        ):
            sessions(2, executor).aggregate(rows, Gram(encoding.design))
        assert caught.value is not None


class Slow(Count):
    """A count that takes its time over every block."""

    what = "slow"

    def transition(self, state, block):
        time.sleep(1.0)
        return super().transition(state, block)


def test_a_lost_session_is_opened_again_and_a_cancelled_statement_ends_the_pass(server, flights, installed):
    encoding = Encoding(features=["distance", "wide"]).fit(flights)
    lost: list[WorkerLost] = []

    def disturb(function: str) -> threading.Timer:
        statement = (
            f"SELECT {function}(pid) FROM pg_stat_activity WHERE datname = 'trained' AND query LIKE '%braidwater%call%' "
            "AND state = 'active' AND pid <> pg_backend_pid()"
        )
        timer = threading.Timer(1.0, lambda: server.run(statement))
        timer.start()
        return timer

    with PostgresEngine(installed, 2, executor="sessions") as engine, BlockSource(flights, encoding, passes=9) as rows:
        assert engine.aggregate(rows, Count()) == 30_000
        timer = disturb("pg_terminate_backend")
        with listen(lambda event: lost.append(event) if isinstance(event, WorkerLost) else None):
            assert engine.aggregate(rows, Slow()) == 30_000
        timer.join()
        assert lost
        assert lost[0].restart
        timer = disturb("pg_cancel_backend")
        with pytest.raises(CancelledError, match="cancelled"):
            engine.aggregate(rows, Slow())
        timer.join()
        for session in engine.sessions._open:  # between two passes
            server.run(f"SELECT pg_terminate_backend({session.info.backend_pid})")
        assert engine.aggregate(rows, Count()) == 30_000


def test_a_server_that_crashes_is_waited_for_and_one_that_is_gone_is_named(flights, installed, server):
    encoding = Encoding(features=["distance"]).fit(flights)
    engine = PostgresEngine(installed, 2, executor="sessions")
    with BlockSource(table(f"{installed}::flights"), encoding, passes=9) as rows:
        assert engine.aggregate(rows, Count()) == 30_000
        server.stop("immediate")
        server.start()
        assert engine.aggregate(rows, Count()) == 30_000  # packed blocks are lost in a crash, and made again
    engine.close()
    with pytest.raises(Exception, match="no connection to the server"):
        PostgresEngine("postgresql://postgres@127.0.0.1:1/none").segments()


def test_what_is_missing_is_told_with_how_to_mend_it(server):
    server.run("CREATE DATABASE bare", "CREATE ROLE plain LOGIN PASSWORD 'p'")
    address, plain = server.address("bare"), server.address("bare", role="plain", password="p")
    assert {f.name: f.good for f in doctor(address)}["schema braidwater"] is False
    with pytest.raises(UnsupportedError, match="superuser"):
        install(plain)
    assert server.run("SELECT count(*) FROM pg_namespace WHERE nspname = 'braidwater'", database="bare") == [(0,)]
    server.stop()
    server.start({})  # its Python finds nothing of ours
    try:
        with pytest.raises(UnsupportedError, match=r"PYTHONPATH=.*site-packages"):
            install(address)
        assert server.run("SELECT count(*) FROM pg_namespace WHERE nspname = 'braidwater'", database="bare") == [(0,)]
    finally:
        server.stop()
        server.start()
    install(address, grant=["plain"])
    install(address)  # again: nothing is lost
    assert all(found.good for found in doctor(plain)), doctor(plain)
    with PostgresEngine(plain, 1) as engine:
        assert engine.segments()[0]["cores"] >= 1
    told = CliRunner().invoke(app, ["postgres", "doctor", plain, "--json"])
    assert told.exit_code == 0
    assert {one["name"] for one in json.loads(told.stdout)["findings"]} >= {"server", "PL/Python", "server's Python"}
    assert CliRunner().invoke(app, ["postgres", "install", plain]).exit_code == 1
    assert CliRunner().invoke(app, ["postgres", "uninstall", address]).exit_code == 0
    assert server.run("SELECT count(*) FROM pg_namespace WHERE nspname = 'braidwater'", database="bare") == [(0,)]


def test_a_server_without_pl_python_is_told_how_to_get_it(server, monkeypatch):
    server.run("CREATE DATABASE without")
    monkeypatch.setattr(postgres_install, "LANGUAGE", "plpython9u")  # what no server has
    with pytest.raises(UnsupportedError, match="apt-get install postgresql-plpython3-"):
        install(server.address("without"))


def test_the_shell_trains_explains_and_predicts_in_the_server(installed, flights, tmp_path):
    words = ["logistic_regression", flights.address + "::flights", "--label", "late", "--features", "distance,day"]
    shell = CliRunner()

    def run(*arguments: str) -> dict[str, object]:
        result = shell.invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    here = run("train", *words, "--output", str(tmp_path / "here"))
    there = run("train", *words, "--output", str(tmp_path / "there"), "--engine", installed)
    assert there["coefficients"] == pytest.approx(here["coefficients"], rel=1e-9)
    assert there["plan"]["choices"][0]["value"].startswith("postgres (")
    shown = shell.invoke(app, ["explain", *words, "--engine", installed])
    assert "postgres (" in shown.output
    output = f"{installed}::flights_by_shell"
    predicted = run("predict", str(tmp_path / "there"), words[1], "--engine", installed, "--output", output)
    assert predicted["rows"] == table(output).statistics([]).rows == 30_000
    assert run("evaluate", str(tmp_path / "there"), words[1], "--engine", installed)["metrics"]["accuracy"] > 0.5
