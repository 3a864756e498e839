"""Resident memory of a logistic regression from Parquet, by the number of rows, with memory='256MB'.

python benchmarks/memory.py --rows 20000000       (or 60000000: 20 GB of disk)

The three sizes are a tenth, two fifths and all of `--rows`. The peak is that of the whole process: interpreter and libraries
are in it, with nothing fitted but as many rows as the warm-up needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data import FEATURES, write_rows
from harness import Benchmark, Found

SHARES = {"a tenth of the rows": 0.1, "two fifths of the rows": 0.4, "all rows": 1.0}


def three_sizes(folder: Path, rows: int) -> None:
    write_rows(folder / "warm", 20_000)
    for name, share in SHARES.items():
        write_rows(folder / name, int(rows * share))


bench = Benchmark(
    "Peak resident memory of a logistic regression, memory='256MB'", rows=20_000_000, make_data=three_sizes
)


def fitted(data: Path, name: str) -> Any:
    from braidwater import LogisticRegression, options

    folder = data if data.name == "warm" else data / name
    with options(memory="256MB"):
        model = LogisticRegression().fit(folder / "rows.parquet", features=FEATURES, label="y")
    plan = model.plan_
    kept = "?" if plan is None else plan.chosen.cache
    return Found(f"{model.n_rows_:,} rows, {model.n_iter_} passes, {kept} cache", {"rows": float(model.n_rows_)})


@bench.contender("a tenth of the rows", ours=True)
def tenth(data: Path) -> Any:
    return fitted(data, "a tenth of the rows")


@bench.contender("two fifths of the rows", ours=True)
def two_fifths(data: Path) -> Any:
    return fitted(data, "two fifths of the rows")


@bench.contender("all rows", ours=True)
def everything(data: Path) -> Any:
    return fitted(data, "all rows")


if __name__ == "__main__":
    bench.main()
