"""SQL calls beside the same fits in Python: what the SQL face costs.

``python -m benchmarks.sql --rows 1000000`` prints seconds (the best of three) and writes nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np

from braidwater import PCA, KMeans, LinearRegression, fit_groups, table
from braidwater.sql import connect
from braidwater.sql.functions.irls import IrlsRegression

COLUMNS = 20


def main() -> None:
    """Time every pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    connection = duckdb.connect()
    made = ", ".join(f"sin(i * {j + 1} * 0.7) + random() AS x{j}" for j in range(COLUMNS))
    connection.execute(f"CREATE TABLE t AS SELECT {made}, i % 100 AS g, i FROM range({given.rows}) AS r(i)")
    connection.execute("ALTER TABLE t ADD COLUMN y DOUBLE; UPDATE t SET y = 3 + x0 - 2 * x1 + random()")
    connection.execute("ALTER TABLE t ADD COLUMN late BOOLEAN; UPDATE t SET late = x0 - x1 + random() > 0.5")
    names = [f"x{j}" for j in range(COLUMNS)]
    rows = table(connection, "t")
    features = f"ARRAY[1, {', '.join(names)}]"
    session = connect(connection)
    centroids = np.random.default_rng(0).random((8, COLUMNS))
    as_sql = f"ARRAY[{', '.join('ARRAY' + str(row) for row in centroids.tolist())}]"
    pairs: dict[str, tuple[str, Callable[[], Any]]] = {
        "linregr_train": (
            f"SELECT madlib.linregr_train('t', 'out', 'y', '{features}')",
            lambda: LinearRegression().fit(rows, label="y", features=names),
        ),
        "linregr_train, 100 groups": (
            f"SELECT madlib.linregr_train('t', 'out', 'y', '{features}', 'g')",
            lambda: fit_groups(LinearRegression(), rows, by="g", label="y", features=names),
        ),
        "logregr_train": (
            f"SELECT madlib.logregr_train('t', 'out', 'late', '{features}')",
            lambda: IrlsRegression().fit(rows, label="late", features=names),
        ),
        "kmeans, k=8, 10 iterations": (
            f"SELECT * FROM madlib.kmeans('t', 'ARRAY[{', '.join(names)}]', {as_sql}, 'squared_dist_norm2', 'avg', 10, 0.0)",
            lambda: KMeans(8, init=centroids, max_iter=10, tol=0.0).fit(rows, features=names),
        ),
        "pca_train, 5 components": (
            "SELECT madlib.pca_train('matrix', 'out', 'i', 5)",
            lambda: PCA(5).fit(rows, features=names),
        ),
    }
    connection.execute(f"CREATE TABLE matrix AS SELECT i, {', '.join(names)} FROM t")
    print(f"{given.rows:,} rows of {COLUMNS} doubles; seconds, the best of {given.repeats}")
    print(f"{'':<28}{'SQL':>8}{'Python':>8}{'ratio':>8}")
    for name, (statement, fit) in pairs.items():
        sql = _best(lambda statement=statement: _call(session, statement), given.repeats)  # type: ignore[misc]
        python = _best(fit, given.repeats)
        print(f"{name:<28}{sql:>8.2f}{python:>8.2f}{sql / python:>8.2f}")
    _rowwise(session, features, given.repeats)


def _rowwise(session: Any, features: str, repeats: int) -> None:
    """Functions of a row, over the whole table."""
    session.execute("DROP TABLE IF EXISTS out, out_summary, out_mean")
    session.execute(f"SELECT madlib.logregr_train('t', 'out', 'late', '{features}')")
    for name in ("linregr_predict", "logregr_predict_prob"):
        statement = f"SELECT sum(madlib.{name}(coef, {features})) FROM t, out"
        print(f"{name + ' of all rows':<28}{_best(lambda s=statement: session.execute(s).fetchall(), repeats):>8.2f}")  # type: ignore[misc]
    centroids = "ARRAY[" + ", ".join(f"ARRAY[{j}, {j % 3}, {j % 5}]" for j in range(8)) + "]::float8[][]"
    statement = f"SELECT sum((madlib.closest_column({centroids}, ARRAY[x0, x1, x2])).distance) FROM t"
    print(f"{'closest_column, k=8, 3 wide':<28}{_best(lambda: session.execute(statement).fetchall(), repeats):>8.2f}")


def _call(session: Any, statement: str) -> None:
    session.execute("DROP TABLE IF EXISTS out, out_summary, out_mean")
    session.execute(statement).fetchall()


def _best(run: Callable[[], Any], repeats: int) -> float:
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        found.append(time.perf_counter() - begun)
    return min(found)


if __name__ == "__main__":
    main()
