"""Writing a table back: it is all there, or the old one is."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
from sqlglot import exp

from braidwater.errors import TableError
from braidwater.events import TableWritten, emit
from braidwater.extras import needed_for
from braidwater.tables.address import ARROW, DATABASE, PARQUET, POSTGRES, SPARK, split_address, table
from braidwater.tables.base import Table
from braidwater.tables.duckdb import open_database


def write_table(rows: Table | Any, place: Any, name: str | None = None) -> Table:
    """Write `rows` (a table, or anything that `braidwater.table` takes) to `place` and return the table that lies there.

    `place` is a ``.parquet``, ``.csv`` or ``.arrow`` path, ``FILE.duckdb::TABLE``, ``postgresql://…::TABLE``,
    ``spark://…::TABLE``, or a DuckDB or psycopg connection or Spark session with `name`.
    What is there is replaced in one step once all rows are written; if anything fails it stays as it was.
    """
    source = rows if isinstance(rows, Table) else table(rows)
    if not isinstance(place, (str, Path)):
        if name is None:
            raise TableError(
                "Writing through a connection needs the name of the table: write_table(rows, connection, 'name')."
            )
        if type(place).__module__.startswith("psycopg"):
            from braidwater.tables.postgres_session import address_of

            written, count = _write_server(source, address_of(place), name)
        elif type(place).__module__.startswith("pyspark"):
            from braidwater.tables.spark_write import write_spark

            written, count = write_spark(source, place, name)
        else:
            count = _write_duckdb(source, place.cursor(), name)
            written = table(place, name)
    elif str(place).startswith(POSTGRES):
        server, inner = split_address(str(place))
        written, count = _write_server(source, server, name or inner)
    elif str(place).startswith(SPARK):
        from braidwater.tables.spark_session import session_at
        from braidwater.tables.spark_write import write_spark

        server, inner = split_address(str(place))
        written, count = write_spark(source, session_at(server), name or inner)
    else:
        written, count = _write_address(source, str(place).removeprefix("duckdb:///"))
    emit(TableWritten(address=str(name) if name is not None else _without_password(str(place)), rows=count))
    return written


def _write_address(source: Table, address: str) -> tuple[Table, int]:
    path, separator, name = address.partition("::")
    lower = path.lower()
    if separator or lower.endswith(DATABASE):
        if not name or " " in name.strip():
            raise TableError(f"{address!r} names no table to write to; write FILE.duckdb::TABLE.")
        _require_folder(path)
        count = _write_duckdb(source, open_database(path, write=True), name)
    elif lower.endswith(PARQUET):
        count = _write_file(source, path, _parquet_sink)
    elif lower.endswith(ARROW):
        count = _write_file(source, path, pa.ipc.new_file)
    elif lower.endswith(".csv"):
        count = _write_file(source, path, pa.csv.CSVWriter)
    else:
        raise TableError(f"Cannot write {path!r}: it must end in .parquet, .csv, .arrow, or be FILE.duckdb::TABLE.")
    return table(address), count


def _write_server(source: Table, server: str, name: str) -> tuple[Table, int]:
    with needed_for("Writing to PostgreSQL"):
        from braidwater.tables.postgres import postgres_table
        from braidwater.tables.postgres_session import writing_connection
        from braidwater.tables.postgres_write import write_postgres

    if not name.strip():
        raise TableError("The address names no table to write to; write postgresql://USER@HOST/DATABASE::TABLE.")
    within = getattr(source, "write_within", None)  # a table that the server itself can compute
    count = within(server, name) if within is not None else None
    if count is None:
        count = write_postgres(source, writing_connection(server), name)
    return postgres_table(server, name), count


def _without_password(place: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1@", place)


def _write_duckdb(source: Table, connection: Any, name: str) -> int:
    """One transaction, batch by batch: a single INSERT over the stream would run the reader inside DuckDB's own threads."""
    target = exp.to_table(name, dialect="duckdb").sql("duckdb", identify=True)
    count = 0
    try:
        connection.execute("BEGIN TRANSACTION")
        connection.register("braidwater_rows", source.schema.empty_table())
        connection.execute(f"CREATE OR REPLACE TABLE {target} AS SELECT * FROM braidwater_rows")
        for batch in source.read():
            connection.register("braidwater_rows", pa.Table.from_batches([batch]))
            connection.execute(f"INSERT INTO {target} SELECT * FROM braidwater_rows")
            count += batch.num_rows
        connection.unregister("braidwater_rows")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(Exception):
            connection.execute("ROLLBACK")
        raise
    finally:
        connection.close()
    return count


def _write_file(source: Table, path: str, sink: Any) -> int:
    _require_folder(path)
    count = 0
    with replacing(path) as temporary, _opened(sink, temporary, source.schema) as writer:
        for batches in _gathered(source.read(), 131_072):
            writer.write_table(pa.Table.from_batches(batches, schema=source.schema))
            count += sum(batch.num_rows for batch in batches)
    return count


@contextmanager
def _opened(sink: Any, path: str, schema: pa.Schema) -> Iterator[Any]:
    writer = sink(path, schema)
    try:
        yield writer
    except BaseException:
        with suppress(OSError, pa.ArrowException):  # closing writes a footer, which fails again on a full disk
            writer.close()
        raise
    writer.close()


def _parquet_sink(path: str, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="snappy")


def _gathered(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[list[pa.RecordBatch]]:
    """Batches in lists of about `rows` rows: a row group each."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(b.num_rows for b in held) >= rows:
            yield held
            held = []
    if held:
        yield held


@contextmanager
def replacing(path: str) -> Iterator[str]:
    """A temporary path beside `path` that takes its place when the block ends well, and goes away when it does not."""
    temporary = f"{path}.{uuid4().hex[:8]}.tmp"
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC or "No space left" in str(error) else str(error)
        raise TableError(f"Writing {path!r} failed: {reason}. What was there before is unchanged.") from error
    finally:
        with suppress(FileNotFoundError):
            os.remove(temporary)


def _require_folder(path: str) -> None:
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise TableError(f"Cannot write {path!r}: there is no folder {str(folder)!r}.")
