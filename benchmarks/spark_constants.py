"""Measures the constants of `braidwater.engines.spark.cost`, prints them beside those in force, and what plans predict beside
what was measured. Two workers, two minutes on a quiet machine.

python benchmarks/spark_constants.py --rows 1000000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from spark_session import FEATURES, WIDTH, WORKERS, engine, frame, make_rows  # isort: skip (before numpy)

import pyarrow.parquet as pq

from braidwater import LinearRegression, LogisticRegression, table
from braidwater.aggregates import Count
from braidwater.aggregates.base import Aggregate, Iteration
from braidwater.aggregates.logistic_gradient import LogisticGradient
from braidwater.blocks import BlockSource
from braidwater.encoding import Encoding
from braidwater.engines.spark import cost
from braidwater.engines.spark.export import export
from braidwater.options import options


def best(work: Callable[[], object], rounds: int = 3) -> float:
    """Seconds of the quickest call after one that warms up: neighbours only add."""
    work()
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return min(found)


class Passes(Iteration[list[float]]):
    """So many passes of one aggregate; when each ended, the first included."""

    def __init__(self, aggregate: Aggregate[Any, Any], count: int) -> None:
        self.aggregate, self.count = aggregate, count

    def passes(self) -> Generator[Aggregate[Any, Any], Any, list[float]]:
        ends = []
        for _ in range(self.count):
            yield self.aggregate
            ends.append(time.perf_counter())
        return ends


def passes(data: Path, rows: Any, make: Callable[[Any], Aggregate[Any, Any]], count: int) -> tuple[float, float]:
    """Seconds until workers that stay have done the first pass, and of one of the others."""
    encoding = Encoding(features=FEATURES, label="late", label_kind="class").fit(rows)
    with BlockSource(rows, encoding, passes=count, cache="disk") as source:
        begun = time.perf_counter()
        ends = engine().iterate(source, Passes(make(encoding.design), count))
    return ends[0] - begun, (ends[-1] - ends[0]) / (count - 1)


def one_pass(rows: Any) -> float:
    with BlockSource(rows, Encoding(features=FEATURES).fit(rows), cache="none") as source:
        begun = time.perf_counter()
        engine().aggregate(source, Count())
        return time.perf_counter() - begun


def gradient(design: Any) -> Aggregate[Any, Any]:
    import numpy as np

    return LogisticGradient(design, np.zeros((1, 1, WIDTH + 1)), kernel="fused")


def constants(data: Path, count: int) -> dict[str, float]:
    files, few = table(data / "rows"), table(data / "few.parquet")
    numbers = 8 * count * (WIDTH + 1)
    job = min(one_pass(few) for _ in range(5))
    passes(data, few, lambda design: Count(), 3)
    stays, rounds = zip(*(passes(data, few, lambda design: Count(), 100) for _ in range(3)), strict=True)
    passes(data, files, gradient, 3)
    warm = min(passes(data, files, gradient, 10)[1] for _ in range(3))
    read = min(one_pass(files) for _ in range(3))
    filtered = best(lambda: table(frame(data).where("x0 > -100"), name="filtered").parquet)
    whole = 8 * count * len(files.schema)
    here = table(pq.read_table(data / "rows"))
    write = best(lambda: export(here, engine().spark, 65_536))
    return {
        "JOB": job,
        "STAY": min(stays),
        "ROUND": min(rounds),
        "READ": (read - job) * WORKERS / (8 * count * WIDTH),
        "MEMORY": max(warm - min(rounds), 0.0) * WORKERS / numbers,
        "EXPORT": (filtered - job) * WORKERS / whole,
        "LOCAL_WRITE": write / whole,
    }


def predicted(data: Path) -> None:
    """What `explain` says of three workloads, and what they take: the second run of each, blocks made anew."""
    filtered = "SELECT * FROM parquet.`" + str(data / "rows") + "` WHERE x0 > -100"
    works: dict[str, Callable[[], Any]] = {
        "one pass over files": lambda: (LinearRegression(), data / "rows", "t"),
        "many passes over files": lambda: (LogisticRegression(), data / "rows", "late"),
        "many passes over a SELECT": lambda: (LogisticRegression(), table(engine().spark, filtered), "late"),
    }
    print(f"\n{'':28}{'predicted s':>12}{'measured s':>12}")
    for name, make in works.items():
        for _ in range(2):
            model, rows, label = make()
            with tempfile.TemporaryDirectory() as folder, options(cache_directory=folder):
                begun = time.perf_counter()
                model.fit(rows, features=FEATURES, label=label, engine=engine())
                taken = time.perf_counter() - begun
        print(f"{name:28}{model.plan_.root.cost.seconds:12.2f}{taken:12.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="braidwater-constants-") as folder:
        data = Path(folder)
        make_rows(data, given.rows)
        pq.write_table(pq.read_table(data / "rows" / "part0.parquet").slice(0, 1000), data / "few.parquet")
        print(f"{'':14}{'measured':>12}{'in force':>12}")
        for name, measured in constants(data, given.rows).items():
            print(f"{name:14}{measured:12.3g}{getattr(cost, name):12.3g}")
        predicted(data)


if __name__ == "__main__":
    main()
