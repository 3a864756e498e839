"""A table computed by Spark, where its rows are, when somebody reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa

from braidwater.engines.spark.session import Importing
from braidwater.tables.spark import SparkTable
from braidwater.tables.spark_types import arrow_schema, spark_schema

Function = Callable[[pa.RecordBatch], pa.RecordBatch]


def mapped(table: SparkTable, function: Function, schema: pa.Schema, *, name: str) -> SparkTable:
    """`function` on the rows of `table`, batch by batch in their order, as a lazy data frame of Spark's (`mapInArrow`)."""
    given = spark_schema(schema, name)
    work = Importing(MapBatches(function, table.schema, arrow_schema(given, name)))
    return SparkTable(table.frame.mapInArrow(work, given), name=name)


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


def as_declared(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `schema`, in its order and types."""
    arrays = [batch.column(field.name).cast(field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
