"""Tables of Spark: a data frame, a table or a SELECT of a session."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from sqlglot import exp

from braidwater.errors import TableError, TableNotFoundError
from braidwater.options import current_options
from braidwater.tables.base import Partition, Table, TableStatistics
from braidwater.tables.duckdb import parse_query
from braidwater.tables.parquet import ParquetTable
from braidwater.tables.spark_session import short
from braidwater.tables.spark_types import arrow_schema

SHARED = "spark.braidwater.shared"  # the setting of a session that names a folder which all its machines see
_GROUP_ROWS = 131_072
_QUANTILES = {"quantile_cont": "percentile", "quantile": "percentile", "approx_quantile": "percentile_approx"}


class SparkTable(Table):
    """A data frame of a Spark session, read as Parquet files.

    Where it is no more than columns of Parquet files that this machine sees, these are read, without a byte through Spark. Any
    other frame is computed once, when its rows are first read: every task writes the rows of its partition as a Parquet file
    (Arrow as Spark hands it over, no Python object a value) into the shared folder, in the order of the partitions, and the
    files are removed when the table goes. That folder is the setting ``spark.braidwater.shared``; without it, on a session
    that runs on this machine, one in the cache directory.
    """

    reader = "parquet"

    def __init__(self, frame: Any, *, name: str) -> None:
        self.name = name
        self.frame = frame
        self._schema = arrow_schema(frame.schema, name)

    @property
    def spark(self) -> Any:
        """The session."""
        return self.frame.sparkSession

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @cached_property
    def files(self) -> ParquetTable | None:
        """The files whose columns the frame is, all of them or some, where it is no more than that."""
        found = _plain_files(self.frame)
        if not found:
            return None
        try:
            files = ParquetTable(found, name=self.name)
        except TableError:  # their columns differ, or a file is no Parquet: Spark knows how to read them as one
            return None
        names = self._schema.names
        return files if len(set(names)) == len(names) and set(names) <= set(files.schema.names) else None

    @cached_property
    def parquet(self) -> ParquetTable:
        """The rows as Parquet files; written first where they are not."""
        return self.files or self._export()

    @property
    def exported(self) -> bool:
        """Whether the frame has been computed and written."""
        return "parquet" in self.__dict__ and self.files is None

    def _export(self) -> ParquetTable:
        folder = Path(shared_folder(self.spark)) / f"braidwater-{uuid4().hex}"
        folder.mkdir(parents=True)
        unfinished = weakref.finalize(self, shutil.rmtree, str(folder), True)
        write = WritePart(str(folder), self._schema)
        try:
            counted = self.frame.mapInArrow(write, "file string, rows long").toArrow()
        except Exception as error:
            raise TableError(f"Table {self.name!r}: Spark could not compute its rows: {short(error)}") from error
        files = sorted({file for file in counted.column("file").to_pylist() if file})
        if not files:
            files = [str(folder / "empty.parquet")]
            pq.write_table(self._schema.empty_table(), files[0])
        missing = [file for file in files if not os.path.exists(file)]
        if missing:
            raise TableError(
                f"Spark wrote {missing[0]!r}, and this machine does not see it. Set {SHARED} to a folder that the executors "
                "and this machine share."
            )
        found = ParquetTable(files, name=self.name)
        unfinished.detach()
        weakref.finalize(found, shutil.rmtree, str(folder), True)  # its files are there as long as it is
        return found

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        columns = self.column_names if columns is None else list(columns)
        self.require(columns)
        if "parquet" in self.__dict__ or self.files is not None:
            return self.parquet.statistics(columns)
        return TableStatistics(self._rows, self._rows * 8 * len(self._schema))

    @cached_property
    def _rows(self) -> int:
        return int(self._asked(self.frame.count, "count()"))

    def partitions(self, rows: int) -> list[Partition]:
        return self.parquet.partitions(rows)

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        self.require(names)
        wanted = pa.schema([self._schema.field(name) for name in names])
        for batch in self.parquet.read(names, partition=partition, batch_rows=batch_rows):
            yield batch if batch.schema.equals(wanted) else batch.cast(wanted)

    def head(self, rows: int = 5) -> pa.Table:
        if self.files is not None:
            return super().head(rows)  # no job of Spark's for three rows
        found: pa.Table = self._asked(lambda: self.frame.limit(rows).toArrow(), f"limit({rows})")
        return found.cast(self._schema)

    def fingerprint(self) -> str | None:
        return self.files.fingerprint() if self.files is not None else None

    def select(self, query: exp.Select) -> pa.Table:
        view = f"braidwater_{uuid4().hex}"
        whole = exp.select("*").from_(exp.table_(view))
        statement = in_spark(query.copy()).with_("this", as_=whole).sql("spark")
        self.frame.createOrReplaceTempView(view)
        try:
            found: pa.Table = self._asked(lambda: self.spark.sql(statement).toArrow(), statement)
        finally:
            self.spark.catalog.dropTempView(view)
        return found

    def _asked(self, ask: Callable[[], Any], statement: str) -> Any:
        try:
            return ask()
        except Exception as error:
            raise TableError(f"Table {self.name!r}: {short(error)}\nThe statement was: {statement}") from error

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a table of Spark stays with its session")


class WritePart:
    """Called by Spark with the rows of a partition: writes them as a Parquet file in `folder`."""

    def __init__(self, folder: str, schema: pa.Schema) -> None:
        self._folder = folder
        self._schema = schema

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        number = 0 if context is None else context.partitionId()
        path = os.path.join(self._folder, f"part-{number:06d}.parquet")
        rows = 0
        writer: pq.ParquetWriter | None = None
        temporary = f"{path}.{uuid4().hex[:8]}.tmp"  # a second attempt of the task takes the place of the first
        for part in gathered(batches, _GROUP_ROWS):
            writer = writer or parquet_writer(temporary, self._schema)
            writer.write_table(part.cast(self._schema), row_group_size=_GROUP_ROWS)
            rows += part.num_rows
        if writer is not None:
            writer.close()
            os.replace(temporary, path)
            yield pa.record_batch({"file": [path], "rows": pa.array([rows], pa.int64())})


def parquet_writer(path: str, schema: pa.Schema) -> pq.ParquetWriter:
    """Writes rows for workers to read soon. Floats get no dictionary: of values that differ it takes eight times the CPU to find
    out that there is none to make (18 against 2.2 ns a byte of normal numbers), and the file is read at a third of the speed."""
    repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
    return pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=repeating)


def gathered(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Batches put together until they have `rows` rows; Spark hands over 10,000 at a time."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            held.append(batch)
        if sum(one.num_rows for one in held) >= rows:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def spark_table(spark: Any, query: str, *, name: str | None = None) -> SparkTable:
    """The table or SELECT `query` of a session."""
    if not query.strip():
        raise TableError("A Spark session needs the name of a table or a SELECT: table(spark, 'flights').")
    statement = parse_query(query, dialect="spark").sql("spark")
    try:
        frame = spark.sql(statement)
        _ = frame.schema
    except Exception as error:
        kind = TableNotFoundError if "TABLE_OR_VIEW_NOT_FOUND" in str(error) else TableError
        raise kind(f"Table {name or query!r}: {short(error)}\nThe statement was: {statement}") from error
    return SparkTable(frame, name=name or query)


def shared_folder(spark: Any) -> str:
    """The folder that this machine and the executors share."""
    found: str | None = spark.conf.get(SHARED, None)
    if found is None:
        if not (spark.conf.get("spark.master", None) or "").startswith("local"):
            raise TableError(
                f"The rows have to be written where this machine and the executors see them. Set {SHARED} to such a folder "
                "(spark.conf.set), or export the table to Parquet files that both see and use those."
            )
        parent = current_options().cache_directory / "spark"
        parent.mkdir(parents=True, exist_ok=True)
        found = tempfile.mkdtemp(dir=parent)
        spark.conf.set(SHARED, found)
        weakref.finalize(spark, shutil.rmtree, found, True)
    return found


def _plain_files(frame: Any) -> list[str]:
    """The Parquet files that a frame reads with no step in between but a choice of columns; none where there is another, or
    nobody can say."""
    plan = getattr(frame, "_jdf", None)
    if plan is None:  # Spark Connect does not show its plans
        return []
    plan = plan.queryExecution().optimizedPlan()
    if _kind(plan) == "Project":
        chosen = plan.projectList()
        if any(_kind(chosen.apply(number)) != "AttributeReference" for number in range(chosen.size())):
            return []
        plan = plan.child()
    if _kind(plan) != "LogicalRelation":
        return []
    relation = plan.relation()
    if _kind(relation) != "HadoopFsRelation" or relation.partitionSchema().length():
        return []
    if _kind(relation.fileFormat()) != "ParquetFileFormat":
        return []
    parts = [urlparse(file) for file in frame.inputFiles()]
    files = sorted(unquote(part.path) for part in parts)
    local = all(part.scheme in ("", "file") for part in parts) and all(os.path.exists(file) for file in files)
    return files if local else []


def _kind(node: Any) -> str:
    name: str = node.getClass().getSimpleName()
    return name


def in_spark(query: exp.Select) -> exp.Select:
    """What other engines call by a function of its own, in words that Spark has."""

    def turned(node: exp.Expression) -> exp.Expression:
        name = node.name.lower() if isinstance(node, exp.Anonymous) else ""
        if name in ("isfinite", "isinf") or isinstance(node, exp.IsInf):
            value = exp.cast((node.expressions[0] if name else node.this).copy(), "DOUBLE")
            infinite = [exp.cast(exp.Literal.string(text), "DOUBLE") for text in ("Infinity", "-Infinity", "NaN")]
            if name == "isfinite":
                return exp.Not(this=exp.In(this=value, expressions=infinite))
            return exp.In(this=value, expressions=infinite[:2])
        if name in _QUANTILES:
            node.set("this", _QUANTILES[name])  # the node itself: what is inside it is looked at too
        return node

    return query.transform(turned)
