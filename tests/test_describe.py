"""Descriptions agree with pandas, estimates stay near, and odd columns are no trouble."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.datasets import load_breast_cancer

from braidwater.stats import describe
from braidwater.tables import table, train_test_split, write_table


def by_name(found):
    return {column.name: column for column in found.columns}


@pytest.mark.parametrize("kind", ["memory", "parquet", "split"])
def test_figures_are_those_of_pandas(kind, tmp_path):
    frame = load_breast_cancer(as_frame=True).frame
    if kind == "parquet":
        rows = write_table(frame, tmp_path / "cancer.parquet")
    elif kind == "split":
        rows = train_test_split(table(frame))[0]
        frame = rows.to_arrow().to_pandas()
    else:
        rows = table(frame)
    found = describe(rows)
    expected = frame.describe()
    for name, column in by_name(found).items():
        wanted = expected[name]
        figures = [
            column.count,
            column.mean,
            column.standard_deviation,
            column.minimum,
            *column.quantiles.values(),
            column.maximum,
        ]
        np.testing.assert_allclose(np.array(figures, float), wanted.to_numpy(), rtol=1e-12)
        assert column.distinct == frame[name].nunique()
    np.testing.assert_allclose(found.correlation, frame.corr().to_numpy(), atol=1e-12)


def test_estimates_of_large_tables_are_near(tmp_path):
    values = np.random.default_rng(0).normal(size=400_000)
    found = describe(write_table(pa.table({"x": values, "k": np.arange(400_000)}), tmp_path / "x.parquet"))
    assert not found.exact
    column = by_name(found)["x"]
    for point, value in column.quantiles.items():
        assert abs((values < value).mean() - point) < 0.005
    assert abs(by_name(found)["k"].distinct / 400_000 - 1) < 0.1
    np.testing.assert_allclose(column.mean, values.mean(), rtol=1e-9)


def test_nulls_nans_infinities_and_odd_types_are_counted_not_hidden():
    rows = pa.table(
        {
            "x": [1.0, None, np.nan, np.inf, 3.0],
            "text": ["a", None, "b", "a", "a"],
            "when": pa.array([datetime.date(2001, 1, day) for day in range(1, 6)]),
            "list": [[1], [2], None, [3], [4]],
            "empty": pa.array([None] * 5, pa.float64()),
            "constant": [2.0] * 5,
        }
    )
    found = by_name(describe(rows))
    x = found["x"]
    assert (x.count, x.nulls, x.infinities, x.mean, x.minimum, x.maximum) == (2, 2, 1, 2.0, 1.0, 3.0)
    assert (found["text"].distinct, found["text"].nulls, found["text"].mean) == (2, 1, None)
    assert found["when"].maximum == datetime.date(2001, 1, 5)
    assert (found["list"].nulls, found["list"].distinct) == (1, None)
    assert (found["empty"].count, found["empty"].mean) == (0, None)
    assert found["constant"].standard_deviation == 0


def test_correlations_are_of_the_complete_rows():
    frame = pd.DataFrame({"a": [1.0, 2, 3, 4, np.nan], "b": [2.0, 1, np.nan, 5, 6], "c": [1, 5, 2, 2, 9]})
    found = describe(frame)
    assert found.complete == 3
    np.testing.assert_allclose(found.correlation, frame.dropna().corr().to_numpy(), atol=1e-12)


def test_a_description_prints_and_goes_into_json():
    found = describe(pa.table({"x": [1.0, np.nan, 3.0], "y": [1, 2, 4]}))
    lines = str(found).splitlines()
    assert lines[0] == "data: 3 rows"
    assert lines[2].split() == ["x", "double", "2", "1", "2", "2", "1.41421", "1", "1.5", "2", "2.5", "3"]
    document = json.loads(json.dumps(found.to_json()))
    assert document["columns"][0]["quantiles"]["0.5"] == 2.0
    assert document["correlation"]["rows"] == 2


def test_a_table_without_rows_has_a_description():
    assert describe(pa.table({"x": pa.array([], pa.float64()), "s": pa.array([], pa.string())})).rows == 0
