"""A table of Spark keeps the contract of a table, whatever the frame is made of."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidwater import Encoding, table, write_table
from braidwater.errors import ColumnTypeError, TableError, TableNotFoundError
from braidwater.options import options
from braidwater.stats import describe
from braidwater.tables.spark import shared_folder
from braidwater.testing import TABLE_CHECKS

_numbers = itertools.count()


@pytest.fixture(params=["files", "computed"])
def make(request, spark):
    """Plain Parquet files, which are read where they are; and a frame that Spark has to compute, in several partitions."""

    def made(rows, folder):
        path = folder / f"rows{next(_numbers)}.parquet"
        pq.write_table(rows, path, row_group_size=3_000)
        frame = spark.read.parquet(str(path))
        if request.param == "computed":
            frame = frame.where("number >= 0 OR number IS NULL")
        found = table(frame, name="checked")
        assert (found.files is None) == (request.param == "computed")
        return found

    return made


@pytest.mark.parametrize("check", TABLE_CHECKS, ids=lambda check: check.__name__)
def test_law(check, make, tmp_path):
    check(make, tmp_path)


def test_partitions_of_spark_come_in_their_order_also_where_some_are_empty(spark):
    frame = spark.range(0, 1000, 1, 7).where("id < 100 OR id >= 900")
    assert table(frame, name="ends").to_arrow().column("id").to_pylist() == [*range(100), *range(900, 1000)]
    assert table(frame.where("id < 0"), name="none").to_arrow().num_rows == 0


def test_a_table_is_named_by_session_address_or_select(spark, tmp_path):
    spark.range(5).createOrReplaceTempView("five")
    named = [table(spark, "five"), table("spark://::five"), table(spark, "SELECT id FROM five WHERE id >= 0")]
    assert [found.to_arrow().num_rows for found in named] == [5, 5, 5]
    assert named[0].head(2).column("id").to_pylist() == [0, 1]
    with pytest.raises(TableNotFoundError, match="nowhere"):
        table(spark, "nowhere")
    with pytest.raises(TableError, match="one SELECT"):
        table(spark, "SELECT 1; DROP TABLE five")
    with pytest.raises(TableError, match=r"spark://HOST:PORT::TABLE"):
        table("spark://host/db::t")


def test_a_table_is_replaced_by_one_that_is_whole_or_stays(spark):
    rows = pa.table({"number": np.arange(1000), "half": np.arange(1000, dtype=np.uint8), "wide": [[1.0, 2.0]] * 1000})
    written = write_table(rows, spark, "replaced")
    assert written.to_arrow().column("wide").to_pylist() == [[1.0, 2.0]] * 1000
    again = write_table(
        table(spark, "SELECT number + 1 AS number FROM replaced WHERE number < 10"), "spark://::replaced"
    )
    assert sorted(again.to_arrow().column("number").to_pylist()) == list(range(1, 11))

    with pytest.raises(TableError, match=r"Writing table 'replaced' failed.*unchanged"):
        write_table(table(spark, "SELECT 1 DIV (id - id) AS broken FROM range(3)"), spark, "replaced")
    assert len(table(spark, "replaced")) == 10
    assert [one.name for one in spark.catalog.listTables() if not one.isTemporary] == ["replaced"]


def test_a_column_that_arrow_cannot_carry_is_named(spark):
    with pytest.raises(ColumnTypeError, match=r"'gap'.*interval.*CAST\(gap AS STRING\)"):
        table(spark, "SELECT 1 AS x, make_interval(1, 2) AS gap")
    with pytest.raises(ColumnTypeError, match=r"'gap' .*month_day_nano"):
        write_table(pa.table({"gap": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}), spark, "never")


def test_files_of_several_schemas_are_read_as_spark_reads_them(spark, tmp_path):
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [3], "y": [0.5]}), tmp_path / "b.parquet")
    both = table(spark.read.option("mergeSchema", "true").parquet(str(tmp_path)), name="both")
    assert both.files is None  # one schema cannot be read file by file
    found = both.to_arrow().sort_by("x")
    assert found.to_pydict() == {"x": [1, 2, 3], "y": [None, None, 0.5]}


def test_a_choice_of_columns_of_files_is_read_from_them(spark, tmp_path):
    pq.write_table(pa.table({"x": [1, 2], "y": [0.5, 1.5], "z": ["a", "b"]}), tmp_path / "a.parquet")
    frame = spark.read.parquet(str(tmp_path))
    chosen = table(frame.select("z", "x"), name="chosen")
    assert chosen.files is not None
    assert chosen.to_arrow().to_pydict() == {"z": ["a", "b"], "x": [1, 2]}
    assert chosen.head(1).to_pydict() == {"z": ["a"], "x": [1]}
    assert table(frame.drop("y"), name="dropped").files is not None
    for other in (frame.selectExpr("x + 1 AS x"), frame.select("x").limit(1), frame.withColumnRenamed("x", "w")):
        assert table(other, name="computed").files is None
    assert table(frame.selectExpr("y AS x"), name="renamed").to_arrow().to_pydict() == {"x": [0.5, 1.5]}


def test_statements_that_encoders_send_mean_the_same_in_spark(spark):
    random = np.random.default_rng(1)
    data = pa.table(
        {
            "x": np.where(random.random(2000) < 0.1, np.nan, random.normal(size=2000)),
            "word": [None if n % 7 == 0 else "abc"[n % 3] for n in range(2000)],
            "label": random.random(2000) < 0.5,
        }
    )
    there = write_table(data, spark, "described")
    expected, found = describe(data), describe(there)
    for one, other in zip(expected.columns, found.columns, strict=True):
        assert (one.name, one.nulls) == (other.name, other.nulls)
        assert one.mean is None or one.mean == pytest.approx(other.mean, rel=1e-12)
    encoding = Encoding(nulls="mean", label="label", label_kind="class")
    here, far = (encoding.fit(of).to_json() for of in (table(data), there))
    means = [document["features"][0].pop("fill") for document in (here, far)]
    assert means[0] == pytest.approx(means[1], rel=1e-12)
    assert here == far


def test_without_a_shared_folder_one_is_made_where_all_run_on_this_machine(spark, monkeypatch, tmp_path):
    before = spark.conf.get("spark.braidwater.shared")
    spark.conf.unset("spark.braidwater.shared")
    with options(cache_directory=tmp_path):
        assert shared_folder(spark).startswith(str(tmp_path / "spark"))
        assert shared_folder(spark) == shared_folder(spark)

    class Elsewhere:
        conf = type(
            "Settings", (), {"get": staticmethod(lambda name, default: "yarn" if "master" in name else default)}
        )

    with pytest.raises(TableError, match=r"spark\.braidwater\.shared"):
        shared_folder(Elsewhere)
    spark.conf.set("spark.braidwater.shared", before)


def test_what_was_written_for_workers_goes_with_the_table(spark):
    frame = table(spark, "SELECT id AS number FROM range(10)")
    files = frame.parquet
    folder = os.path.dirname(files.files[0])
    del frame
    assert files.to_arrow().num_rows == 10, "whoever reads the files has them for as long"
    del files
    assert not os.path.exists(folder)
