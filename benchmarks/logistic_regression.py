"""Logistic regression to the optimum from Parquet, reading included: peers in memory, in SQL, and ours.

python benchmarks/logistic_regression.py --rows 2000000
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data import FEATURES, normal_features
from harness import Benchmark

bench = Benchmark("logistic regression to the optimum, Parquet included", rows=2_000_000, make_data=normal_features)


def loss(weights: Any, intercept: float, data: Path) -> str:
    """Mean log-loss in float64, over the first rows: the same for all that converged."""
    import numpy as np
    import pyarrow.parquet as pq

    rows = pq.ParquetFile(data / "rows.parquet").read_row_group(0)
    features = np.column_stack([rows.column(name).to_numpy() for name in FEATURES]).astype(np.float64)
    odds = features @ np.asarray(weights, np.float64).ravel() + intercept
    y = rows.column("y").to_numpy()
    return f"{np.mean(np.logaddexp(0, odds) - y * odds):.9f}"


@bench.contender("braidwater", ours=True)
def braidwater(data: Path) -> str:
    from braidwater import LogisticRegression

    model = LogisticRegression(alpha=0.0, solver="lbfgs").fit(data / "rows.parquet", features=FEATURES, label="y")
    return loss(model.coef_, float(model.intercept_[0]), data)


@bench.contender("scikit-learn lbfgs, float32 in memory")
def scikit_learn(data: Path) -> str:
    import numpy as np
    import pyarrow.parquet as pq
    from sklearn.linear_model import LogisticRegression

    rows = pq.read_table(data / "rows.parquet")
    features = np.empty((rows.num_rows, len(FEATURES)), np.float32)
    for j, name in enumerate(FEATURES):
        features[:, j] = rows.column(name).to_numpy()
    y = rows.column("y").to_numpy()
    model = LogisticRegression(C=np.inf, tol=1e-6, max_iter=200).fit(features, y)
    return loss(model.coef_, float(model.intercept_[0]), data)


@bench.contender("DuckDB SQL gradient + scipy L-BFGS")
def duckdb_sql(data: Path) -> str:
    import duckdb
    import numpy as np
    from scipy.optimize import minimize

    connection = duckdb.connect()
    connection.execute("SET threads=2")
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
    return loss(found.x[:-1], float(found.x[-1]), data)


if __name__ == "__main__":
    bench.main()
