"""Functions of arrays over blocks: what they compute, and what is refused before anything runs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidwater import block_functions as bf
from braidwater.engines import LocalEngine
from braidwater.errors import (
    ColumnNotFoundError,
    ColumnTypeError,
    DataError,
    EmptyTableError,
    OptionError,
    UnsupportedError,
)
from braidwater.tables import table
from braidwater.tables.arrow import ArrowTable

TYPES = [pa.float64(), pa.float32(), pa.int32(), pa.int64(), pa.uint8()]


def rows(count=200_000):
    """Several blocks, of a number, a vector and a key."""
    random = np.random.default_rng(4)
    wide = pa.FixedSizeListArray.from_arrays(pa.array(random.normal(size=3 * count)), 3)
    return pa.table({"x": np.arange(count), "v": wide, "key": pa.array([f"k{n % 5}" for n in range(count)])})


@pytest.mark.parametrize("type_", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)], ids=str)
def test_identity_gives_back_type_and_shape(type_, shape):
    numbers = np.arange(4 * int(np.prod(shape))).reshape(4, *shape).astype(type_.to_pandas_dtype())
    list_type = type_
    for _ in shape:
        list_type = pa.list_(list_type)
    data = pa.table({"x": pa.array(numbers.tolist(), list_type)})
    for found in (bf.map_blocks(lambda x: {"y": x}, data), bf.map_rows(lambda x: {"y": x}, data)):
        assert found.to_arrow().column("y").to_pylist() == numbers.tolist()
        inner = found.schema.field("y").type
        for _ in shape:
            inner = inner.value_type
        assert inner == type_


def test_columns_constants_feeds_and_tensors_meet_the_arguments():
    data, w = rows(), np.array([1.0, -2.0, 0.5])
    expected = np.stack(data["v"].to_pylist()) @ w

    def module(v: torch.Tensor, w):
        return {"y": v @ torch.from_numpy(w)}

    def named(first, v_input, scale=2.0):
        return {"y": v_input @ w, "z": first * scale}

    for function, more in ((module, {"constants": {"w": w}}), (named, {"feed": {"first": "x"}})):
        found = bf.map_blocks(function, data, engine=LocalEngine(3), **more)
        assert found.column_names[:3] == ["x", "v", "key"]
        assert np.allclose(found.to_arrow()["y"].to_numpy(), expected, rtol=1e-13)
    assert found.to_arrow()["z"].to_pylist()[-1] == 2.0 * 199_999


def test_of_trimmed_blocks_only_the_named_columns_are_read():
    asked = []

    class Watched(ArrowTable):
        def read(self, columns=None, **how):
            asked.append(columns)
            return super().read(columns, **how)

    data = Watched(pa.table({"a": [1, 2], "x": [3, 4], "b": [5, 6], "z": [7, 8]}), name="watched")
    sums = bf.map_blocks(lambda z_input, x: {"y": z_input + x}, data, trim=True)
    asked.clear()
    assert sums.to_arrow().to_pydict() == {"y": [10, 12]}
    assert [set(columns) for columns in asked] == [{"x", "z"}]
    assert bf.map_blocks(lambda x: {"y": x}, data).to_arrow().column_names == ["a", "x", "b", "z", "y"]


def test_trimmed_blocks_may_have_fewer_or_more_rows():
    data = rows(100_000)
    fewer = bf.map_blocks(lambda x: {"y": x[x % 10 == 0]}, data, trim=True)
    assert fewer.column_names == ["y"]
    assert fewer.to_arrow()["y"].to_pylist() == list(range(0, 100_000, 10))
    assert len(fewer) == 10_000
    more = bf.map_blocks(lambda x: {"y": np.repeat(x, 2)}, data, trim=True)
    assert sum(batch.num_rows for batch in more.read(batch_rows=999)) == len(more) == 200_000
    assert bf.reduce_blocks(lambda y_input: {"y": y_input.sum()}, fewer)["y"] == sum(range(0, 100_000, 10))


@settings(max_examples=20)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=400), st.sampled_from([np.sum, np.max, np.min]))
def test_reductions_do_not_depend_on_the_cut(numbers, reduce):
    data = pa.table({"x": pa.chunked_array([[n] for n in numbers])})
    expected = reduce(numbers)
    assert bf.reduce_blocks(lambda x_input: {"x": reduce(x_input, axis=0)}, data)["x"] == expected
    assert bf.reduce_rows(lambda x_1, x_2: {"x": reduce([x_1, x_2])}, data)["x"] == expected


def test_blocks_of_several_workers_and_groups_reduce_to_the_sums():
    data = rows()
    matrix = np.stack(data["v"].to_pylist())
    found = bf.reduce_blocks(lambda v_input: {"v": v_input.sum(0)}, data, engine=LocalEngine(3))
    assert np.allclose(found["v"], matrix.sum(0), rtol=1e-10)

    grouped = bf.aggregate(
        lambda v_input, x_input: {"v": v_input.sum(0), "x": x_input.max(0)}, data, by="key", engine=LocalEngine(3)
    ).to_arrow()
    assert grouped["key"].to_pylist() == [f"k{n}" for n in range(5)]
    assert grouped["x"].to_pylist() == [199_995 + n for n in range(5)]
    for n in range(5):
        assert np.allclose(grouped["v"].to_pylist()[n], matrix[n::5].sum(0), rtol=1e-10)


def test_groups_have_keys_of_several_columns_and_of_no_value():
    data = pa.table({"a": ["x", None, "x", None], "b": [1, 1, 2, 1], "n": [1, 2, 3, 4]})
    found = bf.aggregate(lambda n_input: {"n": n_input.sum()}, data, by=["a", "b"]).to_arrow().to_pydict()
    assert found == {"a": ["x", "x", None], "b": [1, 2, 1], "n": [1, 3, 6]}


def test_shapes_are_told_by_types_and_by_rows():
    data = pa.table({"x": [1.0, None], "same": [[1, 2], [3, 4]], "vary": [[1], [2, 3]], "deep": [[[1.0], [2.0]]] * 2})
    assert [column.shape for column in bf.schema(data)] == [(None,), (None, None), (None, None), (None, None, None)]
    found = bf.analyze(data)
    assert [column.shape for column in found] == [(None,), (None, 2), (None, None), (None, 2, 1)]
    assert found["x"].nulls == 1
    assert "same: int64 [?, 2]" in str(found)
    none = pa.table({"same": pa.array([], pa.list_(pa.int64()))})
    assert bf.analyze(none)["same"].shape == (None, None)


REFUSED = {
    "no column": (lambda y: {"z": y}, {}, ColumnNotFoundError, "no column 'y'.*x"),
    "constant of nobody": (lambda x: {"z": x}, {"constants": {"w": 1}}, OptionError, "constants='w'.*<lambda>.*x"),
    "feed of nobody": (lambda x: {"z": x}, {"feed": {"w": "x"}}, OptionError, "feed='w'"),
    "feed from nowhere": (lambda a: {"z": a}, {"feed": {"a": "xx"}}, ColumnNotFoundError, "'xx'.*'x'"),
    "no columns at all": (lambda w: {"z": w}, {"constants": {"w": 1}}, OptionError, "argument that is a column"),
    "a type without arrays": (lambda when: {"z": when}, {}, ColumnTypeError, "'when' is date32.*Cast"),
    "a name that is there": (lambda x: {"v": x}, {}, UnsupportedError, "column 'v' already.*trim=True"),
    "no name": (lambda x: x, {}, OptionError, "dictionary"),
    "a single value": (lambda x: {"z": x.sum()}, {}, ColumnTypeError, "'z'.*reduce_blocks"),
    "other rows": (lambda x: {"z": x[:1]}, {}, ColumnTypeError, "3 rows.*z 1.*trim"),
    "ragged": (
        lambda ragged: {"z": ragged},
        {},
        ColumnTypeError,
        r"'ragged'.*different lengths \(1 and 2, first at row 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_the_table_is_read(name):
    function, options, kind, words = REFUSED[name]
    data = pa.table(
        {
            "x": [1.0, 2.0, 3.0],
            "v": [[1.0, 2.0]] * 3,
            "ragged": [[1.0], [1.0, 2.0], [1.0]],
            "when": pa.array([1, 2, 3], pa.date32()),
        }
    )
    with pytest.raises(kind, match=words):
        bf.map_blocks(function, data, **options).to_arrow()


def test_what_changes_later_is_refused_with_the_shape_it_had():
    data = pa.table({"x": np.arange(100_000)})
    narrow = bf.map_blocks(lambda x: {"z": np.ones((len(x), 2 if x[0] == 0 else 3))}, data, engine=LocalEngine(1))
    with pytest.raises(ColumnTypeError, match=r"'z' was double \[2\].*is double \[3\] now"):
        narrow.to_arrow()
    with pytest.raises(DataError, match=r"'x' has 1 NULL in a block of 3 rows.*COALESCE"):
        bf.map_blocks(lambda x: {"z": x}, pa.table({"x": [1, None, 2]}))
    with pytest.raises(ColumnTypeError, match=r"'v' of shape \(3, 2\).*shape \(2,\)"):
        bf.reduce_blocks(lambda v_input: {"v": v_input}, pa.table({"v": [[1, 2]] * 3}))
    with pytest.raises(OptionError, match="x_1 and x_2"):
        bf.reduce_rows(lambda x_1: {"x": x_1}, pa.table({"x": [1, 2]}))


def test_tables_without_rows_have_columns_and_no_reduction():
    none = pa.table({"x": pa.array([], pa.float64()), "v": pa.array([], pa.list_(pa.float64()))})
    mapped = bf.map_blocks(lambda x: {"z": x.astype(np.float32)}, none)
    assert (mapped.schema.field("z").type, mapped.to_arrow().num_rows) == (pa.float32(), 0)
    for reduce in (bf.reduce_blocks, bf.reduce_rows):
        argument = (
            (lambda x_input: {"x": x_input.sum()}) if reduce is bf.reduce_blocks else (lambda x_1, x_2: {"x": x_1})
        )
        with pytest.raises(EmptyTableError, match="no rows"):
            reduce(argument, none)
    with pytest.raises(EmptyTableError, match="lengths of the lists in column 'v'"):
        bf.map_blocks(lambda v: {"z": v}, none)


def test_only_the_columns_that_are_named_are_read():
    class Watched(type(table(pa.table({"x": [1]})))):
        def read(self, columns=None, **more):
            read.append(columns)
            return super().read(columns, **more)

    read = []
    watched = Watched(rows(10), name="watched")
    bf.reduce_blocks(lambda x_input: {"x": x_input.sum()}, watched)
    assert read == [["x"]]
