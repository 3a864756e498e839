"""The rows that the benchmarks run on: made by a seed, written as a file that a peer would read too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = [f"x{j}" for j in range(30)]
WARM = (
    1_000_000  # from here on kernels are compiled: with fewer rows the counted call would be the first to import numba
)
GROUP = 122_880  # DuckDB's own size of a row group


def normal_features(folder: Path, rows: int, *, seed: int = 0) -> None:
    """30 float32 columns of standard normal numbers, a class `y` that follows a logistic model, a number `t`; Parquet, snappy.

    ``warm/rows.parquet`` holds `WARM` of them, for the round that is not counted.
    """
    write_rows(folder / "warm", min(rows, WARM), seed=seed)
    write_rows(folder, rows, seed=seed)


def write_rows(folder: Path, rows: int, *, seed: int = 0) -> None:
    """``rows.parquet`` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    slopes = random.normal(size=len(FEATURES)).astype(np.float32) * 0.3
    schema = pa.schema([*((name, pa.float32()) for name in FEATURES), ("y", pa.uint8()), ("t", pa.float32())])
    with pq.ParquetWriter(folder / "rows.parquet", schema, compression="snappy", use_dictionary=False) as writer:
        for begin in range(0, rows, GROUP):
            size = min(GROUP, rows - begin)
            features = random.standard_normal((len(FEATURES), size), dtype=np.float32)
            odds = slopes @ features
            y = (random.random(size) < 1 / (1 + np.exp(-odds))).astype(np.uint8)
            t = odds + random.standard_normal(size, dtype=np.float32)
            writer.write_table(pa.table([*features, y, t], schema=schema), row_group_size=GROUP)


def load(data: Path, label: str | None = None) -> tuple[Any, Any]:
    """The file in memory, as those need it who take arrays: features ``(rows, 30)`` float32 in row order, and a column."""
    rows = pq.read_table(data / "rows.parquet")
    features = np.empty((rows.num_rows, len(FEATURES)), np.float32)
    for j, name in enumerate(FEATURES):
        features[:, j] = rows.column(name).to_numpy()
    return features, None if label is None else rows.column(label).to_numpy()


def first_rows(data: Path, count: int) -> Any:
    """Features ``(count, 30)`` float32 of the first rows."""
    batch = next(pq.ParquetFile(data / "rows.parquet").iter_batches(count, columns=FEATURES))
    return np.column_stack([batch.column(name).to_numpy() for name in FEATURES])
