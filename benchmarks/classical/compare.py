"""Classical models from Parquet against their peers, side by side in one run: CPU and wall seconds, and ratios.

    python benchmarks/classical/compare.py --rows 2000000 --repeat 3

Everything from the file to the fitted model is counted, on both sides; the figures are the best of `--repeat` rounds,
whose competitors take turns, so that a busy neighbour hits all of them. CPU is that of all threads of the process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.optimize import minimize
from sklearn import cluster, decomposition, linear_model

from braidwater.estimators import PCA, KMeans, LinearRegression, LogisticRegression
from braidwater.options import options

WIDTH = 30
NAMES = [f"x{j}" for j in range(WIDTH)]


def write(path: Path, rows: int) -> None:
    """Gaussian float32 columns, a label of two classes and a number, in row groups of 122 880."""
    random = np.random.default_rng(0)
    weights = random.normal(size=WIDTH) / 4
    with pq.ParquetWriter(
        path, pa.schema([*[(n, pa.float32()) for n in NAMES], ("y", pa.uint8()), ("t", pa.float32())])
    ) as out:
        for begin in range(0, rows, 122_880):
            count = min(122_880, rows - begin)
            x = random.standard_normal((WIDTH, count), dtype=np.float32)
            eta = weights @ x
            y = (random.random(count) < 1 / (1 + np.exp(-eta))).astype(np.uint8)
            t = (eta + random.normal(size=count)).astype(np.float32)
            out.write_table(pa.table([*x, y, t], names=[*NAMES, "y", "t"]), row_group_size=122_880)


def load(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = pq.read_table(path)
    features = np.empty((data.num_rows, WIDTH), np.float32)
    for j, name in enumerate(NAMES):
        features[:, j] = data[name]
    return features, data["y"].to_numpy(), data["t"].to_numpy()


def logistic_braidwater(path: Path) -> float:
    return LogisticRegression().fit(str(path), label="y", exclude=["t"]).coef_[0, 0]


def logistic_path_braidwater(path: Path) -> float:
    alphas = np.geomspace(1e-4, 1, 32)
    return LogisticRegression().fit_path(str(path), label="y", exclude=["t"], alphas=alphas)[0].coef_[0, 0]


def logistic_sklearn(path: Path) -> float:
    features, y, _ = load(path)
    return linear_model.LogisticRegression(C=np.inf, tol=1e-6).fit(features, y).coef_[0, 0]


def logistic_duckdb(path: Path) -> float:
    connection = duckdb.connect()

    def gradient(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = " + ".join([repr(float(w[-1])), *[f"{float(v)!r} * {n}" for v, n in zip(w, NAMES, strict=False)]])
        sums = ", ".join([*[f"sum(r * {n})" for n in NAMES], "sum(r)"])
        row = connection.sql(
            f"SELECT sum(greatest(z, 0) + ln(1 + exp(-abs(z))) - y * z), {sums}, count(*) FROM "
            f"(SELECT *, 1 / (1 + exp(-z)) - y AS r FROM (SELECT *, {z} AS z FROM '{path}'))"
        ).fetchall()[0]
        return row[0] / row[-1], np.array(row[1:-1]) / row[-1]

    return minimize(gradient, np.zeros(WIDTH + 1), jac=True, method="L-BFGS-B", options={"gtol": 1e-6}).x[0]


def sgd_braidwater(path: Path) -> Callable[[], float]:
    model = LogisticRegression(solver="sgd").fit(str(path), label="y", exclude=["t"])
    return excess(path, model.coef_[0], model.intercept_[0])


def sgd_sklearn(path: Path) -> Callable[[], float]:
    model = linear_model.SGDClassifier(loss="log_loss", random_state=0)
    for batch in pq.ParquetFile(path).iter_batches(65_536, columns=[*NAMES, "y"]):
        features = np.column_stack([batch[n] for n in NAMES])
        model.partial_fit(features, batch["y"].to_numpy(), classes=[0, 1])
    return excess(path, model.coef_[0], model.intercept_[0])


def excess(path: Path, slopes: np.ndarray, intercept: float) -> Callable[[], float]:
    """The mean loss above that of the optimum, computed after the clock has stopped."""

    def compute() -> float:
        features, y, _ = load(path)
        best = LogisticRegression(tol=1e-8).fit(features, y)

        def loss(b: np.ndarray, a: float) -> float:
            z = features.astype(np.float64) @ b + a
            return float(np.mean(np.logaddexp(0, z) - y * z))

        return loss(slopes, intercept) - loss(best.coef_[0], best.intercept_[0])

    return compute


def linear_braidwater(path: Path) -> float:
    return LinearRegression().fit(str(path), label="t", exclude=["y"]).coef_[0]


def linear_polars(path: Path) -> float:
    names = [*NAMES, "t"]
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1)]
    exact = [pl.col(n).cast(pl.Float64) for n in names]
    sums = [(exact[i] * exact[j]).sum().alias(f"{i},{j}") for i, j in pairs]
    row = pl.scan_parquet(path).select([*sums, *[e.sum().alias(f"s{k}") for k, e in enumerate(exact)], pl.len()])
    found = row.collect(engine="streaming").row(0)
    products = np.empty((len(names) + 1, len(names) + 1))
    for (i, j), value in zip(pairs, found, strict=False):
        products[i, j] = products[j, i] = value
    products[-1, :-1] = products[:-1, -1] = found[len(pairs) : -1]
    products[-1, -1] = found[-1]
    kept = [*range(WIDTH), len(names)]
    return np.linalg.solve(products[np.ix_(kept, kept)], products[kept, WIDTH])[0]


def linear_sklearn(path: Path) -> float:
    features, _, t = load(path)
    return linear_model.LinearRegression().fit(features, t).coef_[0]


def clusters_braidwater(path: Path) -> float:
    start = load_head(path)
    return KMeans(10, init=start, max_iter=20, tol=0).fit(str(path), exclude=["y", "t"]).inertia_


def clusters_sklearn(path: Path) -> float:
    features, _, _ = load(path)
    start = load_head(path)
    return cluster.KMeans(10, init=start, n_init=1, max_iter=20, tol=0, algorithm="lloyd").fit(features).inertia_


def load_head(path: Path) -> np.ndarray:
    head = next(pq.ParquetFile(path).iter_batches(10, columns=NAMES))
    return np.column_stack([head[n] for n in NAMES])


def components_braidwater(path: Path) -> float:
    return PCA(5).fit(str(path), exclude=["y", "t"]).explained_variance_[0]


def components_sklearn(path: Path) -> float:
    model = decomposition.IncrementalPCA(5)
    for batch in pq.ParquetFile(path).iter_batches(10_000, columns=NAMES):
        if batch.num_rows >= 5:
            model.partial_fit(np.column_stack([batch[n] for n in NAMES]))
    return model.explained_variance_[0]


TASKS: dict[str, dict[str, Callable[[Path], Any]]] = {
    "logistic regression to the optimum": {
        "braidwater": logistic_braidwater,
        "scikit-learn lbfgs": logistic_sklearn,
        "DuckDB SQL + scipy": logistic_duckdb,
        "braidwater, path of 32": logistic_path_braidwater,
    },
    "one epoch of SGD (excess loss)": {"braidwater": sgd_braidwater, "scikit-learn SGDClassifier": sgd_sklearn},
    "linear regression": {
        "braidwater": linear_braidwater,
        "polars push-down": linear_polars,
        "scikit-learn": linear_sklearn,
    },
    "k-means, k = 10, 20 steps": {"braidwater": clusters_braidwater, "scikit-learn lloyd": clusters_sklearn},
    "PCA": {"braidwater": components_braidwater, "scikit-learn IncrementalPCA": components_sklearn},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--task", help="only tasks whose name holds this")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write(path, asked.rows)
        for task, runs in TASKS.items():
            if asked.task is None or asked.task in task:
                compare(task, runs, path, asked.repeat)


def compare(task: str, runs: dict[str, Callable[[Path], float]], path: Path, repeat: int) -> None:
    cpu, wall, answer = (dict.fromkeys(runs, np.inf) for _ in range(3))
    for number in range(repeat):
        for name, run in runs.items():
            # an own cache each time: what is measured reads the file
            with options(cache_directory=path.parent / f"cache-{number}-{len(name)}"):
                before, started = time.process_time(), time.perf_counter()
                answer[name] = run(path)
                cpu[name] = min(cpu[name], time.process_time() - before)
                wall[name] = min(wall[name], time.perf_counter() - started)
    print(f"\n{task}")
    answer = {name: found() if callable(found) else found for name, found in answer.items()}
    for name in runs:
        print(
            f"  {name:<28} cpu {cpu[name]:7.2f} s ({cpu[name] / cpu['braidwater']:5.2f} x)   wall {wall[name]:7.2f} s "
            f"({wall[name] / wall['braidwater']:5.2f} x)   {answer[name]:.6g}"
        )


if __name__ == "__main__":
    main()
