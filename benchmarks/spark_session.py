"""The Spark of the benchmarks: a session of this machine, and the rows that all contenders read."""

from __future__ import annotations

import os
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

# before numpy is loaded: a worker has one core
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYSPARK_PYTHON=sys.executable)

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WIDTH, WORKERS, GROUPS = 20, 2, 1000
FEATURES = [f"x{number}" for number in range(WIDTH)]
SETTINGS = {
    "spark.driver.memory": "4g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.log.level": "OFF",
    "spark.sql.shuffle.partitions": str(WORKERS),
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
}


@cache
def session(master: str = f"local[{WORKERS},4]") -> Any:
    """A session at `master`, up and quiet; made outside of what is measured."""
    from pyspark.sql import SparkSession

    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
    return SparkSession.builder.master(master).config(map=SETTINGS).getOrCreate()


def engine() -> Any:
    from braidwater.engines.spark import SparkEngine

    return SparkEngine(session(), WORKERS)


def make_rows(folder: Path, rows: int) -> None:
    """20 columns of normal doubles, a class `late`, a number `t`, one of 1,000 groups `g`; 8 Parquet files, 16 row groups."""
    random = np.random.default_rng(1)
    (folder / "rows").mkdir(parents=True)
    for number in range(8):
        x = random.normal(size=(rows // 8, WIDTH))
        odds = x @ np.linspace(-1, 1, WIDTH)
        columns = {name: x[:, j] for j, name in enumerate(FEATURES)}
        columns |= {
            "late": (odds + random.logistic(size=len(x)) > 0).astype(np.int8),
            "t": odds + random.normal(size=len(x)),
            "g": random.integers(0, GROUPS, len(x)).astype(np.int32),
        }
        pq.write_table(pa.table(columns), folder / "rows" / f"part{number}.parquet", row_group_size=max(rows // 16, 1))


@cache
def frame(data: Path) -> Any:
    return session().read.parquet(str(data / "rows"))


def load(data: Path, label: str) -> tuple[Any, Any]:
    """All rows in memory: features ``(rows, 20)``, and a column."""
    rows = pq.read_table(data / "rows", columns=[*FEATURES, label])
    return np.column_stack([rows.column(name).to_numpy() for name in FEATURES]), rows.column(label).to_numpy()
