"""Rows that lie where Spark's workers cannot open them, written down once for them."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any
from uuid import uuid4

from braidwater.events import TableWritten, emit
from braidwater.tables.base import Table
from braidwater.tables.parquet import ParquetTable
from braidwater.tables.spark import parquet_writer, shared_folder

_LEAST_ROWS = 1024


def export(table: Table, spark: Any, unit_rows: int) -> ParquetTable:
    """`table` as a Parquet file in the shared folder, until that is gone. A block of `unit_rows` rows is a row group."""
    folder = Path(shared_folder(spark)) / f"braidwater-{uuid4().hex}"
    folder.mkdir(parents=True)
    unfinished = weakref.finalize(table, shutil.rmtree, str(folder), True)
    path = str(folder / "rows.parquet")
    rows = 0
    size = max(unit_rows, min(_LEAST_ROWS, unit_rows * (_LEAST_ROWS // max(unit_rows, 1) + 1)))
    with parquet_writer(path, table.schema) as writer:
        for batch in _of_size(table, size):
            writer.write_table(batch, row_group_size=size)
            rows += batch.num_rows
    emit(TableWritten(address=path, rows=rows))
    found = ParquetTable([path], name=table.name)
    unfinished.detach()
    weakref.finalize(found, shutil.rmtree, str(folder), True)
    return found


def _of_size(table: Table, rows: int) -> Any:
    """The rows of a table in pieces of exactly so many, but for the last."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    count = 0
    for batch in table.read(batch_rows=min(rows, 65_536)):
        while batch.num_rows:
            part = batch.slice(0, rows - count)
            held.append(part)
            count += part.num_rows
            batch = batch.slice(part.num_rows)
            if count == rows:
                yield pa.Table.from_batches(held, schema=table.schema)
                held, count = [], 0
    if held:
        yield pa.Table.from_batches(held, schema=table.schema)
