"""Measures the constants of `braidwater.engines.spark.cost`, prints them beside those in force, and what plans predict beside
what was measured. Two workers, two minutes on a quiet machine; a part takes less than one.

python benchmarks/spark_constants.py --rows 1000000 [--only jobs --only stays --only writes --only plans]
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


def jobs(data: Path, count: int) -> dict[str, float]:
    files, few = table(data / "rows"), table(data / "few.parquet")
    one_pass(few)
    job = min(one_pass(few) for _ in range(5))
    one_pass(files)
    read = min(one_pass(files) for _ in range(3))
    filtered = best(lambda: table(frame(data).where("x0 > -100"), name="filtered").parquet)
    return {
        "JOB": job,
        "READ": (read - job) * WORKERS / (8 * count * WIDTH),
        "EXPORT": (filtered - job) * WORKERS / (8 * count * len(files.schema)),
    }


def stays(data: Path, count: int) -> dict[str, float]:
    few = table(data / "few.parquet")
    passes(data, few, lambda design: Count(), 3)
    begun, rounds = zip(*(passes(data, few, lambda design: Count(), 100) for _ in range(3)), strict=True)
    passes(data, table(data / "rows"), gradient, 3)
    first, warm = zip(
        *(anew(data, lambda: passes(data, table(data / "rows"), gradient, 10)) for _ in range(3)), strict=True
    )
    core = WORKERS / (8 * count * (WIDTH + 1))
    stay, round_ = min(begun), min(rounds)
    return {
        "STAY": stay,
        "ROUND": round_,
        "MEMORY": max(min(warm) - round_, 0.0) * core,
        "READ + KEEP": (min(first) - stay) * core,
    }


def anew(data: Path, work: Callable[[], Any]) -> Any:
    """With files that no kept blocks are of."""
    for file in (data / "rows").glob("*.parquet"):
        file.touch()
    return work()


def writes(data: Path, count: int) -> dict[str, float]:
    here = table(pq.read_table(data / "rows"))
    return {"LOCAL_WRITE": best(lambda: export(here, engine().spark, 65_536)) / (8 * count * len(here.schema))}


def plans(data: Path, count: int) -> None:
    """What `explain` says of three workloads, and what they take: the best of three runs after one, blocks made anew."""
    filtered = "SELECT * FROM parquet.`" + str(data / "rows") + "` WHERE x0 > -100"
    works: dict[str, Callable[[], Any]] = {
        "one pass over files": lambda: (LinearRegression(), data / "rows", "t"),
        "many passes over files": lambda: (LogisticRegression(), data / "rows", "late"),
        "many passes over a SELECT": lambda: (LogisticRegression(), table(engine().spark, filtered), "late"),
    }
    print(f"{'':28}{'predicted s':>12}{'measured s':>12}{'ratio':>8}{'whole fit s':>12}")
    for name, make in works.items():
        found = [anew(data, lambda made=make: fit(*made())) for _ in range(4)][1:]
        plan, whole = min(found, key=lambda pair: pair[1])
        predicted, measured = plan.root.estimated.seconds, plan.root.measured.seconds
        print(f"{name:28}{predicted:12.2f}{measured:12.2f}{measured / predicted:8.2f}{whole:12.2f}", flush=True)


def fit(model: Any, rows: Any, label: str) -> tuple[Any, float]:
    """The plan, its measured side filled, and the seconds with the encoding, whose statistics are queries of their own."""
    begun = time.perf_counter()
    model.fit(rows, features=FEATURES, label=label, engine=engine())
    return model.plan_, time.perf_counter() - begun


PARTS: dict[str, Callable[[Path, int], dict[str, float]]] = {"jobs": jobs, "stays": stays, "writes": writes}


def in_force(name: str) -> float:
    return float(sum(getattr(cost, part) for part in name.split(" + ")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", action="append", choices=[*PARTS, "plans"], help="parts to run (by default all)")
    given = parser.parse_args()
    chosen = given.only or [*PARTS, "plans"]
    with tempfile.TemporaryDirectory(prefix="braidwater-constants-") as folder:
        data = Path(folder)
        make_rows(data, given.rows)
        pq.write_table(pq.read_table(data / "rows" / "part0.parquet").slice(0, 1000), data / "few.parquet")
        print(f"{'':14}{'measured':>12}{'in force':>12}")
        for part in [name for name in PARTS if name in chosen]:
            for name, measured in PARTS[part](data, given.rows).items():
                print(f"{name:14}{measured:12.3g}{in_force(name):12.3g}", flush=True)
        if "plans" in chosen:
            plans(data, given.rows)


if __name__ == "__main__":
    main()
