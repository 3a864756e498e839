"""Logistic regression to the optimum from Parquet, reading included: peers in memory, in SQL, on Dask and Spark, and ours.

python benchmarks/logistic_regression.py --rows 2000000
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from data import FEATURES, load, normal_features
from exact import excess_loss
from harness import Benchmark

bench = Benchmark("Logistic regression to the optimum, Parquet included", rows=2_000_000, make_data=normal_features)


def excess(data: Path, coefficients: Any, intercept: Any) -> Callable[[], str]:
    return lambda: f"{excess_loss(data, coefficients, np.ravel(intercept)[0]):.1e} above the smallest loss"


def fitted(data: Path, alpha: float) -> Any:
    from braidwater import LogisticRegression

    return LogisticRegression(alpha).fit(data / "rows.parquet", features=FEATURES, label="y")


@bench.contender("braidwater", ours=True)
def braidwater(data: Path) -> Any:
    # so small a penalty moves nothing that can be seen, and standard errors, which no peer computes, are left out
    model = fitted(data, 1e-12)
    return excess(data, model.coef_, model.intercept_)


@bench.contender("braidwater, with standard errors")
def with_standard_errors(data: Path) -> Any:
    model = fitted(data, 0.0)
    assert model.standard_errors_ is not None
    return excess(data, model.coef_, model.intercept_)


@bench.contender("scikit-learn lbfgs, float32 in memory")
def scikit_learn(data: Path) -> Any:
    from sklearn.linear_model import LogisticRegression

    features, y = load(data, "y")
    model = LogisticRegression(C=np.inf, tol=1e-6, max_iter=200).fit(features, y)
    return excess(data, model.coef_, model.intercept_)


@bench.contender("DuckDB SQL gradient + scipy L-BFGS")
def duckdb_sql(data: Path) -> Any:
    import duckdb
    from scipy.optimize import minimize

    connection = duckdb.connect()
    file = str(data / "rows.parquet")

    def value_and_gradient(weights: Any) -> tuple[float, Any]:
        odds = " + ".join(f"({float(w)!r})*{name}" for w, name in zip(weights[:-1], FEATURES, strict=True))
        sums = ", ".join(f"sum(r*{name})" for name in FEATURES)
        row = connection.execute(
            f"SELECT sum(l), count(*), {sums}, sum(r) FROM (SELECT *, 1/(1+exp(-z)) - y AS r, "
            f"greatest(z, 0) + ln(1 + exp(-abs(z))) - y*z AS l FROM "
            f"(SELECT *, ({odds} + ({float(weights[-1])!r}))::DOUBLE AS z FROM read_parquet('{file}')))"
        ).fetchone()
        assert row is not None
        return row[0] / row[1], np.array(row[2:]) / row[1]

    found = minimize(value_and_gradient, np.zeros(31), jac=True, method="L-BFGS-B", options={"gtol": 1e-6})
    return excess(data, found.x[:-1], found.x[-1])


@bench.contender("dask-ml lbfgs, persisted")
def dask_lbfgs(data: Path) -> Any:
    return dask_ml(data, "lbfgs")


@bench.contender("dask-ml newton, persisted")
def dask_newton(data: Path) -> Any:
    return dask_ml(data, "newton")


def dask_ml(data: Path, solver: str) -> Any:
    """Row groups as blocks of known lengths (without which dask-ml refuses), held in memory: its quickest way."""
    import dask
    import dask.array as da
    import pyarrow.parquet as pq
    from dask_ml.linear_model import LogisticRegression

    file = data / "rows.parquet"
    described = pq.ParquetFile(file).metadata
    counts = [described.row_group(group).num_rows for group in range(described.num_row_groups)]

    @dask.delayed
    def part(group: int, names: list[str]) -> Any:
        rows = pq.ParquetFile(file).read_row_group(group, columns=names)
        return np.column_stack([rows.column(name).to_numpy() for name in names])

    pieces = [da.from_delayed(part(g, FEATURES), (n, len(FEATURES)), np.float32) for g, n in enumerate(counts)]
    labels = [da.from_delayed(part(g, ["y"]), (n, 1), np.uint8)[:, 0] for g, n in enumerate(counts)]
    features, y = dask.persist(da.concatenate(pieces), da.concatenate(labels))
    model = LogisticRegression(C=1e12, solver=solver, tol=1e-6, max_iter=100).fit(features, y)
    return excess(data, model.coef_, model.intercept_)


@cache
def spark_session() -> Any:
    from pyspark.sql import SparkSession

    settings = {"spark.driver.memory": "6g", "spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"}
    return SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()


@bench.contender("Spark MLlib, local[2]")
def spark(data: Path) -> Any:
    # the session is up and the JVM warm when the clock starts
    session = spark_session()
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import VectorAssembler

    rows = session.read.parquet(str(data / "rows.parquet"))
    assembled = VectorAssembler(inputCols=FEATURES, outputCol="features").transform(rows).select("features", "y")
    model = LogisticRegression(labelCol="y", maxIter=100, tol=1e-6, regParam=0.0).fit(assembled)
    return excess(data, model.coefficients.toArray(), model.intercept)


@bench.contender("XGBoost gblinear, 10 rounds", once=True)
def xgboost_linear(data: Path) -> Any:
    # the booster of XGBoost that fits the same model: coordinate descent, a round for each sweep over the columns
    import json

    import xgboost

    features, y = load(data, "y")
    settings = {"booster": "gblinear", "objective": "binary:logistic", "eta": 1.0, "lambda": 0.0, "alpha": 0.0,
                "updater": "coord_descent", "base_score": 0.5, "nthread": 2}  # fmt: skip
    booster = xgboost.train(settings, xgboost.DMatrix(features, label=y, nthread=2), num_boost_round=10)
    weights = json.loads(booster.get_dump(dump_format="json")[0])
    return excess(data, weights["weight"], weights["bias"])


if __name__ == "__main__":
    bench.main()
