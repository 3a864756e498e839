"""Ten logistic gradients on Spark, two workers: ours inside one job, the ways that Spark's manuals show, and numpy alone.

python benchmarks/spark.py --rows 2000000 --rounds 3

All take ten steps of one length down the same gradient, but for MLlib, which takes ten iterations of its L-BFGS. The session is
up and warm, and each keeps the rows as it would keep them (blocks on disk, a cached frame, numpy arrays in memory) before the
clock starts. "a pass" are the seconds of the nine passes after the first; the rest is set-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from spark_session import FEATURES, WIDTH, WORKERS, engine, frame, load, make_rows, session  # isort: skip (before numpy)

import numpy as np

from harness import Benchmark, Found, cpu_seconds

PASSES, RATE = 10, 2.0
bench = Benchmark(
    "Ten gradients of a logistic regression on Spark, 20 doubles a row", rows=2_000_000, make_data=make_rows
)


def gradient(x: Any, y: Any, weights: Any) -> Any:
    """The sums of a block's rows: gradient, loss, rows."""
    odds = x @ weights
    loss = np.logaddexp(0.0, odds).sum() - odds[y == 1].sum()
    return np.append(x.T @ (1 / (1 + np.exp(-odds)) - y), [loss, len(y)])


def descend(one_pass: Callable[[Any], Any]) -> Found:
    """Ten steps; `one_pass` sums what `gradient` gives."""
    weights, loss, marks = np.zeros(WIDTH), 0.0, []
    for _ in range(PASSES):
        found = one_pass(weights)
        weights = weights - RATE * found[:WIDTH] / found[-1]
        loss = found[-2] / found[-1]
        marks.append((time.perf_counter(), cpu_seconds()))
    return told(loss, marks)


def told(loss: float, marks: list[tuple[float, float]]) -> Found:
    (begun, cpu), (end, used) = marks[0], marks[-1]
    values = {"pass wall": (end - begun) / (len(marks) - 1), "pass cpu": (used - cpu) / (len(marks) - 1)}
    text = f"{values['pass wall']:.3f} s, {values['pass cpu']:.3f} CPU s a pass, loss before the last step {loss:.6f}"
    return Found(text, values)


@bench.contender("braidwater, iterate", ours=True)
def braidwater(data: Path) -> Found:
    from braidwater.aggregates.base import Aggregate, Iteration
    from braidwater.aggregates.logistic_gradient import LogisticGradient
    from braidwater.blocks import BlockSource

    marks: list[tuple[float, float]] = []

    class Descent(Iteration[float]):
        def __init__(self, design: Any) -> None:
            self.design = design

        def passes(self) -> Generator[Aggregate[Any, Any], Any, float]:
            point, loss = np.zeros((1, 1, WIDTH + 1)), 0.0
            for _ in range(PASSES):
                found = yield LogisticGradient(self.design, point, kernel="fused")
                marks.append((time.perf_counter(), cpu_seconds()))
                point = point - RATE * found.gradient / found.weight
                point[..., -1], loss = 0.0, float(found.loss[0] / found.weight)  # no intercept
            return loss

    rows, encoding = encoded(data)
    with BlockSource(rows, encoding, passes=PASSES, cache="disk") as source:
        loss = engine().iterate(source, Descent(encoding.design))
    return told(loss, marks)


@cache
def encoded(data: Path) -> tuple[Any, Any]:
    from braidwater import table
    from braidwater.encoding import Encoding

    rows = table(frame(data), name="rows")
    return rows, Encoding(features=FEATURES, label="late", label_kind="class").fit(rows)


@bench.contender("numpy, one process")
def numpy_alone(data: Path) -> Found:
    x, y = in_memory(data)
    return descend(lambda weights: gradient(x, y, weights))


@cache
def in_memory(data: Path) -> tuple[Any, Any]:
    return load(data, "late")


@bench.contender("MLlib, cached")
def mllib(data: Path) -> str:
    from pyspark.ml.classification import LogisticRegression

    rows = assembled(data)
    model = LogisticRegression(
        labelCol="late", maxIter=PASSES, tol=0.0, regParam=0.0, fitIntercept=False, standardization=False
    ).fit(rows)
    return f"loss {model.summary.objectiveHistory[-1]:.6f}"


@cache
def assembled(data: Path) -> Any:
    from pyspark.ml.feature import VectorAssembler

    read = frame(data)  # first: a stage needs a session
    rows = VectorAssembler(inputCols=FEATURES, outputCol="features").transform(read)
    rows = rows.select("features", "late").cache()
    rows.count()
    return rows


@bench.contender("treeAggregate over cached numpy blocks")
def tree_aggregate(data: Path) -> Found:
    blocks = numpy_blocks(data)

    def one_pass(weights: Any) -> Any:
        zero = np.zeros(WIDTH + 2)
        return blocks.treeAggregate(zero, lambda sums, block: sums + gradient(*block, weights), np.add)

    return descend(one_pass)


@cache
def numpy_blocks(data: Path) -> Any:
    def block(rows: Iterator[Any]) -> Iterator[Any]:
        import pyarrow.parquet as pq

        for file in rows:
            part = pq.read_table(file)
            yield np.column_stack([part.column(name).to_numpy() for name in FEATURES]), part.column("late").to_numpy()

    files = sorted(str(path) for path in (data / "rows").glob("*.parquet"))
    blocks = session().sparkContext.parallelize(files, WORKERS).mapPartitions(block).cache()
    blocks.count()
    return blocks


@bench.contender("mapInPandas over a cached frame", once=True)
def map_in_pandas(data: Path) -> Found:
    rows = cached(data)

    def one_pass(weights: Any) -> Any:
        def sums(batches: Iterator[Any]) -> Iterator[Any]:
            import pandas as pd

            total = sum(gradient(one[FEATURES].to_numpy(), one["late"].to_numpy(), weights) for one in batches)
            yield pd.DataFrame({"sums": [list(total)]})

        return np.sum([row.sums for row in rows.mapInPandas(sums, "sums array<double>").collect()], 0)

    return descend(one_pass)


@cache
def cached(data: Path) -> Any:
    rows = frame(data).select(*FEATURES, "late").cache()
    rows.count()
    return rows


if __name__ == "__main__":
    bench.main()
