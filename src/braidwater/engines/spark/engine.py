"""The Spark engine: Spark places the workers, which open the files themselves."""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pyarrow as pa

from braidwater.aggregates.base import Aggregate, Iteration
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import BlockStore
from braidwater.engines.base import TIMEOUT, Capabilities, Engine, Member, Nothing, OnLoss, RunningTasks, Task, Way
from braidwater.engines.local.engine import LocalEngine
from braidwater.engines.spark.cost import FEW_PASSES, Question, estimates
from braidwater.engines.spark.export import export
from braidwater.engines.spark.fold import Rows
from braidwater.engines.spark.passes import Found, run_pass
from braidwater.engines.spark.places import SparkPlaces
from braidwater.engines.spark.predictions import mapped
from braidwater.engines.spark.residents import Residents, Stay
from braidwater.engines.spark.session import Session
from braidwater.engines.spark.shards import Shard, shards_of
from braidwater.engines.spark.store import ShardStore
from braidwater.engines.spark.tasks import SparkTasks
from braidwater.errors import NullValueError, OptionError
from braidwater.events import PassFinished, PassStarted, RowsDropped, emit
from braidwater.options import current_options
from braidwater.tables.base import Table
from braidwater.tables.missing import missing_count
from braidwater.tables.parquet import ParquetTable
from braidwater.tables.spark import SparkTable, shared_folder
from braidwater.tables.spark_session import start_session

Result = TypeVar("Result")
_SHRINK_SECONDS = 10.0  # that slots have to come back in before a gang goes on with fewer workers
_COME_BACK_SECONDS = 60.0  # ... before it tries in vain


class SparkEngine(Engine):
    """The workers of a Spark session; `spark` is one, classic or Connect, or a master such as ``"local[4,4]"``.

    Rows do not pass through Spark: workers open Parquet files themselves, a run of row groups each, and keep the blocks on
    their own disk (`cache_directory`). A table that is no Parquet file which they see is written as such once, into the
    folder of the setting ``spark.braidwater.shared``. Exact aggregates have the result of the local engine, bit for bit.

    A single pass is a Spark job. An iteration, a gang and tasks take slots for as long as they last: more workers than
    there are slots is an error at once. What is lost with an executor is made again: a pass is repeated, a task begun anew,
    a gang started from its checkpoint, on fewer workers where `shrink` is true and slots are fewer.

    `workers` is how many run at a time, by default all slots. `slots` is how many there are, where the session does not say
    (a remote Connect server); `host` is this machine as the executors know it, by default ``spark.driver.host``.
    """

    name = "spark"
    capabilities = Capabilities()

    def __init__(
        self,
        spark: Any,
        workers: int | None = None,
        *,
        slots: int | None = None,
        host: str | None = None,
        shrink: bool = False,
    ) -> None:
        for name, value in (("workers", workers), ("slots", slots)):
            if value is not None and value < 1:
                raise OptionError(name, value, "at least 1")
        self.spark = start_session(spark) if isinstance(spark, str) else spark
        self.session = Session(self.spark, slots=slots, host=host)
        self.shrink = shrink
        self._workers = workers
        self._local = LocalEngine()
        self._written: weakref.WeakKeyDictionary[Table, ParquetTable] = weakref.WeakKeyDictionary()
        self._stay: Stay | None = None

    @property
    def workers(self) -> int:
        return self._workers or max(self.session.slots(), 1)

    def ways(self, table: Table, columns: Sequence[str], *, passes: int, exact: bool = True) -> Sequence[Way]:
        statistics = table.statistics([])
        if isinstance(table, SparkTable):
            written = table.exported or table.files is not None
        else:
            written = isinstance(table, ParquetTable) or table in self._written
        question = Question(
            statistics.rows, len(columns), len(table.schema), statistics.bytes, passes, self.workers,
            self.session.slots(), written,
            isinstance(table, SparkTable),
        )  # fmt: skip
        return estimates(question)

    def aggregate(self, source: BlockSource, aggregate: Aggregate[Any, Result]) -> Result:
        if source.store is not None and not isinstance(source.store, ShardStore):
            return self._local.aggregate(source, aggregate)  # its blocks are here, or in another order than the files'
        shards = self._shards(source)
        source.passes_done += 1
        report = _Report(source, aggregate)
        try:
            found = self._fold(source, shards, aggregate)
        except NullValueError as error:
            missing, all_rows = missing_count(source.table, error.column)
            raise NullValueError(error.column, missing, all_rows, error.choices) if missing else error from error
        source.check_unchanged()
        self._keep(source, shards, found, aggregate)
        report.finish(found)
        return aggregate.final(found.state)

    def _fold(self, source: BlockSource, shards: Sequence[Shard], aggregate: Aggregate[Any, Any]) -> Found:
        begins = source.store.begins() if isinstance(source.store, ShardStore) else None
        if self._stay is not None and self._stay.source is source:
            return self._stay.fold(aggregate, begins)
        return run_pass(self.session, shards, self._rows(source), aggregate, self.workers, begins)

    def _keep(self, source: BlockSource, shards: Sequence[Shard], found: Found, aggregate: Aggregate[Any, Any]) -> None:
        source.rows_dropped = sum(found.dropped.values())
        if source.store is None and source.cache != "none" and aggregate.exact and source.encoder is not None:
            source.store = ShardStore(shards, source.encoder, found.blocks, source.rows_dropped)

    def _rows(self, source: BlockSource) -> Rows:
        return Rows(source.encoder, tuple(source.columns), source.cache != "none", current_options())

    def _shards(self, source: BlockSource) -> list[Shard]:
        files = self._files(source.table, source.unit_rows)
        return shards_of(files, source.unit_rows, source.table.schema)

    def _files(self, table: Table, unit_rows: int) -> ParquetTable:
        if isinstance(table, SparkTable):
            return table.parquet
        if type(table) is ParquetTable:
            return table
        found = self._written.get(table)
        if found is None:
            found = self._written[table] = export(table, self.spark, unit_rows)
        return found

    def iterate(self, source: BlockSource, iteration: Iteration[Result]) -> Result:
        """Many passes by workers that stay; decisions are made here. A lost worker costs the pass it was in."""
        if source.passes - source.passes_done < FEW_PASSES:
            return super().iterate(source, iteration)
        with self.staying(source):
            return super().iterate(source, iteration)

    @contextmanager
    def staying(self, source: BlockSource) -> Iterator[None]:
        """Workers start with the first pass and hold their slots. One source at a time has them."""
        here = source.store is not None and not isinstance(source.store, ShardStore)
        if here or self._stay is not None:
            yield
            return

        def start() -> Residents:
            workers = self.session.await_slots(self.workers, _SHRINK_SECONDS)
            return Residents(self.session, self._shards(source), self._rows(source), workers)

        with Stay(source, start) as self._stay:
            try:
                yield
            finally:
                self._stay = None

    def materialise(self, source: BlockSource) -> BlockStore:
        """Blocks that take at most a quarter of the memory option are made here, others on the workers' disks."""
        if source.store is None and source.cache == "memory":
            return self._local.materialise(source)
        if source.store is None:
            source.keep()
            self.aggregate(source, Nothing())
        assert source.store is not None
        return source.store

    @cached_property
    def shared_directory(self) -> Path | None:
        """Of the shared folder a part of this engine's own; None while all of Spark is on this machine."""
        if self.session.is_local:
            return None
        found = Path(shared_folder(self.spark)) / f"braidwater-{uuid4().hex}"
        found.mkdir(parents=True)
        weakref.finalize(self, shutil.rmtree, str(found), True)
        return found

    def map_blocks(
        self, table: Table, function: Callable[[pa.RecordBatch], pa.RecordBatch], schema: pa.Schema, *, name: str
    ) -> Table:
        """A data frame of Spark where `table` is one; any other table is computed here, while it is read."""
        if isinstance(table, SparkTable):
            return mapped(self.session, table, function, schema, name=name, workers=self.workers)
        return self._local.map_blocks(table, function, schema, name=name)

    def gang(
        self,
        member: Callable[[Member], Result],
        workers: int,
        *,
        source: BlockSource | None = None,
        max_restarts: int = 0,
        on_loss: OnLoss = "restart",
        timeout: float = TIMEOUT,
    ) -> list[Result]:
        """A gang of Spark's: one barrier job, or with ``on_loss="continue"`` a job a member."""
        from braidwater.engines.local.gang import run_gang  # needs torch

        self._require_slots(workers)
        if source is not None and source.store is None:
            source.keep("disk")
            self.materialise(source)
        together = workers if on_loss == "restart" else 1
        with SparkPlaces(self.session, together=together, what="gang") as places:
            return run_gang(
                member,
                workers,
                source=source,
                max_restarts=max_restarts,
                on_loss=on_loss,
                timeout=timeout,
                start=places,
                host=self.session.host,
                threads=self._threads(workers),
                available=lambda size: self._again(size, places),
            )

    def _again(self, workers: int, places: SparkPlaces) -> int:
        """With how many workers a gang of so many starts again."""
        found = self.session.await_slots(workers, _SHRINK_SECONDS if self.shrink else _COME_BACK_SECONDS)
        if self.shrink and places.together > 1:
            places.together = workers = found
        return workers

    def _threads(self, workers: int) -> int | None:
        """The threads of a member: the cores of this machine shared out, or as many as Spark counts for a task."""
        return None if self.session.is_local else int(self.session.setting("spark.task.cpus") or 1)

    def tasks(self, tasks: Iterable[Task | None]) -> RunningTasks:
        workers = self.workers
        self._require_slots(workers)
        return SparkTasks(tasks, workers, SparkPlaces(self.session, what="tasks"))

    def _require_slots(self, workers: int) -> None:
        slots = self.session.slots(workers)
        if workers > slots:
            raise OptionError(
                "workers",
                workers,
                f"at most {slots}: so many tasks run at a time on {self.session.master or 'this Spark'} (executors x cores)",
            )


class _Report:
    """The events of a pass."""

    def __init__(self, source: BlockSource, aggregate: Aggregate[Any, Any]) -> None:
        self._source, self._what, self._number = source, aggregate.what, source.passes_done
        self._first = source.store is None
        origin = "table" if source.cache == "none" else "table+write" if self._first else source.cache
        rows = source.table.statistics([]).rows if source.store is None else source.store.rows
        emit(PassStarted(number=self._number, what=self._what, rows=rows, origin=origin))
        self._begun = time.perf_counter()

    def finish(self, found: Found) -> None:
        if self._source.rows_dropped and self._first:
            emit(RowsDropped(rows=self._source.rows_dropped, reason="NULLs, by the policy 'drop'"))
        seconds = time.perf_counter() - self._begun
        emit(PassFinished(number=self._number, what=self._what, rows=found.rows, seconds=seconds))
