"""From what a user has (a path, a URL, a connection, a data frame) to a table."""

from __future__ import annotations

import re
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import pyarrow as pa

from braidwater.errors import TableError, TableNotFoundError
from braidwater.extras import needed_for
from braidwater.tables.arrow import ArrowFileTable, ArrowTable
from braidwater.tables.base import Table
from braidwater.tables.duckdb import DuckDBTable, database_table, files_table
from braidwater.tables.parquet import ParquetTable

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zst")
JSON = (".ndjson", ".jsonl", ".json")
DATABASE = (".duckdb", ".ddb", ".db")
POSTGRES = ("postgresql://", "postgres://")
SPARK = ("spark://", "sc://")


def table(place: Any, query: str | None = None, *, name: str | None = None) -> Table:
    """The table that lies at `place`.

    `place` is one of

    - a path of a Parquet, CSV, Arrow (Feather) or JSON-lines file, a glob, or a directory of such files;
    - ``FILE.duckdb::TABLE`` or ``FILE.duckdb::SELECT ...``, also written ``duckdb:///FILE.duckdb::...``;
    - ``postgresql://USER@HOST/DATABASE::TABLE`` or ``…::SELECT ...`` (needs the extra ``[postgres]``);
    - ``spark://HOST:PORT::TABLE`` or ``…::SELECT ...``; also ``spark://local[4]``, ``sc://HOST:PORT`` (Spark Connect), and
      ``spark://`` for the active session (needs the extra ``[spark]``);
    - a DuckDB, psycopg or ADBC connection or a Spark session, with the table name or SELECT as `query`;
    - a Spark data frame;
    - an Ibis expression over a DuckDB connection (compiled, and run by us);
    - a pyarrow, pandas or polars data frame, or anything that speaks the Arrow stream protocol.

    Nothing but metadata is read. `name` is what messages and plans call the table.

    >>> print(table(pa.table({"x": [1, 2], "y": [0.5, 1.5]}), name="points"))
    <table points: x int64, y double>
    """
    if isinstance(place, Table):
        return place
    if isinstance(place, (str, Path)):
        return _from_address(str(place), query, name)
    root = type(place).__module__.split(".")[0]
    if root in ("duckdb", "_duckdb"):
        return _from_duckdb(place, query, name)
    if root in ("psycopg", "adbc_driver_manager"):
        return _from_postgres(place, query, name)
    if root == "pyspark":
        return _from_spark(place, query, name)
    if query is not None:
        raise TableError(f"A query goes with a database connection or file, and not with a {type(place).__name__}.")
    if root == "ibis":
        return _from_ibis(place, name)
    return ArrowTable(_to_arrow(place, root), name=name or "data")


def _from_address(address: str, query: str | None, name: str | None) -> Table:
    if address.startswith(POSTGRES):
        with needed_for("A PostgreSQL table"):
            from braidwater.tables.postgres import postgres_table

        server, inner = split_address(address)
        return postgres_table(server, inner or query or "", name=name)
    if address.startswith(SPARK):
        from braidwater.tables.spark import spark_table
        from braidwater.tables.spark_session import session_at

        server, inner = split_address(address)
        return spark_table(session_at(server), inner or query or "", name=name)
    scheme = re.match(r"([a-z]+)://(?:/(?=/))?", address)
    if scheme and scheme[1] not in ("duckdb", "file"):
        raise TableError(
            f"Address {address!r} begins with {scheme[1]}://; supported are file://, duckdb://, postgresql:// and spark://."
        )
    path, separator, inner = address[scheme.end() if scheme else 0 :].partition("::")
    if separator or query is not None or path.lower().endswith(DATABASE):
        return database_table(path, inner or query or "", name=name)
    return _from_files(path, name)


def split_address(address: str) -> tuple[str, str]:
    """The server and the table or SELECT of a PostgreSQL address.

    >>> split_address("postgresql://[::1]:5432/db::flights")
    ('postgresql://[::1]:5432/db', 'flights')
    """
    bracket = address.find("[")
    begin = address.find("]") if 0 <= bracket < address.find("::") else 0  # an IPv6 host has colons of its own
    at = address.find("::", begin)
    return (address, "") if at < 0 else (address[:at], address[at + 2 :])


def _from_files(path: str, name: str | None) -> Table:
    files, hive = _find(path)
    endings = {ending for file in files for ending in [_ending(file)]}
    if len(endings) != 1:
        raise TableError(
            f"{path!r} holds files of several kinds ({', '.join(sorted(endings))}); give a glob of one kind."
        )
    ending = endings.pop()
    name = name or Path(path).name
    if ending in PARQUET:
        return files_table("read_parquet", files, name=name, hive=True) if hive else ParquetTable(files, name=name)
    if ending in ARROW:
        return ArrowFileTable(files, name=name)
    if ending in CSV:
        return files_table("read_csv", files, name=name)
    if ending in JSON:
        return files_table("read_json", files, name=name)
    known = ", ".join((*PARQUET, *ARROW, *CSV, *JSON, *DATABASE))
    raise TableError(f"{files[0]!r} has the unknown ending {ending!r}; known are {known}.")


def _find(path: str) -> tuple[list[str], bool]:
    """The files at `path`, sorted, and whether folders are named ``key=value`` as Hive and Spark write them."""
    if has_magic(path):
        files = sorted(file for file in glob(path, recursive=True) if Path(file).is_file())
    elif Path(path).is_dir():
        known = (*PARQUET, *ARROW, *CSV, *JSON)
        files = sorted(str(f) for f in Path(path).rglob("*") if f.is_file() and _ending(str(f)) in known)
    else:
        files = [path] if Path(path).is_file() else []
    if not files:
        raise TableNotFoundError(f"There is no table at {path!r}: no such file, glob or directory with known files.")
    return files, any("=" in part for file in files for part in Path(file).parent.parts)


def _ending(file: str) -> str:
    lower = file.lower()
    compound = [ending for ending in CSV if lower.endswith(ending)]
    return max(compound, key=len) if compound else Path(lower).suffix


def _from_duckdb(place: Any, query: str | None, name: str | None) -> Table:
    if not hasattr(place, "cursor"):  # a relation: it knows its own query, but not its connection
        return ArrowTable(place.to_arrow_table(), name=name or "relation")
    if query is None:
        raise TableError("A connection needs the name of a table or a SELECT: table(connection, 'flights').")
    return DuckDBTable(place.cursor, query, name=name or query)


def _from_postgres(place: Any, query: str | None, name: str | None) -> Table:
    with needed_for("A PostgreSQL table"):
        from braidwater.tables.postgres import connected_table

    if query is None:
        raise TableError("A connection needs the name of a table or a SELECT: table(connection, 'flights').")
    return connected_table(place, query, name=name)


def _from_spark(place: Any, query: str | None, name: str | None) -> Table:
    from braidwater.tables.spark import SparkTable, spark_table

    if hasattr(place, "mapInArrow") and query is None:
        return SparkTable(place, name=name or "data frame")
    if not hasattr(place, "sql") or query is None:
        raise TableError("Give a data frame of Spark, or a session and the name of a table: table(spark, 'flights').")
    return spark_table(place, query, name=name)


def _from_ibis(expression: Any, name: str | None) -> Table:
    import ibis

    backend = expression._find_backend(use_default=True)
    if backend.name != "duckdb":
        raise TableError(f"Ibis expressions over {backend.name} are not supported yet; use one over DuckDB.")
    return DuckDBTable(backend.con.cursor, str(ibis.to_sql(expression, dialect="duckdb")), name=name or "expression")


def _to_arrow(place: Any, root: str) -> pa.Table:
    if isinstance(place, pa.Table):
        return place
    if isinstance(place, pa.RecordBatch):
        return pa.Table.from_batches([place])
    if root == "pandas" and hasattr(place, "columns"):
        place = place.set_axis([str(column) for column in place.columns], axis=1)
        return pa.Table.from_pandas(place, preserve_index=False)
    if root == "polars" and hasattr(place, "collect"):
        raise TableError(
            "A polars LazyFrame is read again in every pass: collect() it, or give the file that it scans."
        )
    if hasattr(place, "__arrow_c_stream__"):
        return pa.table(place)
    raise TableError(
        f"A {type(place).__name__} is no table. Give a path, an address such as flights.duckdb::flights, "
        "a DuckDB connection and a query, or a pyarrow, pandas or polars data frame."
    )
