"""Real data sets, found through BRAIDWATER_DATA: ``BRAIDWATER_DATA=... make test-slow``."""

from __future__ import annotations

import gzip
import tarfile

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import statsmodels.api as sm

from braidwater import LinearRegression, LogisticRegression, describe, table, write_table
from braidwater.encoding import Categorical, Image, Numeric

pytestmark = pytest.mark.slow

NUMBERS = ["age", "education_num", "hours"]
ADULT = ["age", "workclass", "fnlwgt", "education", "education_num", "marital", "occupation", "relationship"]
ADULT += ["race", "sex", "gain", "loss", "hours", "country", "income"]


def adult(folder, tmp_path, name):
    with tarfile.open(folder / "adult" / "adult.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    frame = pd.read_csv(tmp_path / name, names=ADULT, skipinitialspace=True, comment="|")
    frame["income"] = frame["income"].str.rstrip(".")
    return frame


def test_the_census_logistic_regression_is_that_of_statsmodels(real_data, tmp_path):
    frame = adult(real_data, tmp_path, "adult-train.csv")
    numbers, categories = NUMBERS, ["sex", "relationship"]
    rows = write_table(frame, f"{tmp_path}/census.duckdb::adult")
    model = LogisticRegression().fit(rows, label="income", features=[*numbers, *categories])
    design = pd.get_dummies(frame[numbers + categories], columns=categories, drop_first=True, dtype=float)
    expected = sm.Logit((frame["income"] == ">50K").astype(float), sm.add_constant(design)).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(model.coef_[0], expected.params.to_numpy()[1:], rtol=1e-6)
    np.testing.assert_allclose(model.standard_errors_[0], expected.bse.to_numpy()[1:], rtol=1e-5)
    test = adult(real_data, tmp_path, "adult-test.csv")
    assert model.evaluate(table(test))["accuracy"] > 0.82


def test_three_million_flights_by_airport_are_those_of_a_direct_solution(real_data):
    file = real_data / "flights_3m" / "flights-3m.parquet"
    model = LinearRegression().fit(file, label="delay", features=["distance", "origin"])
    connection = duckdb.connect()
    # least squares on groups: the normal equations need nothing but sums by origin
    sums = connection.sql(
        f"SELECT origin, count(*) n, sum(distance) x, sum(distance::BIGINT * distance) xx, sum(delay) y, "
        f"sum(delay::BIGINT * distance) xy FROM read_parquet('{file}') GROUP BY origin ORDER BY origin"
    ).to_df()
    n, x, y = (sums[c].to_numpy(float) for c in ("n", "x", "y"))
    slope = (sums.xy.sum() - (x * y / n).sum()) / (sums.xx.sum() - (x * x / n).sum())
    levels = (y - slope * x) / n
    np.testing.assert_allclose(model.coef_[0], slope, rtol=1e-8)
    np.testing.assert_allclose(model.intercept_, levels[0], rtol=1e-7)
    np.testing.assert_allclose(model.coef_[1:], levels[1:] - levels[0], rtol=1e-6, atol=1e-8)


def test_describing_three_million_flights_agrees_with_sql(real_data):
    file = real_data / "flights_3m" / "flights-3m.parquet"
    found = {column.name: column for column in describe(str(file)).columns}
    mean, deviation, low, high = duckdb.sql(
        f"SELECT avg(delay), stddev_samp(delay), min(delay), max(delay) FROM read_parquet('{file}')"
    ).fetchall()[0]
    delay = found["delay"]
    np.testing.assert_allclose([delay.mean, delay.standard_deviation], [mean, deviation], rtol=1e-9)
    assert (delay.minimum, delay.maximum) == (low, high)
    assert abs(found["origin"].distinct - 223) < 15


def test_intrusions_with_rare_categories_are_learnt(real_data, tmp_path):
    file = real_data / "kdd99_10pct" / "kddcup.data_10_percent.gz"
    whole = f"SELECT *, column41 <> 'normal.' AS attack FROM read_csv('{file}', header=false)"
    query = f"{whole} USING SAMPLE 20 PERCENT (bernoulli, 7)"
    rows = write_table(table(duckdb.connect(), query), f"{tmp_path}/kdd.duckdb::kdd")
    features = {
        "column02": Categorical(min_count=50),
        "column03": Categorical(min_count=50),
        **{f"column{i:02d}": Numeric(standardise=True) for i in (22, 23, 31, 32, 33)},
    }
    model = LogisticRegression(alpha=1e-4).fit(rows, label="attack", features=features)
    assert any(name.endswith("[other]") for name in model.feature_names_)
    assert model.evaluate(rows)["roc_auc"] > 0.98


def test_a_net_of_two_workers_reads_handwriting(real_data, tmp_path):
    from braidwater import AllReduce
    from braidwater.deep import cnn

    def images(name, count):
        with gzip.open(real_data / "mnist" / f"{name}-images-idx3-ubyte.gz") as handle:
            pixels = np.frombuffer(handle.read(), np.uint8, offset=16).reshape(-1, 784)[:count]
        with gzip.open(real_data / "mnist" / f"{name}-labels-idx1-ubyte.gz") as handle:
            digits = np.frombuffer(handle.read(), np.uint8, offset=8)[:count]
        data = pa.table({"image": pa.array([row.tobytes() for row in pixels]), "digit": digits})
        return write_table(data, tmp_path / f"{name}.parquet")

    train, test = images("train", 12_000), images("t10k", 4_000)
    trainer = cnn(epochs=2, batch_size=64, learning_rate=2e-3, strategy=AllReduce(workers=2))
    trainer.fit(train, features={"image": Image((28, 28))}, label="digit")
    assert trainer.evaluate(test)["accuracy"] > 0.96
