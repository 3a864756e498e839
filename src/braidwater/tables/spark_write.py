"""Writing a table of Spark: it is all there, or the old one is."""

from __future__ import annotations

import os
import shutil
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
from sqlglot import exp

from braidwater.errors import TableError, UserError
from braidwater.tables.base import Table
from braidwater.tables.duckdb import parse_query
from braidwater.tables.spark import SparkTable, shared_folder, spark_table
from braidwater.tables.spark_session import short
from braidwater.tables.spark_types import arrow_schema, spark_schema


def write_spark(source: Table, spark: Any, name: str) -> tuple[SparkTable, int]:
    """Replace the table `name` of a session by the rows of `source`; that table and the number of its rows.

    The rows are written under another name first, by Spark's executors where `source` is a table of Spark, and take the
    place of the old table by renaming. Spark's catalogue has no transactions: a crash between the two renames leaves the
    old rows under the name ``<name>_before_<letters>``.
    """
    target = parse_query(name, dialect="spark").find(exp.Table)
    if target is None or not target.name:
        raise TableError(f"{name!r} is no name of a table to write to.")
    stamp = uuid4().hex[:8]
    fresh, before = _beside(target, f"new_{stamp}"), _beside(target, f"before_{stamp}")
    folder: str | None = None
    try:
        frame, folder = (source.frame, None) if isinstance(source, SparkTable) else _shipped(source, spark)
        frame.write.format("parquet").saveAsTable(_text(fresh))
        count = int(spark.table(_text(fresh)).count())
        replaces = spark.catalog.tableExists(_text(target))
        if replaces:
            _rename(spark, target, before)
        try:
            _rename(spark, fresh, target)
        except BaseException:
            if replaces:
                _rename(spark, before, target)
            raise
        if replaces:
            spark.sql(f"DROP TABLE {_text(before)}")
    except UserError:
        raise
    except Exception as error:
        raise TableError(
            f"Writing table {name!r} failed: {short(error)} What was there before is unchanged."
        ) from error
    finally:
        spark.sql(f"DROP TABLE IF EXISTS {_text(fresh)}")
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return spark_table(spark, name), count


def _beside(table: exp.Table, ending: str) -> exp.Table:
    return exp.table_(f"{table.name}_{ending}", db=table.db or None, catalog=table.catalog or None)


def _text(table: exp.Table) -> str:
    named: str = exp.table_(table.name, db=table.db or None, catalog=table.catalog or None, quoted=True).sql("spark")
    return named


def _rename(spark: Any, table: exp.Table, to: exp.Table) -> None:
    spark.sql(f"ALTER TABLE {_text(table)} RENAME TO {_text(to)}")


def _shipped(source: Table, spark: Any) -> tuple[Any, str]:
    """The rows of a table that lies elsewhere, as files that Spark can read."""
    schema = arrow_schema(spark_schema(source.schema, source.name), source.name)
    folder = os.path.join(shared_folder(spark), f"braidwater-{uuid4().hex}")
    os.makedirs(folder)
    with pq.ParquetWriter(os.path.join(folder, "part-000000.parquet"), schema, compression="snappy") as writer:
        for batch in source.read():
            writer.write_batch(batch.cast(schema))
    return spark.read.schema(spark_schema(schema, source.name)).parquet(f"file://{folder}"), folder
