"""The Spark engine beside the embedded one: CPU of the whole tree of processes (driver, JVM, Python workers) and wall time.

python benchmarks/spark.py --rows 2000000 --repeat 3

Makes a table of 20 doubles and a label in 8 Parquet files, and measures, over a warm session on all cores: one pass, an
iteration, a gang's start, tasks, and the export of a filtered frame.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYSPARK_PYTHON=sys.executable)

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from braidwater import LinearRegression, LogisticRegression, table
from braidwater.engines import Engine, LocalEngine
from braidwater.engines.base import Member, Task
from braidwater.engines.spark import SparkEngine
from braidwater.errors import ConvergenceWarning
from braidwater.tables.spark_session import start_session

FEATURES = [f"x{number}" for number in range(20)]


def tree_seconds() -> float:
    """CPU seconds of this process and of all that descend from it, those that have ended included as far as somebody waited."""
    parents, used = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
        used[int(folder.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    total = 0.0
    for process, seconds in used.items():
        ancestor = process
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        total += seconds if ancestor == os.getpid() else 0.0
    return total


def measured(work: Callable[[], object], repeat: int) -> dict[str, float]:
    """The least of `repeat` runs after one that warms up: neighbours only add."""
    work()
    found = []
    for _ in range(repeat):
        cpu, begun = tree_seconds(), time.perf_counter()
        work()
        found.append((tree_seconds() - cpu, time.perf_counter() - begun))
    return {"cpu": round(min(cpu for cpu, _ in found), 3), "wall": round(min(wall for _, wall in found), 3)}


def make_files(folder: Path, rows: int) -> str:
    random = np.random.default_rng(1)
    for number in range(8):
        x = random.normal(size=(rows // 8, 20))
        late = (x @ np.linspace(-1, 1, 20) + random.logistic(size=len(x)) > 0).astype(np.int8)
        columns = {name: x[:, j] for j, name in enumerate(FEATURES)} | {"late": late}
        pq.write_table(pa.table(columns), folder / f"part{number}.parquet", row_group_size=max(rows // 16, 1))
    return str(folder)


def meets(member: Member) -> int:
    import torch.distributed as dist

    dist.barrier()
    return member.rank


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
    cores = os.cpu_count() or 2
    with tempfile.TemporaryDirectory() as place:
        files = make_files(Path(place), arguments.rows)
        spark = start_session(
            f"local[{cores},4]", spark__ui__enabled="false", spark__driver__memory="2g", spark__log__level="OFF"
        )
        engines: dict[str, Engine] = {"spark": SparkEngine(spark), "embedded": LocalEngine()}
        results: dict[str, Any] = {"rows": arguments.rows, "cores": cores}
        for name, engine in engines.items():
            works: dict[str, Callable[[], object]] = {
                "linear regression, one pass": lambda on=engine: LinearRegression().fit(files, label="late", engine=on),
                "logistic regression, warm blocks": lambda on=engine: LogisticRegression().fit(
                    files, label="late", engine=on
                ),
                "gang of 2, start and barrier": lambda on=engine: on.gang(meets, 2),
                "20 tasks": lambda on=engine: list(on.tasks(Task(str(n), abs, (n,)) for n in range(20))),
            }
            results[name] = {what: measured(work, arguments.repeat) for what, work in works.items()}
        frame = spark.read.parquet(files).where("x0 > -100")
        results["export of a filtered frame"] = measured(
            lambda: table(frame, name="filtered").parquet, arguments.repeat
        )
        spark.stop()
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
