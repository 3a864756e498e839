"""A table computed by Spark's workers, where its rows are, when somebody reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from braidwater.blocks.source import RAW_ROWS
from braidwater.engines.spark.session import Importing, Session
from braidwater.engines.spark.shards import Shard, shards_of, shares
from braidwater.tables.spark import SparkTable
from braidwater.tables.spark_types import arrow_schema, spark_schema

Function = Callable[[pa.RecordBatch], pa.RecordBatch]
_TASK_BYTES = 128 * 2**20  # of files: what Spark gives a task that reads them
_BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"


def mapped(
    session: Session, table: SparkTable, function: Function, schema: pa.Schema, *, name: str, workers: int
) -> SparkTable:
    """`function` on the rows of `table`, batch by batch in their order, as a lazy data frame of Spark's (`mapInArrow`).

    Where the table is plain files, Spark gives its tasks shards of them and the tasks open them; other rows come through the
    JVM, which takes twice the CPU (20 doubles a row, two cores: `benchmarks/spark_rows.py`).
    """
    given = spark_schema(schema, name)
    declared = arrow_schema(given, name)
    if table.files is None:
        rows = table.frame
        work: MapBatches | MapShards = MapBatches(function, table.schema, declared)
    else:
        shards = shards_of(table.files, RAW_ROWS, table.schema)
        tasks = shares(shards, max(workers, table.files.statistics([]).bytes // _TASK_BYTES))
        rows = session.spark.range(0, len(tasks), 1, len(tasks))
        work = MapShards(function, tasks, _batch_rows(session), declared)
    return SparkTable(rows.mapInArrow(Importing(work), given), name=name)


def _batch_rows(session: Session) -> int:
    """As many rows a batch as Spark itself hands over."""
    found = int(session.setting(_BATCH_ROWS) or 0)
    return min(found, RAW_ROWS) if found > 0 else RAW_ROWS


class MapBatches:
    """Called by Spark with the batches of a partition."""

    def __init__(self, function: Function, taken: pa.Schema, given: pa.Schema) -> None:
        self._function = function
        self._taken = taken
        self._given = given

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                # Spark takes what it gets for what was declared, and fails obscurely where it is not
                yield as_declared(self._function(batch.cast(self._taken)), self._given)


class MapShards:
    """Called by Spark with the numbers of tasks; opens the shards of each."""

    def __init__(
        self, function: Function, tasks: Sequence[tuple[Shard, ...]], batch_rows: int, given: pa.Schema
    ) -> None:
        self._function = function
        self._tasks = tasks
        self._batch_rows = batch_rows
        self._given = given

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                for shard in self._tasks[number]:
                    yield from self._of(shard)

    def _of(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        rows = shard.table()
        rows.require_unchanged()
        for batch in rows.read(batch_rows=self._batch_rows):
            if batch.num_rows:
                yield as_declared(self._function(batch), self._given)


def as_declared(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `schema`, in its order and types."""
    arrays = [batch.column(field.name).cast(field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
