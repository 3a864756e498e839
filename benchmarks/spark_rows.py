"""Rows that do go through Spark: a function of blocks, a model a group, a frame written down for workers.

python benchmarks/spark_rows.py --rows 1000000 --rounds 3

The function adds the product of 20 columns with a vector; its column is summed, so that no other work is measured. Its peers,
each by its name: mapInArrow, where a batch comes through the JVM; a row UDF, whose values come in batches by Arrow (Spark 4.2
and newer) or by pickle (before that, and with `useArrow=False`); rdd.map, which gets Row objects, as TensorFlowOnSpark, elephas
and Orca are fed, and gives numbers, or rows with one column more, as TensorFrames' map_rows does. A row UDF gives nothing but
its column: so does map_blocks where it is trimmed. "the scan alone" sums the 20 columns in the JVM. Group models are least
squares with an intercept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spark_session import FEATURES, GROUPS, WIDTH, engine, frame, make_rows, session  # isort: skip (before numpy)

import numpy as np

from harness import Benchmark

WEIGHTS = np.linspace(-1, 1, WIDTH)
WARM = 100_000


def make_data(folder: Path, rows: int) -> None:
    make_rows(folder, rows)
    make_rows(folder / "warm", min(rows, WARM))


bench = Benchmark("Rows through Spark: 20 doubles, 1,000 groups", rows=1_000_000, make_data=make_data)


def total(rows: Any, column: str) -> str:
    return f"sum {rows.agg({column: 'sum'}).first()[0]:.3f}"


@bench.contender("blocks: braidwater, map_blocks", ours=True)
def map_blocks(data: Path) -> str:
    return mapped(data, trim=False)


@bench.contender("blocks: braidwater, map_blocks trimmed")
def map_blocks_trimmed(data: Path) -> str:
    return mapped(data, trim=True)


def mapped(data: Path, *, trim: bool) -> str:
    from braidwater import block_functions, table

    rows = table(frame(data).select(*FEATURES), name="rows")
    found = block_functions.map_blocks(product, rows, trim=trim, engine=engine())
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


@bench.contender("blocks: a row UDF, by Arrow", once=True)
def row_udf_by_arrow(data: Path) -> str:
    return row_udf(data, by_arrow=True)


@bench.contender("blocks: a row UDF, pickled", once=True)
def row_udf_pickled(data: Path) -> str:
    return row_udf(data, by_arrow=False)


def row_udf(data: Path, *, by_arrow: bool) -> str:
    from pyspark.sql.functions import udf

    session()
    weights = WEIGHTS.tolist()

    def odds(*row: float) -> float:
        return sum(weight * value for weight, value in zip(weights, row, strict=True))

    called = udf(odds, "double", useArrow=by_arrow)
    return total(frame(data).select(*FEATURES, called(*FEATURES).alias("odds")), "odds")


@bench.contender("blocks: rdd.map, numbers out", once=True)
def rdd_map(data: Path) -> str:
    weights = WEIGHTS.tolist()

    def odds(row: Any) -> float:
        return sum(weight * value for weight, value in zip(weights, row, strict=True))

    return f"sum {frame(data).select(*FEATURES).rdd.map(odds).sum():.3f}"


@bench.contender("blocks: rdd.map, rows out", once=True)
def rdd_map_rows(data: Path) -> str:
    weights = WEIGHTS.tolist()

    def with_odds(row: Any) -> tuple[float, ...]:
        return (*row, sum(weight * value for weight, value in zip(weights, row, strict=True)))

    schema = ", ".join(f"{name} double" for name in (*FEATURES, "odds"))
    found = session().createDataFrame(frame(data).select(*FEATURES).rdd.map(with_odds), schema)
    return total(found, "odds")


@bench.contender("blocks: the scan alone")
def scan(data: Path) -> str:
    from pyspark.sql.functions import sum as total_of

    frame(data)  # first: a function needs a session
    return f"sum {sum(frame(data).select(*(total_of(name) for name in FEATURES)).first()):.3f}"


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
