"""Writing a table to a PostgreSQL server, in one transaction."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import adbc_driver_manager
import pyarrow as pa
from sqlglot import exp

from braidwater.tables.base import Table
from braidwater.tables.postgres_session import told
from braidwater.tables.postgres_types import table_of


def write_postgres(source: Table, connection: Any, name: str) -> int:
    """Replace the table `name` by the rows of `source`, in one transaction; the connection is closed. Returns their number.

    A view or table that depends on the old one keeps it from being replaced; the server's message says which.
    """
    count = 0
    try:
        target = table_of(name)
        place = {"db_schema_name": target.db} if target.db else {}
        fresh = f"braidwater_{uuid4().hex}"  # the old table stays readable meanwhile: it may be what `source` reads
        with connection.cursor() as cursor:
            cursor.adbc_ingest(fresh, source.schema.empty_table(), mode="create", **place)
            for batch in source.read():
                cursor.adbc_ingest(fresh, pa.Table.from_batches([batch]), mode="append", **place)
                count += batch.num_rows
            written = exp.table_(fresh, db=target.args.get("db")).sql("postgres")
            cursor.execute("SET LOCAL lock_timeout = '60s'")
            cursor.execute(f"DROP TABLE IF EXISTS {target.sql('postgres')}")  # parts of `target` are quoted
            cursor.execute(f"ALTER TABLE {written} RENAME TO {target.this.sql('postgres')}")
        connection.commit()
    except adbc_driver_manager.Error as error:
        raise told(error, f"Writing table {name!r}") from error
    finally:
        connection.close()  # what was not committed is gone with it
    return count
