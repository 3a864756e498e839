"""A standalone master with workers at another address: passes, gangs and tasks, with rows that go through the shared folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidwater import AllReduce, ElasticAveraging, LogisticRegression, Trainer, table
from braidwater.deep.modules import MLP
from braidwater.engines import LocalEngine
from braidwater.engines.base import Task
from braidwater.engines.spark import SparkEngine
from braidwater.events import Metric, listen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
COLUMNS = {"label": "y", "features": ["a", "b"]}


@pytest.fixture
def engine(master):
    return SparkEngine(master, 2, host="127.0.0.3")


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    random = np.random.default_rng(5)
    a, b = random.normal(size=(2, 20_000))
    rows = pa.table({"a": a, "b": b, "y": (a - b + random.logistic(size=len(a)) > 0).astype(np.int64)})
    path = str(tmp_path_factory.mktemp("points") / "points.parquet")
    pq.write_table(rows, path, row_group_size=3000)
    return path


def test_passes_fold_what_executors_have_written(master, engine, points):
    there = table(master.read.parquet(points).where("a > -100"), name="points")
    assert there.files is None
    found = LogisticRegression().fit(there, **COLUMNS, engine=engine)
    expected = LogisticRegression().fit(there.parquet, **COLUMNS, engine=LocalEngine(1))
    assert np.array_equal(found.coef_, expected.coef_)
    assert there.parquet.files[0].startswith(master.conf.get("spark.braidwater.shared"))


def test_a_gang_reads_rows_shuffled_into_the_shared_folder(master, engine, points, monkeypatch):
    monkeypatch.setattr("braidwater.deep.rows.GANG_MEMORY", 0)  # blocks of all sizes lie in files
    shared = Path(master.conf.get("spark.braidwater.shared"))
    seen = []

    def look(event):
        if isinstance(event, Metric):
            seen.extend(shared.glob("braidwater-*/private-*.blocks"))

    def trained(on):
        trainer = Trainer(MLP, strategy=AllReduce(2), epochs=2, batch_size=256, seed=5, shuffle=True)
        return trainer.fit(points, **COLUMNS, engine=on).module_.state_dict()

    with listen(look):
        found = trained(engine)
    assert seen
    expected = trained(LocalEngine(2))
    assert all(weights.equal(expected[name]) for name, weights in found.items())
    assert not list(shared.glob("braidwater-*/private-*.blocks"))


def test_asynchronous_workers_and_tasks_run_there(engine, points):
    strategy = ElasticAveraging(2, every=4, asynchronous=True)
    trainer = Trainer(MLP, strategy=strategy, epochs=2, batch_size=256, seed=5).fit(points, **COLUMNS, engine=engine)
    assert trainer.history_[-1]["loss"] < 0.6
    outcomes = engine.tasks(Task(str(number), abs, (-number,)) for number in range(5))
    assert sorted(outcome.value for outcome in outcomes) == list(range(5))
