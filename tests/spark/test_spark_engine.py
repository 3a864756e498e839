"""The Spark engine keeps the contract of an engine, with the answers of the local one."""

from __future__ import annotations

import gc
import time

import cloudpickle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from killing import once

from braidwater import (
    AllReduce,
    Encoding,
    KMeans,
    LinearRegression,
    LogisticRegression,
    Trainer,
    table,
)
from braidwater import block_functions as bf
from braidwater.aggregates import Count
from braidwater.blocks import BlockSource
from braidwater.deep.modules import MLP
from braidwater.engines import LocalEngine
from braidwater.engines.spark import SparkEngine
from braidwater.engines.spark.line import Line
from braidwater.engines.spark.session import Session
from braidwater.errors import NullValueError, OptionError
from braidwater.events import Metric, PassStarted, listen
from braidwater.options import options
from braidwater.testing import ENGINE_CHECKS
from braidwater.testing.engines import ROWS, Totals, source

# many passes, or many gangs, each on Python workers of Spark's that have to start first
LONG = ("every_row", "not_depend", "go_on_without", "hangs_or_dies", "asked_for_late", "share_the_machine", "inexact")


LAWS = [
    pytest.param(check, id=check.__name__, marks=pytest.mark.slow if any(w in check.__name__ for w in LONG) else ())
    for check in ENGINE_CHECKS
]


@pytest.mark.parametrize("check", LAWS)
def test_law(check, make):
    check(make)


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    """Two Parquet files of several row groups, uneven, with a category, gaps, and a vector."""
    folder = tmp_path_factory.mktemp("flights")
    random = np.random.default_rng(3)
    for number, rows in enumerate((70_000, 9_000)):
        x = random.normal(3.0, 2.0, (rows, 3))
        words = np.array(["red", "green", "blue"], dtype=object)[random.integers(0, 3, rows)]
        label = random.random(rows) < 1 / (1 + np.exp(1.0 - 0.5 * x[:, 0] + (words == "red")))
        data = pa.table(
            {
                **{f"x{j}": x[:, j] for j in range(3)},
                "gap": pa.array([None if n % 9 == 0 else float(n % 7) for n in range(rows)]),
                "word": pa.array(words.tolist(), pa.string()),
                "wide": pa.array(list(random.normal(size=(rows, 90))), pa.list_(pa.float64())),
                "late": label.astype(np.int64),
            }
        )
        pq.write_table(data, folder / f"part{number}.parquet", row_group_size=13_000)
    return str(folder)


FEATURES = ["x0", "x1", "x2", "gap", "word", "wide"]


MODELS = {
    "linear": lambda: LinearRegression(nulls="mean"),
    "logistic": lambda: LogisticRegression(nulls="drop"),
    "k-means": lambda: KMeans(4, random_state=1, nulls="mean"),
}


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("linear", 3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("logistic", 1), ("logistic", 3), ("k-means", 2)]),
    ],
)
def test_models_are_those_of_the_local_engine_to_the_last_bit(spark, flights, name, workers):
    """By a pass (linear), by workers that stay (the others), from files and from a table of Spark's own that lies in files."""
    there = table(spark.read.parquet(flights), name="flights")
    assert there.files is not None
    columns = {"features": FEATURES} | ({} if name == "k-means" else {"label": "late"})
    expected = MODELS[name]().fit(flights, **columns, engine=LocalEngine(2))
    for place in (flights, there):
        found = MODELS[name]().fit(place, **columns, engine=SparkEngine(spark, workers))
        for learnt in ("coef_", "intercept_", "cluster_centers_"):
            assert np.array_equal(getattr(found, learnt, None), getattr(expected, learnt, None))


def test_passes_of_an_iteration_are_one_job_and_blocks_are_kept(spark, flights, monkeypatch):
    jobs = []
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda self, *a, **k: jobs.append(k) or run(self, *a, **k))
    events = []
    with listen(events.append):
        model = LogisticRegression().fit(flights, label="late", features=FEATURES[:3], engine=SparkEngine(spark, 2))
    assert [job["barrier"] for job in jobs] == [True]
    origins = [event.origin for event in events if isinstance(event, PassStarted)]
    assert len(origins) >= 4
    assert origins[0] == "table+write"
    assert set(origins[1:]) <= {"memory", "disk"}
    assert "open the files themselves" in str(model.plan_)
    assert "embedded engine" in str(model.plan_)


def test_nulls_are_refused_with_the_count_of_the_whole_table(spark, flights):
    with pytest.raises(NullValueError, match=r"'gap' has 8778 NULLs in 79000 rows"):
        LinearRegression().fit(flights, label="late", features=["gap"], engine=SparkEngine(spark, 2))


def test_more_members_than_slots_is_an_error_at_once(spark):
    engine = SparkEngine(spark)
    assert engine.workers == 3
    for start in (lambda: engine.gang(print, 5), lambda: SparkEngine(spark, 5).tasks([])):
        begun = time.monotonic()
        with pytest.raises(OptionError, match=r"workers=5 .*at most 3.*local\[3,4\]"):
            start()
        assert time.monotonic() - begun < 2
    for wrong in ({"workers": 0}, {"slots": 0}):
        with pytest.raises(OptionError, match="at least 1"):
            SparkEngine(spark, **wrong)


class Cut(Totals):
    """Totals, whose worker loses its line to the driver in the middle, once; it lives on."""

    def __init__(self, folder):
        self.folder = folder

    def transition(self, state, block):
        if (block["number"] == ROWS // 2).any() and once(self.folder, "cut"):
            for line in [found for found in gc.get_objects() if type(found) is Line]:
                line.hang_up()
        return super().transition(state, block)


def test_a_line_that_breaks_loses_no_rows(spark, tmp_path):
    with source("none") as rows:
        expected = LocalEngine(1).aggregate(rows, Totals())
        assert np.array_equal(SparkEngine(spark, 2).aggregate(rows, Cut(str(tmp_path))), expected)
    assert (tmp_path / "cut").exists()


def test_skewed_and_empty_partitions_are_all_seen(spark):
    frame = spark.range(0, 40_000, 1, 5).where("id % 8000 != 7 OR id < 8000").where("id < 8000 OR id >= 39990")
    rows = table(frame.selectExpr("id AS number", "CAST(id AS DOUBLE) AS value"), name="skewed")
    with BlockSource(rows, Encoding(features=["number", "value"]).fit(rows), passes=2) as source:
        for workers in (1, 4):
            assert SparkEngine(spark, workers).aggregate(source, Count()) == 8010


@pytest.mark.slow
def test_predictions_are_a_lazy_data_frame_that_spark_computes(spark, flights):
    model = LogisticRegression().fit(flights, label="late", features=FEATURES[:3])
    there = model.predict(table(spark.read.parquet(flights), name="flights"), engine=SparkEngine(spark, 2))
    assert there.frame.filter("prediction = 1").count() > 0
    expected = model.predict(flights).to_arrow()
    found = there.to_arrow()
    assert found.column("prediction").equals(expected.column("prediction"))
    name = found.schema.names[-1]
    assert np.array_equal(found.column(name).to_numpy(), expected.column(name).to_numpy())


@pytest.mark.slow
def test_a_net_trained_on_spark_is_the_net_trained_here(spark, flights):
    def trained(place, engine):
        trainer = Trainer(MLP, epochs=2, batch_size=256, strategy=AllReduce(2), seed=5, shuffle=False)
        trainer.fit(place, label="late", features=FEATURES[:3], engine=engine)
        return trainer

    expected = trained(flights, LocalEngine(2))
    events = []
    with listen(events.append):
        found = trained(table(spark.read.parquet(flights), name="flights"), SparkEngine(spark, 2))
    for name, weights in expected.module_.state_dict().items():
        assert found.module_.state_dict()[name].equal(weights)
    assert any(isinstance(event, Metric) for event in events)


def test_a_store_of_shards_is_read_anywhere_and_made_again_where_it_is_lost(spark, flights, tmp_path):
    rows = table(flights)
    encoding = Encoding(features=FEATURES, label="late", label_kind="class", nulls="drop").fit(rows)
    engine = SparkEngine(spark, 2)
    with BlockSource(rows, encoding, passes=2, cache="disk") as source, BlockSource(rows, encoding, passes=2) as other:
        store = engine.materialise(source)
        expected = LocalEngine(1).materialise(other)
        assert [unit.rows for unit in store.units] == [unit.rows for unit in expected.units]
        assert source.rows_dropped == other.rows_dropped == 8778
        elsewhere = cloudpickle.loads(cloudpickle.dumps(store))
        with options(cache_directory=tmp_path / "another machine"):
            for unit in store.units[::3]:
                assert np.array_equal(elsewhere.read(unit.number).buffer, expected.read(unit.number).buffer)
        elsewhere.close()


def test_columns_of_files_are_mapped_by_tasks_that_open_the_files(spark, flights, tmp_path):
    """Rows do not pass through the JVM on their way in, stay in their order, and are those that were there."""
    copied = tmp_path / "rows.parquet"
    pq.write_table(pq.read_table(flights).select(["late", "x1", "x0", "word"]), copied, row_group_size=20_000)
    chosen = table(spark.read.parquet(str(copied)).select("x0", "late"), name="chosen")
    mapped = bf.map_blocks(lambda x0, late: {"y": x0 * late}, chosen, engine=SparkEngine(spark, 2))
    plan = mapped.frame._jdf.queryExecution().optimizedPlan().toString()
    assert "Range" in plan
    assert "Relation" not in plan
    here = pq.read_table(copied)
    expected = here["x0"].to_numpy() * here["late"].to_numpy()
    assert mapped.frame.toArrow().column_names == ["x0", "late", "y"]
    assert np.array_equal(mapped.to_arrow()["y"].to_numpy(), expected)
    pq.write_table(here.slice(0, 30_000), copied, row_group_size=10_000)
    with pytest.raises(Exception, match="written anew after the table was opened"):
        mapped.frame.collect()


@pytest.mark.slow
def test_block_functions_run_where_the_rows_are(spark, flights):
    there, engine = table(spark.read.parquet(flights), name="flights"), SparkEngine(spark, 2)
    mapped = bf.map_blocks(lambda wide, w: {"y": wide @ w}, there, constants={"w": np.ones(90)}, engine=engine)
    here = bf.map_blocks(lambda wide, w: {"y": wide @ w}, table(flights), constants={"w": np.ones(90)})
    assert mapped.frame.count() == 79_000
    assert np.allclose(mapped.to_arrow()["y"].to_numpy(), here.to_arrow()["y"].to_numpy())
    trimmed = bf.map_blocks(lambda x0: {"y": x0[x0 > 3.0]}, there, trim=True, engine=engine)
    assert trimmed.frame.count() == int((table(flights).to_arrow()["x0"].to_numpy() > 3.0).sum())
    ours, theirs = (
        bf.aggregate(lambda x0_input: {"x0": x0_input.sum(0)}, place, by="word", engine=on).to_arrow()
        for place, on in ((there, engine), (flights, LocalEngine(1)))
    )
    assert ours.equals(theirs)
    assert bf.analyze(there, engine=engine)["wide"].shape == (None, 90)
