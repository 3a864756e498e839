"""Scripts over a table four times as large as the memory option, against the same scripts with the matrix in memory.

python benchmarks/dml_memory.py --rows 500000 --rounds 1       (2 GB of disk; 3 minutes)

The table has 100 columns of doubles in Parquet; the first call, which is not counted, also writes its block file, which later
calls read. The matrix in memory is there before the clock starts. `pool` is the most that the matrices of the script took at a
time, `resident` what the process grew by at its highest; both as a share of the memory option, which the whole table is four
times of.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import dml_scripts
from harness import Benchmark, Found

COLUMNS, TIMES, PIECE = 100, 4, 50_000


@dataclass(frozen=True)
class Case:
    script: str
    inputs: tuple[str, ...]


CASES = {
    "LinearRegCG": Case(dml_scripts.LINEAR_REGRESSION_CG, ("X", "y")),
    "l2-svm": Case(dml_scripts.L2_SVM, ("X", "y")),
    "Kmeans": Case(dml_scripts.K_MEANS, ("X",)),
}
LARGER, WHOLE = "a table of four times the memory", "all in memory"


def make_data(folder: Path, rows: int) -> None:
    """`X.parquet` in pieces, so that making it takes little memory, and `y.npy`."""
    rng = np.random.default_rng(1)
    weights, labels = rng.normal(size=(COLUMNS, 1)), []
    names = [f"x{place}" for place in range(COLUMNS)]
    schema = pa.schema([(name, pa.float64()) for name in names])
    with pq.ParquetWriter(folder / "X.parquet", schema) as writer:
        for begin in range(0, rows, PIECE):
            X = rng.normal(size=(min(PIECE, rows - begin), COLUMNS))
            labels.append(X @ weights + rng.normal(size=(len(X), 1)))
            writer.write_table(pa.table(list(X.T), names=names))
    np.save(folder / "y.npy", np.concatenate(labels))


bench = Benchmark("scripts over a table of four times the memory option", rows=500_000, make_data=make_data)


def run(data: Path, name: str, larger: bool) -> Any:
    import time

    from braidwater import dml
    from braidwater.tables import table

    case, y = CASES[name], np.load(data / "y.npy")
    size = len(y) * COLUMNS * 8
    X = table(data / "X.parquet") if larger else in_memory(data)
    given = {key: value for key, value in {"X": X, "y": y}.items() if key in case.inputs}
    memory = size // TIMES if larger else 4 * size
    prepared = dml.compile(case.script, ["result"], memory=memory)
    before = highest_resident(anew=True)
    wall, cpu = time.perf_counter(), time.process_time()
    results = prepared(given)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    grown = highest_resident() - before
    pool = results.context.pool.largest
    told = f"{np.square(results['result']).sum():.9g}, memory option {memory / 1e6:.0f} MB"
    return Found(told, {"pool": pool / memory, "resident": grown / memory}, wall, cpu)


def in_memory(data: Path) -> Any:
    columns = pq.read_table(data / "X.parquet").columns
    return np.ascontiguousarray(np.stack([column.to_numpy() for column in columns], axis=1))


def highest_resident(anew: bool = False) -> int:
    """The most bytes that this process held, since it was last asked `anew` (Linux)."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


for _name in CASES:
    bench.contender(f"{_name}, {LARGER}", ours=True)(partial(run, name=_name, larger=True))
    bench.contender(f"{_name}, {WHOLE}", ours=True)(partial(run, name=_name, larger=False))


if __name__ == "__main__":
    bench.main()
