"""Blocks and where they are kept: layout, the cache file and its keys, quota, broken files, full disks, memory."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidwater.blocks import Block, BlockColumn, BlockSchema, BlockSource, DiskStore, clear_cache
from braidwater.blocks.disk import open_cached
from braidwater.encoding import Encoding
from braidwater.engines import LocalEngine
from braidwater.errors import CacheError, NullValueError, TableChangedError
from braidwater.events import BlockDone, PassStarted, listen
from braidwater.options import options
from braidwater.tables import table, write_table
from braidwater.testing.engines import Totals, WideRows


@given(st.lists(st.sampled_from(["float64", "float32", "int16", "uint8"]), min_size=1, max_size=8), st.integers(0, 200))
def test_columns_come_back_whatever_their_types_and_number_of_rows(dtypes, rows):
    arrays = {f"c{i}": np.arange(i, i + rows).astype(dtype) for i, dtype in enumerate(dtypes)}
    block = Block.from_arrays(arrays)
    for name, values in arrays.items():
        assert np.array_equal(block[name], values)


def test_neighbours_of_one_type_are_a_matrix_whose_rows_are_contiguous():
    schema = BlockSchema.ordered([BlockColumn(n, d) for n, d in (("a", "float32"), ("y", "uint8"), ("b", "float32"))])
    block = Block.from_arrays({n: np.arange(5) for n in "ayb"}, schema)
    matrix = block.matrix(["a", "b"])
    assert matrix.shape == (2, 5)
    assert matrix[0].flags.c_contiguous
    assert np.shares_memory(matrix, block.buffer)


def test_a_unit_takes_about_eight_megabytes_whatever_a_row_takes():
    for width in (1, 100, 10_000, 3_000_000):
        schema = BlockSchema((BlockColumn("x", "uint8", (width,)),))
        assert schema.bytes(schema.unit_rows) <= 2**23 or schema.unit_rows == 1
        assert schema.bytes(schema.unit_rows + 64) > 2**23


@pytest.fixture
def numbers(tmp_path):
    return write_numbers(tmp_path / "numbers.parquet")


def write_numbers(path, rows=200_000, seed=0):
    values = np.random.default_rng(seed).normal(size=rows)
    pq.write_table(
        pa.table({"number": np.arange(rows, dtype=np.float64), "value": values}), path, row_group_size=50_000
    )
    return table(path)


def test_a_later_session_finds_the_cache(numbers):
    events = []
    for _ in range(2):
        with BlockSource(numbers, WideRows(), passes=2, cache="disk") as source, listen(events.append):
            LocalEngine().aggregate(source, Totals())
    assert [event.origin for event in events if isinstance(event, PassStarted)] == ["table+write", "disk"]


def test_other_rows_or_another_encoder_make_another_cache(numbers, tmp_path):
    with BlockSource(numbers, WideRows(), passes=2, cache="disk") as source:
        LocalEngine().aggregate(source, Totals())
        first = source.cache_path
    os.utime(tmp_path / "numbers.parquet", (1, 1))
    assert BlockSource(table(tmp_path / "numbers.parquet"), WideRows(), cache="disk").cache_path != first
    assert BlockSource(numbers, WideRows(width=300), cache="disk").cache_path != first


def test_a_table_that_changes_while_it_is_read_is_an_error_and_no_cache(numbers, tmp_path):
    def change(event):
        if isinstance(event, BlockDone):
            os.utime(tmp_path / "numbers.parquet", (1, 1))

    with BlockSource(numbers, WideRows(), passes=2, cache="disk") as source:
        with pytest.raises(TableChangedError, match="changed while it was being read"), listen(change):
            LocalEngine().aggregate(source, Totals())
        assert not list(source.cache_path.parent.iterdir())


def test_a_cache_of_rows_that_nobody_can_find_again_goes_with_its_source():
    rows = pa.table({"number": np.arange(1e5), "value": np.zeros(100_000)})
    with BlockSource(table(rows), WideRows(), passes=2, cache="disk") as source:
        LocalEngine().aggregate(source, Totals())
        path = source.store.path
        assert path.is_file()
    assert not path.exists()


def made_store(numbers):
    with BlockSource(numbers, WideRows(), passes=2, cache="disk") as source:
        LocalEngine().aggregate(source, Totals())
        return source.cache_path


@pytest.mark.parametrize("damage", ["truncate", "index", "trailer", "empty"])
def test_a_damaged_cache_is_never_taken_for_good(numbers, damage):
    path = made_store(numbers)
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        data = data[: len(data) // 2]
    elif damage == "index":
        data[-60] ^= 0x01
    elif damage == "trailer":
        data[-1] ^= 0x01
    else:
        data = bytearray()
    path.write_bytes(data)
    with pytest.raises(CacheError):
        DiskStore(path)
    assert open_cached(path) is None
    with BlockSource(numbers, WideRows(), passes=2, cache="disk") as source:
        assert LocalEngine().aggregate(source, Totals())[0] == 200_000


def test_a_cache_from_before_the_last_start_of_the_machine_is_not_trusted(numbers, monkeypatch):
    path = made_store(numbers)
    monkeypatch.setattr("braidwater.blocks.disk._boot_id", lambda: "another boot")
    assert open_cached(path) is None


def test_a_killed_writer_leaves_nothing_that_is_taken_for_good(numbers, tmp_path):
    script = f"""
        import os, signal
        from braidwater.blocks import BlockSource
        from braidwater.engines import LocalEngine
        from braidwater.events import BlockDone, listen
        from braidwater.options import options
        from braidwater.tables import table
        from braidwater.testing.engines import Totals, WideRows
        def die(event):
            if isinstance(event, BlockDone): os.kill(os.getpid(), signal.SIGKILL)
        with options(cache_directory={str(tmp_path / "cache")!r}), listen(die):
            source = BlockSource(table({str(tmp_path / "numbers.parquet")!r}), WideRows(), passes=2, cache="disk")
            LocalEngine().aggregate(source, Totals())
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == -signal.SIGKILL
    with options(cache_directory=tmp_path / "cache"):
        left = [file.suffix for file in (tmp_path / "cache" / "blocks").iterdir()]
        assert left == [".tmp"]
        with BlockSource(numbers, WideRows(), passes=2, cache="disk") as source:
            assert source.store is None
            assert LocalEngine().aggregate(source, Totals())[0] == 200_000
        assert [file.suffix for file in (tmp_path / "cache" / "blocks").iterdir()] == [".blocks"]


def test_a_full_disk_is_named_and_leaves_nothing(numbers):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, limits[1]))
    try:
        with BlockSource(numbers, WideRows(), passes=2, cache="disk") as source:
            with pytest.raises(CacheError, match=r"is full.*cache='none'"):
                LocalEngine().aggregate(source, Totals())
            assert not list(source.cache_path.parent.iterdir())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_the_quota_evicts_what_was_used_longest_ago(tmp_path):
    paths = []
    with options(cache_quota=150_000_000):
        for seed in range(4):
            rows = write_numbers(tmp_path / f"{seed}.parquet", seed=seed)
            with BlockSource(rows, WideRows(), passes=2, cache="disk") as source:
                LocalEngine().aggregate(source, Totals())
                paths.append(source.cache_path)
            os.utime(paths[-1], (seed, seed))
    assert [path.exists() for path in paths] == [False, False, True, True]
    with options(cache_quota=1_000_000), pytest.raises(CacheError, match=r"its quota is 1\.0 MB"):
        LocalEngine().aggregate(BlockSource(rows, WideRows(width=500), passes=2, cache="disk"), Totals())


def test_clearing_the_cache_says_how_much_it_freed(numbers):
    path = made_store(numbers)
    size = path.stat().st_size
    assert clear_cache() == size
    assert not path.exists()


def test_a_store_on_disk_pickles_as_its_path(numbers):
    store = DiskStore(made_store(numbers))
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again.read(3)["number"], store.read(3)["number"])
    assert [unit.start for unit in store.units] == list(np.cumsum([0, *(unit.rows for unit in store.units)])[:-1])


def test_reading_past_the_systems_cache_gives_the_same_blocks(numbers, monkeypatch):
    path = made_store(numbers)
    plain = DiskStore(path)
    monkeypatch.setattr("braidwater.blocks.disk._available_memory", lambda: 0)
    direct = DiskStore(path)
    assert not plain._direct
    for unit in plain.units:
        assert np.array_equal(direct.read(unit.number)["value"], plain.read(unit.number)["value"])


def test_blocks_stay_in_memory_while_they_are_few():
    rows = table(pa.table({"number": np.arange(1e5), "value": np.zeros(100_000)}))
    with options(memory="1GB"):
        assert BlockSource(rows, WideRows(), passes=2).cache == "memory"
        assert BlockSource(rows, WideRows(), passes=1).cache == "none"
    with options(memory="64MB"):
        assert BlockSource(rows, WideRows(), passes=2).cache == "disk"


def test_null_counts_in_an_error_are_those_of_the_whole_table(tmp_path):
    values = np.where(np.arange(300_000) % 3 == 0, np.nan, 1.0)
    write_table(pa.table({"value": values}), tmp_path / "rows.parquet")
    rows = table(tmp_path / "rows.parquet")
    with (
        BlockSource(rows, Encoding().fit(rows)) as source,
        pytest.raises(NullValueError, match="'value' has 100000 NULLs in 300000 rows"),
    ):
        LocalEngine().aggregate(source, Totals())


@pytest.mark.slow
def test_memory_stays_within_its_bound_however_large_the_table(tmp_path):
    """A source of 20 times the bound: 1.3 GB of blocks under memory=64MB, read twice."""
    script = """
        import resource
        import numpy as np, pyarrow as pa
        from braidwater.aggregates.base import Aggregate
        from braidwater.blocks import BlockSource
        from braidwater.encoding import Encoding
        from braidwater.engines import LocalEngine
        from braidwater.options import options
        from braidwater.tables import ComputedTable, table, write_table

        class Rows(Aggregate):
            def initialize(self): return 0
            def transition(self, state, block): return state + block.rows
            def merge(self, state, other): return state + other
            def final(self, state): return state

        batch = pa.record_batch({f"x{i}": np.random.default_rng(i).normal(size=65_536) for i in range(25)})
        def run(count):
            class Endless(ComputedTable):
                def read(self, columns=None, *, partition=None, batch_rows=65_536):
                    for _ in range(count):
                        for start in range(0, 65_536, batch_rows):
                            yield batch.slice(start, batch_rows)
            write_table(Endless(table(pa.table({})), None, batch.schema, name="wide"), PATH)
            rows = table(PATH)
            with BlockSource(rows, Encoding().fit(rows), passes=2) as source:
                for _ in range(2):
                    assert LocalEngine(2).aggregate(source, Rows()) == count * 65_536
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        with options(memory="64MB", cache_directory=CACHE):
            small = run(5)
            large = run(100)
        print(small, large)
        assert large - small < 64e6, (small, large)
    """
    body = (
        textwrap.dedent(script).replace("PATH", repr(str(tmp_path / "w.parquet"))).replace("CACHE", repr(str(tmp_path)))
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
