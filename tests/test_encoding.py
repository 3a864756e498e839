"""Encoders: what each type becomes, every NULL policy, values that were not there, and coming back from JSON."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from braidwater.blocks import Block
from braidwater.encoding import (
    Boolean,
    Categorical,
    Encoding,
    FittedEncoding,
    Hashed,
    Image,
    Numeric,
    Vector,
    matching,
    of_type,
)
from braidwater.errors import (
    ColumnNotFoundError,
    ColumnTypeError,
    EmptyTableError,
    InfiniteValueError,
    LabelError,
    NullValueError,
    OptionError,
    UnseenCategoryError,
)
from braidwater.tables import table, write_table


def dense(fitted, rows):
    """The design matrix of `rows` as (rows, columns)."""
    rows = rows.combine_chunks().to_batches()
    if not rows:
        return np.empty((0, fitted.design.width))
    return fitted.design.dense(Block.from_arrays(fitted.encode(rows[0]), fitted.block_schema)).T


def fitted(rows, **encoding):
    return Encoding(**encoding).fit(table(rows))


ROWS = pa.table(
    {
        "double": [0.5, -1.5, 2.5, 3.0],
        "single": pa.array([1, 2, 3, 4], pa.float32()),
        "small": pa.array([1, -2, 100, 4], pa.int64()),
        "large": pa.array([1, -2, 100_000, 4], pa.int64()),
        "flag": [True, False, True, True],
        "word": ["b", "a", "b", "c"],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(8.0)), 2),
        "list": [[1, 2], [3, 4], [5, 6], [7, 8]],
        "decimal": pa.array([1, 2, 3, 4], pa.decimal128(10, 2)),
    }
)


def test_every_type_is_stored_as_narrowly_as_it_can_be_without_loss():
    stored = {column.name: (column.dtype, column.shape) for column in fitted(ROWS).block_schema.columns}
    assert stored == {
        "double": ("float64", ()),
        "single": ("float32", ()),
        "small": ("int8", ()),
        "large": ("int32", ()),
        "flag": ("uint8", ()),
        "word": ("uint8", ()),
        "vector": ("float64", (2,)),
        "list": ("float64", (2,)),
        "decimal": ("float64", ()),
    }


def test_the_design_holds_the_values_in_the_order_of_the_features():
    names = ["word", "small", "double", "flag", "vector", "large"]
    found = dense(fitted(ROWS, features=names), ROWS)
    frame = ROWS.to_pandas()
    expected = np.column_stack(
        [
            frame.word == "b",
            frame.word == "c",
            frame.small,
            frame.double,
            frame.flag,
            np.arange(8).reshape(4, 2),
            frame.large,
        ]
    )
    assert np.array_equal(found, expected.astype(float))
    assert fitted(ROWS, features=names).design.names[:3] == ("word[b]", "word[c]", "small")


def test_one_hot_columns_are_those_of_scikit_learn():
    frame = ROWS.to_pandas()[["word"]]
    for coding, drop in (("one_hot", None), ("treatment", "first")):
        expected = OneHotEncoder(drop=drop, sparse_output=False).fit_transform(frame)
        assert np.array_equal(dense(fitted(ROWS, features=["word"], coding=coding), ROWS), expected)


def test_standardised_columns_are_those_of_scikit_learn():
    found = dense(
        fitted(ROWS, features={"double": Numeric(standardise=True), "small": Numeric(standardise=True)}), ROWS
    )
    np.testing.assert_allclose(found, StandardScaler().fit_transform(ROWS.to_pandas()[["double", "small"]]), rtol=1e-14)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.sampled_from("uvw"), st.booleans()), min_size=1, max_size=30)
)
def test_products_with_the_design_are_those_of_the_matrix(values):
    numbers, words, flags = zip(*values, strict=True)
    rows = pa.table({"x": numbers, "s": pa.array(numbers, pa.float32()), "w": words, "f": flags})
    encoding = fitted(
        rows, features={"x": Numeric(standardise=True), "w": Categorical(), "s": Numeric(), "f": Boolean()}
    )
    block = Block.from_arrays(encoding.encode(rows.to_batches()[0]), encoding.block_schema)
    weights = np.random.default_rng(0).normal(size=(encoding.design.width, 3))
    expected = encoding.design.dense(block).T @ weights
    np.testing.assert_allclose(encoding.design.times(block, weights), expected, rtol=1e-9, atol=1e-6)


MISSING = pa.table(
    {
        "x": [1.0, None, 3.0, 1.0],
        "n": [1.0, np.nan, 3.0, 1.0],
        "i": pa.array([1, None, 4, 2]),
        "w": ["a", None, "b", "a"],
        "f": [True, None, False, True],
    }
)


@pytest.mark.parametrize("column", MISSING.column_names)
def test_nulls_and_nans_are_refused_unless_a_policy_says_otherwise(column):
    with pytest.raises(NullValueError, match=f"'{column}' has 1 NULL in 4 rows.*nulls='drop'"):
        dense(fitted(MISSING, features=[column]), MISSING)


@pytest.mark.parametrize("column", MISSING.column_names)
def test_dropping_leaves_out_the_rows_with_nulls(column):
    assert len(dense(fitted(MISSING, features=[column], nulls="drop"), MISSING)) == 3


@pytest.mark.parametrize(
    ("policy", "value"), [("mean", 5 / 3), ("mode", 1.0), (7.5, 7.5)], ids=["mean", "mode", "constant"]
)
@pytest.mark.parametrize("column", ["x", "n"])
def test_a_value_that_is_put_in_leaves_a_mark(column, policy, value):
    encoding = fitted(MISSING, features=[column], nulls=policy)
    assert encoding.design.names == (column, f"{column} is null")
    found = dense(encoding, MISSING)
    np.testing.assert_allclose(found[1], [value, 1.0])
    assert found[:, 1].tolist() == [0, 1, 0, 0]


def test_the_mean_of_integers_needs_a_double_and_their_mode_does_not():
    mean, mode = (fitted(MISSING, features=["i"], nulls=policy) for policy in ("mean", "mode"))
    assert (mean.block_schema.columns[0].dtype, mode.block_schema.columns[0].dtype) == ("float64", "int8")
    assert dense(mean, MISSING)[1, 0] == 7 / 3
    assert dense(mode, MISSING)[1, 0] == 1.0


def test_categories_may_take_the_mode_or_a_category_of_their_own_for_nulls():
    mode = fitted(MISSING, features={"w": Categorical(nulls="mode")}, coding="one_hot")
    own = fitted(MISSING, features={"w": Categorical(nulls="category")}, coding="one_hot")
    assert dense(mode, MISSING)[1].tolist() == [1, 0]
    assert own.design.names == ("w[a]", "w[b]", "w[NULL]")
    assert dense(own, MISSING)[1].tolist() == [0, 0, 1]
    complete = MISSING.slice(2)
    none = fitted(complete, features={"w": Categorical(nulls="category")}, coding="one_hot")
    assert none.design.names == ("w[a]", "w[b]")
    with pytest.raises(NullValueError, match="'w' has 1 NULL"):
        dense(none, MISSING)
    ignored = fitted(complete, features={"w": Categorical(nulls="category", unseen="ignore")}, coding="one_hot")
    assert dense(ignored, MISSING)[1].tolist() == [0, 0]
    hashed = fitted(MISSING, features={"w": Hashed(4, nulls="category")})
    assert dense(hashed, MISSING)[1].tolist() == [0, 0, 0, 0, 1]


def test_infinities_are_refused_or_taken_for_nulls():
    rows = pa.table({"x": [1.0, np.inf, 3.0, -np.inf]})
    with pytest.raises(InfiniteValueError, match="'x' has 2 infinities"):
        dense(fitted(rows), rows)
    assert len(dense(fitted(rows, features={"x": Numeric(infinities="null", nulls="drop")}), rows)) == 2
    filled = fitted(rows, features={"x": Numeric(infinities="null", nulls="mean", indicator=False)})
    assert dense(filled, rows)[:, 0].tolist() == [1, 2, 3, 2]


WORDS = pa.table({"w": ["a"] * 5 + ["b"] * 3 + ["c"] * 2 + ["d"]})


@pytest.mark.parametrize("encoder", [Categorical(top=2), Categorical(min_count=3)])
def test_rare_categories_share_one(encoder):
    encoding = fitted(WORDS, features={"w": encoder}, coding="one_hot")
    assert encoding.design.names == ("w[a]", "w[b]", "w[other]")
    assert dense(encoding, WORDS).sum(axis=0).tolist() == [5, 3, 3]


def test_a_category_that_was_not_there_is_refused_ignored_or_other():
    later = pa.table({"w": ["a", "zebra"]})
    with pytest.raises(UnseenCategoryError, match=r"'w' has 1 rows.*'zebra'"):
        dense(fitted(WORDS), later)
    ignored = fitted(WORDS, features={"w": Categorical(unseen="ignore")}, coding="one_hot")
    assert dense(ignored, later)[1].tolist() == [0, 0, 0, 0]
    other = fitted(WORDS, features={"w": Categorical(unseen="other")}, coding="one_hot")
    assert dense(other, later)[1].tolist() == [0, 0, 0, 0, 1]


def test_hashing_is_the_same_everywhere_and_takes_any_value():
    rows = pa.table({"w": [f"customer {i}" for i in range(1000)]})
    found = dense(fitted(rows, features={"w": Hashed(64)}), rows)
    assert (found.sum(axis=1) == 1).all()
    assert (found.sum(axis=0) > 2).all()
    assert int(found[0].argmax()) == 38  # CRC-32 of "customer 0" modulo 64


def test_values_beyond_the_narrow_type_are_kept_when_predicting():
    encoding = fitted(ROWS, features=["small"])
    later = pa.table({"small": pa.array([1_000_000], pa.int64())})
    assert dense(encoding.for_prediction(), later).tolist() == [[1_000_000.0]]


def test_integers_that_a_double_cannot_hold_are_refused():
    rows = pa.table({"id": [1, 2**60 + 1]})
    with pytest.raises(ColumnTypeError, match="1152921504606846977"):
        dense(fitted(rows), rows)


@pytest.mark.parametrize("as_list", [True, False])
def test_images_come_from_bytes_or_lists(as_list):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 2), dtype=np.uint8)
    values = pixels.reshape(5, -1).tolist() if as_list else [image.tobytes() for image in pixels]
    rows = pa.table({"image": values, "y": list("abcab")})
    encoding = fitted(rows, features={"image": Image((3, 4, 2))}, label="y", label_kind="class")
    assert np.array_equal(encoding.encode(rows.to_batches()[0])["image"], pixels)
    assert encoding.whole is not None
    assert encoding.whole.shape == (3, 4, 2)
    sliced = rows.slice(2).to_batches()[0]
    assert np.array_equal(encoding.encode(sliced)["image"], pixels[2:])


@pytest.mark.parametrize(
    ("values", "words"),
    [([b"abcd", b"abc"], "3 bytes"), ([[1, 2, 3, 4], [1, 2, 3]], "list of 3"), ([[1.5] * 4], "1.5")],
)
def test_an_image_of_another_size_or_type_is_refused(values, words):
    rows = pa.table({"image": values})
    with pytest.raises(ColumnTypeError, match=words):
        dense(fitted(rows, features={"image": Image((2, 2))}), rows)


def test_lists_of_unequal_length_are_refused():
    rows = pa.table({"v": [[1.0, 2.0], [3.0]]})
    with pytest.raises(ColumnTypeError, match="list of 1 numbers where 2"):
        dense(fitted(rows, features={"v": Vector()}), rows)


def test_selectors_pick_by_type_and_name():
    def picked(*features):
        return list(Encoding(features=list(features)).encoders(table(ROWS)))

    assert picked(of_type("string"), "s*") == ["word", "single", "small"]
    assert picked(matching("*l*"), of_type("boolean")) == [
        "double",
        "single",
        "small",
        "large",
        "flag",
        "list",
        "decimal",
    ]
    mapped = Encoding(features={"s*": Numeric(standardise=True), of_type("string"): Hashed(8)}).encoders(table(ROWS))
    assert mapped == {"single": Numeric(standardise=True), "small": Numeric(standardise=True), "word": Hashed(8)}


def test_without_a_list_every_column_but_label_and_excluded_is_a_feature():
    found = Encoding(label="flag", exclude=["vector", "list"], weight="double").encoders(table(ROWS))
    assert list(found) == ["single", "small", "large", "word", "decimal"]


def test_types_that_are_no_feature_are_named_with_a_way_out():
    rows = pa.table({"when": pa.array([0, 1], pa.timestamp("us")), "x": [1.0, 2.0]})
    with pytest.raises(ColumnTypeError, match=r"'when' is timestamp.*Exclude it"):
        fitted(rows)
    assert fitted(rows, exclude=["when"]).design.names == ("x",)


def test_mistakes_are_named_before_anything_runs():
    with pytest.raises(ColumnNotFoundError, match="Did you mean 'double'"):
        fitted(ROWS, features=["dubble"])
    with pytest.raises(OptionError, match="nulls='skip'"):
        Encoding(nulls="skip")
    with pytest.raises(OptionError, match="buckets=1"):
        Hashed(1)
    with pytest.raises(EmptyTableError, match="no rows"):
        fitted(ROWS.slice(0, 0), label="word", label_kind="class")
    with pytest.raises(LabelError, match="a regression needs a number"):
        fitted(ROWS, label="word")


def test_classes_are_codes_in_their_order_and_strangers_are_refused():
    encoding = fitted(ROWS, features=["double"], label="word", label_kind="class")
    assert encoding.classes == ["a", "b", "c"]
    assert encoding.encode(ROWS.to_batches()[0])["word"].tolist() == [1, 0, 1, 2]
    strange = ROWS.set_column(ROWS.column_names.index("word"), "word", pa.array(["z", "a", "a", "a"]))
    with pytest.raises(LabelError, match=r"'z'.*none of the 3 classes"):
        encoding.encode(strange.to_batches()[0])


@pytest.mark.parametrize("labels", [[1, 0, 2, 1], [True, False, True, True], [0.0, 1.0, 1.0, 0.0]])
def test_classes_keep_their_type(labels):
    encoding = fitted(ROWS.append_column("y", pa.array(labels)), features=["double"], label="y", label_kind="class")
    assert encoding.classes == sorted(set(labels))
    assert type(encoding.classes[0]) is type(labels[0])


def test_a_fitted_encoding_comes_back_from_json_and_pickle():
    features = {
        "double": Numeric(standardise=True, nulls="mean"),
        "small": Numeric(),
        "word": Categorical(unseen="other"),
        "flag": Boolean(),
        "vector": Vector(),
        "list": Image((2, 1), dtype="int16"),
    }
    encoding = fitted(ROWS, features=features, label="decimal", weight="single", offset="large")
    for again in (
        FittedEncoding.from_json(json.loads(json.dumps(encoding.to_json()))),
        pickle.loads(pickle.dumps(encoding)),
    ):
        assert again == encoding
        assert again.key == encoding.key
        assert np.array_equal(dense(again, ROWS), dense(encoding, ROWS))


def test_encoders_look_at_the_table_no_more_than_they_need(tmp_path, monkeypatch):
    rows = write_table(pa.table({"x": [1.0, 2.0], "n": [1, 2], "y": [0.0, 1.0]}), tmp_path / "rows.parquet")
    asked = []
    monkeypatch.setattr(type(rows), "select", lambda self, query: asked.append(query))
    Encoding(label="y").fit(rows)
    assert not asked  # doubles need nothing, and the bounds of integers are in the footer


@pytest.mark.parametrize("kind", ["pandas categorical", "dictionary", "large_string"])
def test_text_is_text_however_it_is_stored(kind):
    words = ["b", "a", None, "b"]
    values = {
        "pandas categorical": pa.array(pd.Categorical(words)),
        "dictionary": pa.array(words).dictionary_encode(),
        "large_string": pa.array(words, pa.large_string()),
    }[kind]
    rows = pa.table({"w": values})
    found = dense(fitted(rows, features=["w"], nulls="mode", coding="one_hot"), rows)
    assert found.tolist() == [[0, 1], [1, 0], [0, 1], [0, 1]]
