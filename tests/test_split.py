"""Tables parted by class, by group and by time: exact, without copies, the same in every pass."""

from __future__ import annotations

import datetime
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidwater.errors import ColumnNotFoundError, NullValueError, OptionError
from braidwater.tables import table, train_test_split
from braidwater.tables.parts import draw_parts, group_parts, ordered_parts
from braidwater.tables.split import PartedTable

ROWS = 30_000


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(1)
    kind = random.choice(["a", "b", "c", "d"], ROWS, p=[0.9, 0.09, 0.009, 0.001])
    return pa.table(
        {
            "number": np.arange(ROWS),
            "class": pa.array(kind, mask=random.random(ROWS) < 0.01),
            "user": random.integers(0, 300, ROWS),
            "time": pa.array(np.sort(random.integers(0, 10**6, ROWS)).astype("datetime64[s]")),
        }
    )


@pytest.fixture(scope="module")
def whole(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "rows.parquet"
    pq.write_table(rows, path, row_group_size=7000)
    return table(path)


def numbers(part, **given):
    return [number for batch in part.read(["number"], **given) for number in batch.column(0).to_pylist()]


def test_every_class_has_its_share_within_one_row_on_both_sides(rows, whole):
    train, test = train_test_split(whole, 0.2, stratify="class", seed=3)
    found = test.to_arrow()
    assert sorted(numbers(train) + numbers(test)) == list(range(ROWS))
    assert len(test) == found.num_rows == ROWS // 5
    counts, tested = Counter(rows["class"].to_pylist()), Counter(found["class"].to_pylist())
    assert all(abs(tested[kind] - 0.2 * count) < 1 for kind, count in counts.items())  # NULLs are a class, too


def test_a_stratified_split_is_the_same_in_parts_and_for_every_reader_but_not_for_every_seed(rows, whole):
    test = train_test_split(whole, 0.2, stratify="class", seed=3)[1]
    chosen = numbers(test)
    by_parts = [number for part in test.partitions(5000) for number in numbers(test, partition=part)]
    assert len(test.partitions(100)) > 1
    assert by_parts == numbers(test, batch_rows=999) == chosen
    assert numbers(train_test_split(table(rows), 0.2, stratify="class", seed=3)[1]) == chosen
    assert numbers(train_test_split(whole, 0.2, stratify="class", seed=4)[1]) != chosen
    assert test.fingerprint() != train_test_split(whole, 0.2, stratify="class", seed=4)[1].fingerprint()


def test_rows_of_a_group_stay_on_one_side(whole):
    train, test = (part.to_arrow() for part in train_test_split(whole, 0.3, groups="user"))
    assert not set(train["user"].to_pylist()) & set(test["user"].to_pylist())
    assert abs(test.num_rows - 0.3 * ROWS) < 0.01 * ROWS


def test_parts_are_of_exact_size_and_keep_groups_and_order(rows, whole):
    drawn = draw_parts(whole, [1.0] * 7, seed=0)
    assert np.ptp(drawn.sizes) <= 1
    assert np.bincount(drawn.codes(None, 0, ROWS)).tolist() == drawn.sizes.tolist()
    by_user = group_parts(whole, "user", [1.0] * 4, seed=0)
    assert by_user.sizes.sum() == ROWS
    assert np.ptp(by_user.sizes) < ROWS / 100
    in_time = PartedTable(whole, ordered_parts(whole, "time", [ROWS // 3, 2 * ROWS // 3]), "part").to_arrow()
    part = in_time["part"].to_numpy()
    assert (np.diff(part.astype(int)) >= 0).all()  # the rows lie in the order of time
    assert set(zip(rows["time"].to_pylist(), part.tolist(), strict=True)).__len__() == len(
        set(rows["time"].to_pylist())
    )
    again = PartedTable(whole, drawn, "part")
    streamed = np.concatenate(
        [b.column(0).to_numpy() for p in again.partitions(100) for b in again.read(["part"], partition=p)]
    )
    assert np.array_equal(streamed, drawn.codes(None, 0, ROWS))


def test_wrong_wishes_are_refused(rows, whole):
    with pytest.raises(OptionError, match=r"test=1\.5"):
        train_test_split(whole, 1.5)
    with pytest.raises(OptionError, match="stratify='class'"):
        train_test_split(whole, stratify="class", groups="user")
    with pytest.raises(ColumnNotFoundError, match="Did you mean 'class'"):
        train_test_split(whole, stratify="clas")
    with pytest.raises(OptionError, match="at least 2 different values; it has 1"):
        train_test_split(table(pa.table({"g": [1, 1, 1]})), groups="g")
    times = [datetime.datetime(2026, 1, 1), None, datetime.datetime(2026, 1, 2)]
    with pytest.raises(NullValueError, match="'time' has 1 NULL in 3 rows"):
        ordered_parts(table(pa.table({"time": times})), "time", [1])
    with pytest.raises(OptionError, match="3 parts cannot be told apart"):
        ordered_parts(table(pa.table({"time": [1, 1, 1, 1]})), "time", [1, 2])
