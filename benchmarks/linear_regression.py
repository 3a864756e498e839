"""Least squares from Parquet, reading included: ours, products pushed down into polars and DuckDB, and in memory.

python benchmarks/linear_regression.py --rows 2000000
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import FEATURES, load, normal_features
from exact import least_squares
from harness import Benchmark

bench = Benchmark("Linear regression, Parquet included", rows=2_000_000, make_data=normal_features)

NAMES = [*FEATURES, "t"]
PAIRS = [(i, j) for i in range(len(NAMES)) for j in range(i + 1)]


def error(data: Path, weights: Any) -> Callable[[], str]:
    return lambda: f"weights within {np.abs(np.asarray(weights) - least_squares(data)).max():.0e} of the exact ones"


def solved(row: Sequence[float]) -> Any:
    """The weights, from sums of products in the order of `PAIRS`, sums of columns and the count."""
    products = np.empty((len(NAMES) + 1, len(NAMES) + 1))
    for (i, j), value in zip(PAIRS, row, strict=False):
        products[i, j] = products[j, i] = value
    products[-1, :-1] = products[:-1, -1] = row[len(PAIRS) : -1]
    products[-1, -1] = row[-1]
    kept = [*range(len(FEATURES)), len(NAMES)]
    return np.linalg.solve(products[np.ix_(kept, kept)], products[kept, len(FEATURES)])


@bench.contender("braidwater, with standard errors", ours=True)
def braidwater(data: Path) -> Any:
    from braidwater import LinearRegression

    model = LinearRegression().fit(data / "rows.parquet", features=FEATURES, label="t")
    assert model.standard_errors_ is not None
    return error(data, np.append(model.coef_, model.intercept_))


@bench.contender("polars push-down, streaming")
def polars_products(data: Path) -> Any:
    import polars as pl

    exact = [pl.col(name).cast(pl.Float64) for name in NAMES]
    sums = [(exact[i] * exact[j]).sum().alias(f"{i},{j}") for i, j in PAIRS]
    sums += [column.sum().alias(f"s{k}") for k, column in enumerate(exact)]
    row = pl.scan_parquet(data / "rows.parquet").select([*sums, pl.len()]).collect(engine="streaming").row(0)
    return error(data, solved(row))


@bench.contender("DuckDB SQL push-down")
def duckdb_products(data: Path) -> Any:
    import duckdb

    sums = [f"sum({NAMES[i]}::DOUBLE * {NAMES[j]})" for i, j in PAIRS] + [f"sum({name}::DOUBLE)" for name in NAMES]
    row = duckdb.connect().execute(f"SELECT {', '.join(sums)}, count(*) FROM '{data / 'rows.parquet'}'").fetchone()
    assert row is not None
    return error(data, solved(row))


@bench.contender("numpy normal equations, in memory")
def numpy_products(data: Path) -> Any:
    features, t = load(data, "t")
    columns = np.column_stack([features.astype(np.float64), np.ones(len(t))])
    return error(data, np.linalg.solve(columns.T @ columns, columns.T @ t))


@bench.contender("scikit-learn, in memory")
def scikit_learn(data: Path) -> Any:
    from sklearn.linear_model import LinearRegression

    features, t = load(data, "t")
    model = LinearRegression(copy_X=False).fit(features, t)
    return error(data, np.append(model.coef_, model.intercept_))


if __name__ == "__main__":
    bench.main()
