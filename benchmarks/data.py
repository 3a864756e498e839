"""The rows that the benchmarks run on: made by a seed, written as a file that a peer would read too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = [f"x{j}" for j in range(30)]
GROUP = 122_880  # DuckDB's own size of a row group


def normal_features(folder: Path, rows: int, *, seed: int = 0) -> None:
    """30 float32 columns of standard normal numbers, a class `y` that follows a logistic model, a number `t`; Parquet, snappy.

    ``warm/rows.parquet`` holds a few of them, for the round that is not counted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "warm").mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    slopes = random.normal(size=len(FEATURES)).astype(np.float32) * 0.3
    schema = pa.schema([*((name, pa.float32()) for name in FEATURES), ("y", pa.uint8()), ("t", pa.float32())])
    for path, count in ((folder / "warm" / "rows.parquet", min(rows, 200_000)), (folder / "rows.parquet", rows)):
        with pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=False) as writer:
            for begin in range(0, count, GROUP):
                size = min(GROUP, count - begin)
                features = random.standard_normal((len(FEATURES), size), dtype=np.float32)
                odds = slopes @ features
                y = (random.random(size) < 1 / (1 + np.exp(-odds))).astype(np.uint8)
                t = odds + random.standard_normal(size, dtype=np.float32)
                writer.write_table(pa.table([*features, y, t], schema=schema), row_group_size=GROUP)
