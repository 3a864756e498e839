"""Rows that do go through Spark: a function of blocks, a model a group, a frame written down for workers.

python benchmarks/spark_rows.py --rows 1000000 --rounds 3

The function adds the product of 20 columns with a vector; its column is summed, so that no other work is measured. A row UDF
calls Python a row, and has Arrow bring the values (Spark 4.2 and newer); rdd.map gets Row objects, which is how
TensorFlowOnSpark, elephas and Orca are fed. Group models are least squares with an intercept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spark_session import FEATURES, GROUPS, WIDTH, engine, frame, make_rows, session  # isort: skip (before numpy)

import numpy as np

from harness import Benchmark

WEIGHTS = np.linspace(-1, 1, WIDTH)
bench = Benchmark("Rows through Spark: 20 doubles, 1,000 groups", rows=1_000_000, make_data=make_rows)


def total(rows: Any, column: str) -> str:
    return f"sum {rows.agg({column: 'sum'}).first()[0]:.3f}"


@bench.contender("blocks: braidwater, map_blocks", ours=True)
def map_blocks(data: Path) -> str:
    from braidwater import block_functions, table

    rows = table(frame(data).select(*FEATURES), name="rows")
    found = block_functions.map_blocks(product, rows, engine=engine())
    return total(found.frame, "odds")


def product(x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15, x16, x17, x18, x19):  # type: ignore[no-untyped-def]
    columns = (x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15, x16, x17, x18, x19)
    return {"odds": sum(weight * column for weight, column in zip(WEIGHTS, columns, strict=True))}


@bench.contender("blocks: mapInArrow by hand")
def map_in_arrow(data: Path) -> str:
    def work(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            odds = product(*(batch.column(name).to_numpy() for name in FEATURES))["odds"]
            yield batch.append_column("odds", pa_array(odds))

    def pa_array(values: Any) -> Any:
        import pyarrow as pa

        return pa.array(values)

    schema = ", ".join(f"{name} double" for name in (*FEATURES, "odds"))
    return total(frame(data).select(*FEATURES).mapInArrow(work, schema), "odds")


@bench.contender("blocks: a row UDF", once=True)
def row_udf(data: Path) -> str:
    from pyspark.sql.functions import udf

    session()
    weights = WEIGHTS.tolist()

    @udf("double")
    def odds(*row: float) -> float:
        return sum(weight * value for weight, value in zip(weights, row, strict=True))

    return total(frame(data).select(*FEATURES, odds(*FEATURES).alias("odds")), "odds")


@bench.contender("blocks: rdd.map, a row at a time", once=True)
def rdd_map(data: Path) -> str:
    weights = WEIGHTS.tolist()

    def odds(row: Any) -> float:
        return sum(weight * value for weight, value in zip(weights, row, strict=True))

    return f"sum {frame(data).select(*FEATURES).rdd.map(odds).sum():.3f}"


@bench.contender("groups: braidwater, fit_groups")
def groups(data: Path) -> str:
    from braidwater import LinearRegression, table
    from braidwater.model_selection import fit_groups

    rows = table(frame(data), name="rows")
    models = fit_groups(LinearRegression(), rows, by="g", features=FEATURES, label="t", engine=engine())
    return f"first coefficient of group 7 {models.model_of(7).coef_[0]:.6f}"


@bench.contender("groups: groupBy.applyInArrow")
def apply_in_arrow(data: Path) -> str:
    def fit(rows: Any) -> Any:
        import pyarrow as pa

        x = np.column_stack([rows.column(name).to_numpy() for name in FEATURES] + [np.ones(rows.num_rows)])
        weights, *_ = np.linalg.lstsq(x.T @ x, x.T @ rows.column("t").to_numpy(), rcond=None)
        return pa.table({"g": rows.column("g").slice(0, 1), "weights": pa.array([weights], pa.list_(pa.float64()))})

    rows = frame(data).select(*FEATURES, "t", "g")
    found = rows.groupBy("g").applyInArrow(fit, "g int, weights array<double>").collect()
    assert len(found) == GROUPS
    return f"first coefficient of group 7 {next(row.weights[0] for row in found if row.g == 7):.6f}"


@bench.contender("export: braidwater, a filtered frame")
def export(data: Path) -> str:
    from braidwater import table

    return f"{table(frame(data).where('x0 > -100'), name='filtered').parquet.statistics([]).rows:,} rows"


@bench.contender("export: write.parquet")
def write_parquet(data: Path) -> str:
    frame(data).where("x0 > -100").write.mode("overwrite").parquet(str(data / "written"))
    return ""


if __name__ == "__main__":
    bench.main()
