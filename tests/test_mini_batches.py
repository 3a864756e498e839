"""Every row once an epoch, in an order that the seed and the epoch decide, from any step."""

import numpy as np
import pytest

from braidwater.blocks import mini_batches
from braidwater.blocks.base import BlockSchema
from braidwater.blocks.mini_batches import MiniBatches
from braidwater.blocks.store import MemoryStore
from braidwater.blocks.windows import RowForm, Window
from braidwater.encoding.design import CodeTerm, NumberTerm, design_of
from braidwater.errors import EmptyTableError, OptionError
from braidwater.testing.strategies import uneven_store

UNITS = (50, 64, 7, 1, 79)
ROWS = sum(UNITS)
SMALL = {"window_rows": 60, "batch_size": 16}  # several windows, and steps that lie in two of them


def columns(rows=ROWS):
    random = np.random.default_rng(0)
    return {
        "x": np.arange(rows, dtype=np.float32),
        "z": random.standard_normal(rows),
        "kind": random.integers(0, 5, rows).astype(np.uint8),
        "y": np.arange(rows, dtype=np.int32),
        "w": random.random(rows),
        "image": random.integers(0, 256, (rows, 2, 3)).astype(np.uint8),
    }


def form(**roles):
    terms = [NumberTerm(("x",), 0), NumberTerm(("z",), 1), CodeTerm("kind", 2, 4, 1)]
    return RowForm(design_of(terms, ["x", "z", "k1", "k2", "k3", "k4"], label="y", **roles))


@pytest.fixture
def store():
    return uneven_store(columns(), UNITS)


def rows_of(batches, epoch=0, start=0):
    return [batch.labels[: batch.rows] for batch in batches.epoch(epoch, start)]


@pytest.mark.parametrize("share", ["batch", "units"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_row_is_seen_once_on_any_number_of_workers(store, share, size):
    workers = [MiniBatches(store, form(), rank=rank, size=size, share=share, seed=3, **SMALL) for rank in range(size)]
    seen = [rows_of(worker, epoch=2) for worker in workers]
    assert sorted(np.concatenate([np.concatenate(worker) for worker in seen])) == list(range(ROWS))
    assert len({len(worker) for worker in seen}) == 1, "workers that differ in steps would wait for each other for ever"
    assert [worker.rows for worker in workers] == [sum(map(len, rows)) for rows in seen]


@pytest.mark.parametrize("share", ["batch", "units"])
def test_global_rows_are_the_rows_of_a_step_over_all_workers(store, share):
    workers = [list(MiniBatches(store, form(), rank=r, size=3, share=share, **SMALL).epoch(0)) for r in range(3)]
    for step in zip(*workers, strict=True):
        assert {batch.global_rows for batch in step} == {sum(batch.rows for batch in step)}


def test_the_steps_hold_the_same_rows_whatever_the_number_of_workers(store):
    alone = rows_of(MiniBatches(store, form(), seed=3, **SMALL))
    workers = [rows_of(MiniBatches(store, form(), rank=rank, size=2, seed=3, **SMALL)) for rank in range(2)]
    for step, whole in enumerate(alone):
        assert np.array_equal(np.concatenate([worker[step] for worker in workers]), whole)


def test_workers_draw_from_the_same_windows_so_that_a_sorted_table_gives_them_rows_alike():
    sorted_rows = uneven_store(columns(4000), (1000,) * 4)
    for rank in range(2):
        found = np.concatenate(rows_of(MiniBatches(sorted_rows, form(), batch_size=100, rank=rank, size=2)))
        assert np.abs(np.bincount(found // 1000) / len(found) - 0.25).max() < 0.05


def test_steps_are_equally_large_within_one_row(store):
    sizes = [len(rows) for rows in rows_of(MiniBatches(store, form(), **SMALL))]
    assert max(sizes) <= 16
    assert max(sizes) - min(sizes) <= 1


def test_the_order_is_that_of_the_seed_and_the_epoch(store):
    orders = {
        (seed, epoch): tuple(np.concatenate(rows_of(MiniBatches(store, form(), seed=seed, **SMALL), epoch)).tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    again = np.concatenate(rows_of(MiniBatches(store, form(), seed=1, **SMALL), 1))
    assert tuple(again.tolist()) == orders[1, 1]
    assert not np.array_equal(again, np.sort(again))


@pytest.mark.parametrize("start", [1, 4, 12])
def test_an_epoch_resumes_at_any_step_and_reads_no_unit_that_it_skips(store, start):
    read = []

    class Watched(MemoryStore):
        def read(self, number, buffer=None):
            read.append(number)
            return super().read(number, buffer)

    watched = Watched(store.schema, store.units, store._buffers)
    whole = rows_of(MiniBatches(store, form(), **SMALL))
    rest = rows_of(MiniBatches(watched, form(), **SMALL), start=start)
    assert all(np.array_equal(one, other) for one, other in zip(rest, whole[start:], strict=True))
    needed = {int(np.searchsorted(np.cumsum(UNITS), row, "right")) for row in np.concatenate(whole[start:])}
    if start == 12:
        assert len(set(read)) < len(UNITS)
    assert needed <= set(read)


def test_rows_carry_their_features_labels_and_weights(store):
    table = columns()
    for batch in MiniBatches(store, form(weight="w"), **SMALL).epoch(0):
        rows = batch.numbers
        assert np.array_equal(batch.labels, table["y"][rows])
        assert np.array_equal(batch.weights, table["w"][rows])
        assert batch.features.dtype == np.float32
        assert batch.features.flags.c_contiguous
        np.testing.assert_array_equal(batch.features[:, 0], table["x"][rows])
        np.testing.assert_allclose(batch.features[:, 1], table["z"][rows], rtol=1e-6)
        np.testing.assert_array_equal(batch.features[:, 2:], np.eye(5)[table["kind"][rows]][:, 1:])


def test_features_too_wide_for_a_window_are_the_same(store):
    wide = list(MiniBatches(store, form(weight="w"), window_bytes=1000, **SMALL).epoch(1))
    assert Window(store, store.units, form(), limit=1000).features is None
    table = columns()
    for batch in wide:
        np.testing.assert_array_equal(batch.features[:, 0], table["x"][batch.numbers])
        np.testing.assert_array_equal(batch.labels, table["y"][batch.numbers])
        np.testing.assert_array_equal(batch.weights, table["w"][batch.numbers])
    assert sorted(np.concatenate([batch.numbers for batch in wide])) == list(range(ROWS))


@pytest.mark.parametrize("window_bytes", [10, 64 * 2**20])
def test_images_keep_their_shape_and_bytes(store, window_bytes):
    table = columns()
    images = RowForm(form().design, whole="image")
    for batch in MiniBatches(store, images, window_bytes=window_bytes, **SMALL).epoch(0):
        assert batch.features.dtype == np.uint8
        np.testing.assert_array_equal(batch.features, table["image"][batch.numbers])


def test_a_worker_without_rows_in_a_step_gets_one_that_does_not_count():
    store = uneven_store(columns(5), (3, 2))
    workers = [list(MiniBatches(store, form(), batch_size=1, rank=rank, size=2).epoch(0)) for rank in range(2)]
    assert (
        sorted(len(batch.labels[: batch.rows]) for step in zip(*workers, strict=True) for batch in step)
        == [0] * 5 + [1] * 5
    )
    assert all(len(batch.features) == 1 for worker in workers for batch in worker)


def test_more_workers_than_units_still_see_every_row_once():
    store = uneven_store(columns(5), (3, 2))
    workers = [MiniBatches(store, form(), batch_size=2, rank=rank, size=4, share="units") for rank in range(4)]
    assert sorted(np.concatenate([np.concatenate(rows_of(worker)) for worker in workers])) == list(range(5))


def test_without_shuffling_rows_come_in_their_order(store):
    found = np.concatenate(rows_of(MiniBatches(store, form(), shuffle=False, **SMALL)))
    assert np.array_equal(found, np.arange(ROWS))


def test_arrays_of_a_step_do_not_change_while_the_epoch_goes_on(store):
    held = list(MiniBatches(store, form(), **SMALL).epoch(0))
    again = MiniBatches(store, form(), **SMALL).epoch(0)
    for one, other in zip(held, again, strict=True):
        assert np.array_equal(one.features, other.features)


def test_leaving_an_epoch_early_leaves_no_thread(store):
    import threading

    before = set(threading.enumerate())
    epoch = MiniBatches(store, form(), **SMALL).epoch(0)
    next(epoch)
    epoch.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("seed", -1), ("share", "rows")])
def test_impossible_options_are_refused(store, option, value):
    with pytest.raises(OptionError, match=option):
        MiniBatches(store, form(), **{"batch_size": 4, option: value})


def test_an_empty_store_is_refused():
    empty = MemoryStore(BlockSchema(()), [], [])
    with pytest.raises(EmptyTableError):
        MiniBatches(empty, form(), batch_size=4)


@pytest.mark.parametrize("share", ["batch", "units"])
@pytest.mark.parametrize("size", [1, 3])
def test_steps_gathered_at_once_are_those_gathered_one_by_one(store, share, size, monkeypatch):
    def steps(bytes_at_once, start):
        monkeypatch.setattr(mini_batches, "GATHERED_BYTES", bytes_at_once)
        made = MiniBatches(store, form(weight="w"), rank=size - 1, size=size, share=share, **SMALL)
        return list(made.epoch(1, start))

    for start in (0, 5):
        for one, other in zip(steps(1, start), steps(2000, start), strict=True):
            assert (one.step, one.rows, one.global_rows) == (other.step, other.rows, other.global_rows)
            for name in ("features", "labels", "weights", "numbers"):
                np.testing.assert_array_equal(getattr(one, name)[: one.rows], getattr(other, name)[: one.rows])
            assert len(other.features) == max(other.rows, 1)
