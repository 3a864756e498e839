"""Rows in a random order, in bounded memory."""

import pickle
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidwater import options
from braidwater.blocks import BlockSource
from braidwater.blocks.disk import open_cached
from braidwater.blocks.shuffle import shuffled
from braidwater.blocks.store import MemoryWriter
from braidwater.deep import MLP, Trainer
from braidwater.encoding import Encoding
from braidwater.engines import LocalEngine
from braidwater.errors import DataWarning
from braidwater.parallel import Averaging
from braidwater.tables import table
from braidwater.testing.strategies import uneven_store


def numbers(store):
    return np.concatenate([store.read(unit.number)["x"].copy() for unit in store.units])


def test_every_row_is_there_once_and_rows_stay_whole():
    rows = np.arange(20_000.0)
    store = uneven_store({"x": rows, "y": -rows}, units=(7000, 5, 6000, 6995))
    found = shuffled(store, lambda: MemoryWriter(store.schema), seed=1)
    order = numbers(found)
    assert np.array_equal(np.sort(order), rows)
    for unit in found.units:
        block = found.read(unit.number)
        assert np.array_equal(block["x"], -block["y"])
    assert np.array_equal(order, numbers(shuffled(store, lambda: MemoryWriter(store.schema), seed=1)))
    assert not np.array_equal(order, numbers(shuffled(store, lambda: MemoryWriter(store.schema), seed=2)))


def test_the_order_tells_nothing_of_where_a_row_came_from():
    store = uneven_store({"x": np.arange(40_000.0), "y": np.zeros(40_000)}, units=(10_000,) * 4)
    order = numbers(shuffled(store, lambda: MemoryWriter(store.schema), seed=0))
    assert abs(np.corrcoef(order, np.arange(40_000))[0, 1]) < 0.02
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    places = np.histogram2d(order, np.arange(40_000), bins=4)[0]
    assert np.abs(places / 2500 - 1).max() < 0.1  # 2500 expected of every quarter in every quarter


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_source_is_shuffled_where_its_blocks_lie(tmp_path, cache):
    pq.write_table(pa.table({"x": np.arange(500.0), "y": [0, 1] * 250}), tmp_path / "rows.parquet")
    rows = table(tmp_path / "rows.parquet")
    with options(cache_directory=tmp_path / "cache"):
        with BlockSource(rows, Encoding(label="y").fit(rows), passes=3, cache=cache) as source:
            LocalEngine(1).materialise(source)
            source.shuffle(0)
            assert source.store.kind == cache
            assert np.array_equal(np.sort(numbers(source.store)), np.arange(500.0))
        left = [file.name for file in (tmp_path / "cache" / "blocks").glob("*")] if cache == "disk" else []
    assert not [name for name in left if name.startswith("private")]


def test_another_machine_reads_the_shuffled_file_in_a_shared_folder(tmp_path, monkeypatch):
    """A machine that was started at another time: a file found in a cache would not be trusted there."""
    pq.write_table(pa.table({"x": np.arange(500.0), "y": [0, 1] * 250}), tmp_path / "rows.parquet")
    rows = table(tmp_path / "rows.parquet")
    with options(cache_directory=tmp_path / "cache"):
        with BlockSource(rows, Encoding(label="y").fit(rows), passes=3, cache="disk") as source:
            LocalEngine(1).materialise(source)
            source.shuffle(0, tmp_path / "shared")
            assert source.store.path.parent == tmp_path / "shared"
            packed = pickle.dumps(source.store)
            monkeypatch.setattr("braidwater.blocks.disk._boot_id", lambda: "another start")
            assert np.array_equal(numbers(pickle.loads(packed)), numbers(source.store))
            assert open_cached(source.store.path) is None
        assert not list((tmp_path / "shared").iterdir())


def test_a_table_sorted_by_label_is_warned_of_and_shuffling_mends_it(monkeypatch):
    monkeypatch.setattr("braidwater.blocks.base.UNIT_BYTES", 16_384)
    random = np.random.default_rng(0)
    label = np.sort(random.integers(0, 2, 4000))
    rows = pa.table({"x": random.normal(size=4000) + 2 * label, "z": random.normal(size=4000), "late": label})
    settings = {"strategy": Averaging(2), "epochs": 2, "batch_size": 40, "learning_rate": 0.02}
    with pytest.warns(DataWarning, match=r"shuffle=True"):
        sorted_ = Trainer(MLP, **settings).fit(rows, label="late")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed = Trainer(MLP, shuffle=True, **settings).fit(rows, label="late")
    assert mixed.evaluate(rows)["log_loss"] < sorted_.evaluate(rows)["log_loss"]
