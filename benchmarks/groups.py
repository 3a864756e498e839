"""One model a group, reading Parquet included: 100 and 10,000 groups against one fit of all rows, and against a loop.

python benchmarks/groups.py --rows 2000000
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import GROUP, WARM
from harness import Benchmark

FEATURES = [f"x{j}" for j in range(10)]
GROUPS = (100, 10_000)


def grouped_rows(folder: Path, rows: int) -> None:
    """Ten columns of normal numbers, a number `t` and a class `y`, rows of 100 and of 10,000 groups in no order."""
    for place, count in ((folder / "warm", min(rows, WARM)), (folder, rows)):
        place.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        slopes = random.normal(size=len(FEATURES)) * 0.3
        names = [f"g{number}" for number in GROUPS]
        schema = pa.schema(
            [*((name, pa.float64()) for name in [*FEATURES, "t"]), ("y", pa.uint8()), *((n, pa.int32()) for n in names)]
        )
        with pq.ParquetWriter(place / "rows.parquet", schema, compression="snappy", use_dictionary=False) as writer:
            for begin in range(0, count, GROUP):
                size = min(GROUP, count - begin)
                x = random.standard_normal((len(FEATURES), size))
                odds = slopes @ x
                y = (random.random(size) < 1 / (1 + np.exp(-odds))).astype(np.uint8)
                groups = [random.integers(0, number, size).astype(np.int32) for number in GROUPS]
                columns = [*x, odds + random.standard_normal(size), y, *groups]
                writer.write_table(pa.table(columns, schema=schema), row_group_size=GROUP)


bench = Benchmark("One model a group, ten columns, Parquet included", rows=2_000_000, make_data=grouped_rows)


def model_of(label: str) -> Any:
    from braidwater import LinearRegression, LogisticRegression

    return LinearRegression() if label == "t" else LogisticRegression()


def one_fit(label: str) -> Callable[[Path], str]:
    def run(data: Path) -> str:
        model = model_of(label).fit(data / "rows.parquet", features=FEATURES, label=label)
        return f"first coefficient {float(np.ravel(model.coef_)[0]):.6f}"

    return run


def by_groups(label: str, groups: int) -> Callable[[Path], str]:
    def run(data: Path) -> str:
        from braidwater.model_selection import fit_groups

        models = fit_groups(model_of(label), data / "rows.parquet", by=f"g{groups}", features=FEATURES, label=label)
        return f"first coefficient of group 7 {float(np.ravel(models.model_of(7).coef_)[0]):.6f}"

    return run


def loop(label: str, groups: int) -> Callable[[Path], str]:
    def run(data: Path) -> str:
        import pandas as pd
        from sklearn.linear_model import LinearRegression, LogisticRegression

        rows = pd.read_parquet(data / "rows.parquet", columns=[*FEATURES, label, f"g{groups}"])
        found = {}
        for key, own in rows.groupby(f"g{groups}"):
            model = LinearRegression() if label == "t" else LogisticRegression(C=np.inf, tol=1e-6)
            found[key] = model.fit(own[FEATURES].to_numpy(), own[label].to_numpy())
        return f"first coefficient of group 7 {float(np.ravel(found[7].coef_)[0]):.6f}"

    return run


for label, title in (("t", "linear"), ("y", "logistic")):
    bench.contender(f"{title}: one fit of all rows", ours=label == "t")(one_fit(label))
    for groups in GROUPS:
        bench.contender(f"{title}: {groups:,} groups")(by_groups(label, groups))
        bench.contender(f"{title}: {groups:,} groups, pandas and scikit-learn", once=True)(loop(label, groups))


if __name__ == "__main__":
    bench.main()
