"""Every kind of table keeps the contract; addresses, splits and writing back."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Lock

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from sqlglot import exp

from braidwater import options
from braidwater.errors import TableError, TableNotFoundError
from braidwater.tables import ComputedTable, Table, table, train_test_split, write_table
from braidwater.tables.arrow import ArrowFileTable, ArrowTable
from braidwater.tables.duckdb import DuckDBTable
from braidwater.tables.duckdb_memory import _database
from braidwater.tables.files import ASKING
from braidwater.tables.parquet import ParquetTable
from braidwater.tables.split import SampledTable
from braidwater.testing import TABLE_CHECKS
from braidwater.testing.tables import example_rows


def in_parquet(rows, folder):
    pq.write_table(rows, folder / "rows.parquet", row_group_size=1500)
    return table(folder / "rows.parquet")


def in_two_parquet_files(rows, folder):
    half = rows.num_rows // 2
    pq.write_table(rows.slice(0, half), folder / "part-0.parquet", row_group_size=700)
    pq.write_table(rows.slice(half), folder / "part-1.parquet")
    return table(str(folder / "part-*.parquet"))


def in_arrow_file(rows, folder):
    with pa.ipc.new_file(folder / "rows.arrow", rows.schema) as sink:
        sink.write_table(rows, max_chunksize=900)
    return table(folder / "rows.arrow")


def in_compressed_feather(rows, folder):
    pyarrow.feather.write_feather(rows, folder / "rows.feather", compression="zstd", chunksize=900)
    return table(folder / "rows.feather")


def in_csv(rows, folder):
    rows.to_pandas().to_csv(folder / "rows.csv", index=False)
    names = {name: str(duckdb_type) for name, duckdb_type in zip(rows.schema.names, TYPES, strict=True)}
    return table(duckdb.connect(), f"SELECT * FROM read_csv('{folder / 'rows.csv'}', columns={names}, header=true)")


TYPES = ("BIGINT", "DOUBLE", "VARCHAR", "BOOLEAN")


def in_duckdb_file(rows, folder):
    return write_table(rows, f"{folder / 'rows.duckdb'}::rows")


def in_duckdb_connection(rows, folder):
    connection = duckdb.connect()
    connection.register("given", rows)
    connection.execute("CREATE TABLE kept AS SELECT * FROM given")
    return table(connection, "SELECT * FROM kept")


def in_memory(rows, folder):
    return table(rows)


def in_polars(rows, folder):
    frame = pl.from_arrow(rows)
    return table(frame.to_arrow().cast(rows.schema))


def computed(rows, folder):
    return ComputedTable(in_parquet(rows, folder), lambda batch: batch, rows.schema, name="same")


PLACES = [
    in_parquet,
    in_two_parquet_files,
    in_arrow_file,
    in_compressed_feather,
    in_csv,
    in_duckdb_file,
    in_duckdb_connection,
    in_memory,
    in_polars,
    computed,
]


@pytest.mark.parametrize("check", TABLE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_law(make, check, tmp_path):
    check(make, tmp_path)


def test_no_kind_of_table_is_left_out(tmp_path):
    kinds = set()
    for number, make in enumerate(PLACES):
        (tmp_path / str(number)).mkdir()
        kinds.add(type(make(example_rows(10), tmp_path / str(number))))
    sampled = {SampledTable}  # holds a part of the rows, so the laws about all rows are tested below
    # in test_postgres_table.py and spark/test_spark_table.py
    served = {kind for kind in _leaves(Table) if any(word in kind.__module__ for word in ("postgres", "spark"))}
    assert kinds | sampled | served == _leaves(Table)
    assert kinds >= {ParquetTable, ArrowTable, ArrowFileTable, DuckDBTable, ComputedTable}


def _leaves(kind):
    below = [c for c in kind.__subclasses__() if c.__module__.startswith("braidwater.tables.")]
    return set(below) if below else {kind}


def test_a_split_takes_every_row_once_and_the_same_way_for_every_reader(tmp_path):
    rows = example_rows(20_000)
    whole = in_parquet(rows, tmp_path)
    train, test = train_test_split(whole, 0.3, seed=5)
    numbers = [part.to_arrow().column("number").to_pylist() for part in (train, test)]
    assert sorted(numbers[0] + numbers[1]) == list(range(20_000))
    assert len(test) == len(numbers[1])
    assert abs(len(test) - 6000) < 300
    by_parts = [b.column(0).to_pylist() for p in test.partitions(100) for b in test.read(["number"], partition=p)]
    assert [number for part in by_parts for number in part] == numbers[1]
    assert train_test_split(table(rows), 0.3, seed=5)[1].to_arrow().column("number").to_pylist() == numbers[1]
    assert train_test_split(whole, 0.3, seed=6)[1].to_arrow().column("number").to_pylist() != numbers[1]


def test_data_frames_of_every_kind_are_tables():
    for frame in (pd.DataFrame({"x": [1.5, 2.5]}), pl.DataFrame({"x": [1.5, 2.5]}), pa.table({"x": [1.5, 2.5]})):
        assert table(frame).to_arrow().to_pydict() == {"x": [1.5, 2.5]}


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # Ibis 12 over DuckDB 2
def test_an_ibis_expression_is_compiled_and_run_by_us(tmp_path):
    ibis = pytest.importorskip("ibis")
    path = tmp_path / "numbers.duckdb"
    write_table(example_rows(100), f"{path}::numbers")
    expression = ibis.duckdb.connect(path).table("numbers")
    rows = table(expression.filter(expression.number < 10).select("number"))
    assert rows.to_arrow().to_pydict() == {"number": list(range(10))}


def test_the_forms_of_an_address(tmp_path):
    path = tmp_path / "flights.duckdb"
    write_table(example_rows(100), f"{path}::flights")
    for address in (
        f"{path}::flights",
        f"duckdb:///{path}::SELECT * FROM flights",
        f"{path}",
        f"duckdb://{path}::flights",
    ):
        assert len(table(address)) == 100
    assert len(table(f"{path}::SELECT number FROM flights WHERE number >= 90")) == 10
    rows = example_rows(50)
    rows.to_pandas().to_csv(tmp_path / "rows.csv", index=False)
    rows.to_pandas().to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    assert len(table(tmp_path / "rows.csv")) == len(table(tmp_path / "rows.jsonl")) == 50


def test_an_empty_text_in_a_csv_file_is_no_null(tmp_path):
    rows = pa.table({"x": [1, 2, 3], "text": ["", None, "a"]})
    assert write_table(rows, tmp_path / "rows.csv").to_arrow().column("text").to_pylist() == ["", None, "a"]


def test_a_folder_of_hive_partitions_has_its_keys_as_columns(tmp_path):
    for year in (2001, 2002):
        (tmp_path / "flights" / f"year={year}").mkdir(parents=True)
        pq.write_table(example_rows(10), tmp_path / "flights" / f"year={year}" / "part.parquet")
    found = table(tmp_path / "flights")
    assert len(found) == 20
    assert set(found.to_arrow().column("year").to_pylist()) == {2001, 2002}


@pytest.mark.parametrize(
    ("address", "kind", "words"),
    [
        ("nowhere.parquet", TableNotFoundError, "no table at 'nowhere.parquet'"),
        ("nowhere.duckdb::t", TableNotFoundError, "no DuckDB file"),
        ("spark://host/db::t", TableError, "Spark"),
        (3.5, TableError, "float is no table"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(address, kind, words):
    with pytest.raises(kind, match=words):
        table(address)


def test_a_broken_file_says_which(tmp_path):
    broken = tmp_path / "broken.parquet"
    pq.write_table(example_rows(), broken)
    broken.write_bytes(broken.read_bytes()[:5000])
    with pytest.raises(TableError, match=r"broken\.parquet.* cannot be read as Parquet"):
        table(broken)


def test_files_of_other_columns_are_refused(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"y": [1]}), tmp_path / "b.parquet")
    with pytest.raises(TableError, match=r"b\.parquet.* differ"):
        table(tmp_path)


def test_only_a_select_is_a_table(tmp_path):
    write_table(example_rows(10), f"{tmp_path}/rows.duckdb::rows")
    for statement in ("SELECT 1; DROP TABLE rows", "WITH x AS (SELECT 1) DELETE FROM rows"):
        with pytest.raises(TableError):
            table(f"{tmp_path}/rows.duckdb::{statement}")
    assert len(table(f"{tmp_path}/rows.duckdb::rows")) == 10


@pytest.mark.parametrize("name", ["out.parquet", "out.csv", "out.arrow", "out.duckdb::t"])
def test_a_failed_write_leaves_the_old_rows(name, tmp_path):
    address = f"{tmp_path}/{name}"
    write_table(example_rows(10), address)

    def fail(batch):
        if batch.column("number")[0].as_py() > 100_000:
            raise ZeroDivisionError
        return batch

    rows = example_rows(200_000)
    with pytest.raises(ZeroDivisionError):
        write_table(ComputedTable(table(rows), fail, rows.schema, name="failing"), address)
    assert len(table(address)) == 10
    assert not [file for file in os.listdir(tmp_path) if file.endswith(".tmp")]


def test_a_full_disk_leaves_the_old_rows(tmp_path):
    path = tmp_path / "out.parquet"
    write_table(example_rows(10), path)
    with pytest.raises(TableError, match="unchanged"), _file_size_limit(50_000):
        write_table(example_rows(200_000), path)
    assert len(table(path)) == 10


def test_a_killed_writer_leaves_the_old_rows(tmp_path):
    path = tmp_path / "out.parquet"
    write_table(example_rows(10), path)
    script = (
        "import os, signal, pyarrow as pa\n"
        "from braidwater.tables import ComputedTable, table, write_table\n"
        "from braidwater.testing.tables import example_rows\n"
        "rows = example_rows(200_000)\n"
        "def die(batch):\n"
        "    if batch.column('number')[0].as_py() > 100_000: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return batch\n"
        f"write_table(ComputedTable(table(rows), die, rows.schema, name='dying'), {str(path)!r})\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert len(table(path)) == 10


def test_rows_of_a_database_are_written_back_into_it_while_they_are_read(tmp_path):
    address = f"{tmp_path}/rows.duckdb"
    write_table(example_rows(200_000), f"{address}::rows")
    written = write_table(table(f"{address}::SELECT number * 2 AS twice FROM rows"), f"{address}::twice")
    assert written.to_arrow().column("twice").to_numpy().sum() == 2 * np.arange(200_000).sum()


def test_queries_of_files_share_a_database_that_keeps_to_the_options(tmp_path, monkeypatch):
    started = []
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda *place, **how: started.append(place) or connect(*place, **how))
    _database.cache_clear()
    rows = in_parquet(example_rows(10), tmp_path)
    settings = [f"current_setting('{name}') AS {name}" for name in ("threads", "memory_limit")]
    setting = exp.select(*settings).from_("this").limit(1)
    for workers, memory in ((3, "150MB"), (3, "150MB"), (1, "600MB"), (3, "150MB")):
        with options(workers=workers, memory=memory):
            found = rows.select(setting).to_pylist()[0]
        assert found["threads"] == workers
        assert found["memory_limit"] == {3: "61.0 MiB", 1: "190.7 MiB"}[workers]  # a third, and at least 64 MB
    assert len(started) == 2


def test_queries_of_several_threads_do_not_see_each_other(tmp_path):
    tables = [table(pa.table({"x": np.full(1000, number)})) for number in range(8)]
    both = Barrier(2)

    def totals(number):
        found = []
        for _ in range(20):
            both.wait(timeout=60)
            found.append(tables[number].select(exp.select("sum(x) AS s").from_("this")).to_pylist()[0]["s"])
        return found

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(totals, (3, 5))) == [[3000] * 20, [5000] * 20]


def test_a_fork_queries_a_database_of_its_own_and_ends_well(tmp_path):
    in_parquet(example_rows(100), tmp_path)
    script = (
        "import os, sys, threading\n"
        "from sqlglot import exp\n"
        "from braidwater.tables import table\n"
        "from braidwater.tables.duckdb_memory import _database\n"
        f"rows = table({str(tmp_path)!r})\n"
        "count = lambda: rows.select(exp.select('count(*) AS n').from_('this')).to_pylist()[0]['n']\n"
        "done = threading.Event()\n"
        "def others():\n"
        "    while not done.is_set(): count()\n"
        "assert count() == 100\n"
        "if os.fork() == 0:\n"
        "    assert _database.cache_info().currsize == 0 and count() == 100\n"
        "    sys.exit(7)\n"  # not os._exit: what the process holds is let go of
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == 7\n"
        "busy = threading.Thread(target=others)\n"
        "busy.start()\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os._exit(0 if count() == 100 else 1)\n"
        "    assert os.wait()[1] == 0 and count() == 100\n"
        "done.set()\n"
        "busy.join()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_footers_of_many_files_are_read_at_a_time_and_rows_keep_their_order(tmp_path, monkeypatch):
    for number in range(200):
        pq.write_table(pa.table({"x": [2 * number, 2 * number + 1]}), tmp_path / f"{number:03}.parquet")
    read, lock, at_work, most = pq.read_metadata, Lock(), 0, 0
    pair = Barrier(2)

    def read_metadata(file):
        nonlocal at_work, most
        with lock:
            at_work, most = at_work + 1, max(most, at_work + 1)
        if Path(file).name in ("000.parquet", "199.parquet"):
            pair.wait(timeout=60)  # the first and the last: one after another they would never meet
        found = read(file)
        with lock:
            at_work -= 1
        return found

    monkeypatch.setattr(pq, "read_metadata", read_metadata)
    rows = table(str(tmp_path))
    assert most <= ASKING
    assert rows.to_arrow()["x"].to_pylist() == list(range(400))
    statistics = rows.statistics(["x"])
    assert (statistics.rows, statistics.columns["x"].minimum, statistics.columns["x"].maximum) == (400, 0, 399)


def test_of_several_broken_files_the_first_is_named(tmp_path):
    for number in range(100):
        pq.write_table(pa.table({"x": [number]}), tmp_path / f"{number:03}.parquet")
    for number in (40, 97):
        (tmp_path / f"{number:03}.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(TableError, match=r"040\.parquet.*cannot be read as Parquet"):
        table(str(tmp_path))
    pq.write_table(pa.table({"z": [1]}), tmp_path / "040.parquet")
    (tmp_path / "097.parquet").unlink()
    with pytest.raises(TableError, match=r"columns of .*040\.parquet.* differ from those of .*000\.parquet"):
        table(str(tmp_path))


def test_a_fingerprint_follows_links_to_what_they_point_at(tmp_path):
    for name, value in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"x": [value]}), tmp_path / name / "rows.parquet")
        os.utime(tmp_path / name / "rows.parquet", (0, 0))
    (tmp_path / "folder").symlink_to(tmp_path / "one")
    (tmp_path / "file.parquet").symlink_to(tmp_path / "one" / "rows.parquet")
    prints = [table(str(tmp_path / link)).fingerprint() for link in ("folder", "file.parquet", "one")]
    assert len(set(prints)) == 1
    for link, target in (("folder", "two"), ("file.parquet", "two/rows.parquet")):
        (tmp_path / link).unlink()
        (tmp_path / link).symlink_to(tmp_path / target)
        assert table(str(tmp_path / link)).fingerprint() != prints[0]


class _file_size_limit:  # noqa: N801 - used as a statement
    """No file may grow beyond `size` bytes: a disk that is full, as far as a writer can tell."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.limits[1]))

    def __exit__(self, *error):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)
        signal.signal(signal.SIGXFSZ, self.handler)
