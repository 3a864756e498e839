"""The PostgreSQL engine: chooses where a pass runs, runs it, and goes on when a session is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from threading import Lock
from typing import Any, TypeVar, get_args

import psycopg
import pyarrow as pa

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import Block
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import BlockStore
from braidwater.engines.base import TIMEOUT, Capabilities, Engine, Member, OnLoss, RunningTasks, Task, Way
from braidwater.engines.local.engine import LocalEngine
from braidwater.engines.local.processes import LocalTasks
from braidwater.engines.local.threads import map_in_order
from braidwater.engines.postgres.packing import Packed, drop, find_packed, pack, still_packed
from braidwater.engines.postgres.passes import Passes, Resident
from braidwater.engines.postgres.places import SessionPlaces
from braidwater.engines.postgres.predictions import ServerComputedTable
from braidwater.engines.postgres.push_down import PushedDown, pushed_down
from braidwater.engines.postgres.report import Report
from braidwater.engines.postgres.server import server_of
from braidwater.engines.postgres.sessions import Sessions, of_server
from braidwater.engines.postgres.site import Executor, Site, sampled
from braidwater.engines.postgres.store import ServerStore, all_there, pack_again
from braidwater.engines.postgres.stream import PackedStream
from braidwater.engines.postgres.visit import Part
from braidwater.engines.postgres.visits import VisitTasks
from braidwater.errors import OptionError, TableChangedError, TableError, WorkerLostError
from braidwater.events import WorkerLost, emit
from braidwater.options import current_options
from braidwater.tables.base import Table
from braidwater.tables.postgres import PostgresTable

Result = TypeVar("Result")
_RETRIES = 2  # times that a pass is begun again after a session was lost


class PostgresEngine(Engine):
    """The server at `address`. Passes run inside it, over blocks that it has packed once; nothing but states leaves it.

    `executor` says how: ``"sessions"`` keep their share of the blocks in memory between passes, ``"aggregate"`` is an SQL
    aggregate on the server's own parallel workers, ``"sql"`` plain SQL for what has such a form, ``"copy"`` packed blocks
    streamed to threads here, which needs no permission but SELECT. ``"auto"`` takes the cheapest that is possible
    (`ways` tells the estimates). Exact aggregates have the same result to the last bit on any number of sessions, and on
    ``"sessions"`` as on ``"aggregate"``.

    Trainings of nets that fold their rows, ``Averaging(every="epoch")``, run in the sessions; gangs run on this machine, and
    read the rows once. Tasks run in processes beside sessions. A session that is lost is opened again, and its pass
    repeated: what earlier passes found is kept. Tables that lie elsewhere are trained on here.

    `workers` is the number of sessions (by default the `workers` option). The sessions live until `close`.
    """

    name = "postgres"
    capabilities = Capabilities()

    def __init__(self, address: str, workers: int | None = None, *, executor: Executor = "auto") -> None:
        if workers is not None and workers < 1:
            raise OptionError("workers", workers, "at least 1")
        if executor not in get_args(Executor):
            raise OptionError("executor", executor, f"one of {', '.join(get_args(Executor))}")
        self.address = address
        self.executor: Executor = executor
        self._workers = workers
        self._local = LocalEngine(workers)
        # the blocks that all passes of a source are made over, whatever becomes of its table meanwhile
        self._current: tuple[BlockSource, Packed] | None = None

    @property
    def workers(self) -> int:
        return self._workers or current_options().workers

    @cached_property
    def sessions(self) -> Sessions:
        """The sessions of this engine."""
        return Sessions(self.address, self.workers)

    @cached_property
    def _site(self) -> Site:
        return Site(self.sessions, self.executor)

    @cached_property
    def _passes(self) -> Passes:
        return Passes(self._site)

    @cached_property
    def _places(self) -> SessionPlaces:
        return SessionPlaces(self.address, self.workers)

    def close(self) -> None:
        """End the sessions, and remove the blocks of queries that nobody could find again."""
        self._forget()
        self._places.close()
        self.sessions.close()

    def _forget(self) -> None:
        if self._current is not None:
            self._let_go(self._current[1])
        self._current = None

    def _let_go(self, packed: Packed) -> None:
        """Remove blocks that nobody could find again."""
        if packed.temporary:
            with suppress(psycopg.Error, TableError, WorkerLostError):
                drop(self.sessions.lead, packed)

    def segments(self) -> list[dict[str, Any]]:
        """What every session sees (of Greenplum: every segment); `braidwater.segments` says of what it tells."""
        server = server_of(self.sessions.lead)
        sessions = self.sessions.take(1 if server.has_segments else self.workers)
        return [json.loads(text) for session in sessions for (text,) in session.execute(server.facts()).fetchall()]

    def ways(self, table: Table, columns: Sequence[str], *, passes: int, exact: bool = True) -> Sequence[Way]:
        table, _ = sampled(table)
        if not isinstance(table, PostgresTable) or not self._site.has(table):
            return ()
        packed = find_packed(self.sessions.lead, table, columns)
        found = self._site.estimated(table, columns, packed, passes=passes, exact=exact)
        return sorted(found, key=lambda way: way.name != self.executor) if self.executor != "auto" else found

    def aggregate(self, source: BlockSource, aggregate: Aggregate[Any, Result]) -> Result:
        if isinstance(source.store, ServerStore):
            return self._again_when_lost(lambda: self._over_store(source, aggregate))
        if source.store is not None or not self._site.has(source.table):
            return self._local.aggregate(source, aggregate)
        return self._again_when_lost(lambda: self._pass(source, aggregate))

    def _again_when_lost(self, work: Callable[[], Result]) -> Result:
        """Do the work; again where a session was lost meanwhile, once the server answers."""
        for attempt in range(_RETRIES + 1):
            try:
                return work()
            except (psycopg.Error, WorkerLostError) as error:
                lost = of_server(error) if isinstance(error, psycopg.Error) else error
                if not isinstance(lost, WorkerLostError):
                    raise lost from error
                again = attempt < _RETRIES
                emit(WorkerLost(worker=0, reason=str(lost), restart=again))
                if not again:
                    raise lost from error
                self.sessions.come_back()
                self._look_for_blocks()
        raise AssertionError

    def _look_for_blocks(self) -> None:
        """After a crash: blocks of a table are packed again, those of a query cannot be the same for sure."""
        if self._current is None or still_packed(self.sessions.lead, self._current[1]):
            return
        (source, packed), self._current = self._current, None
        if packed.temporary and source.passes_done > 1:
            raise TableChangedError(
                f"The packed rows of the query {source.table.name!r} are gone with a crash of the server. Run again."
            )

    def _pass(self, source: BlockSource, aggregate: Aggregate[Any, Result]) -> Result:
        table = source.table
        assert isinstance(table, PostgresTable)
        current = self._held(source)
        packed = current or find_packed(self.sessions.lead, table, source.columns, fingerprint=source.fingerprint)
        kept = self._passes.holds(packed, source.encoder)
        way = self._site.way(source, table, aggregate, packed, kept=kept)
        if way == "sql":
            pushed = pushed_down(aggregate, source.encoder)
            found = self._pushed(source, aggregate, pushed) if pushed is not None else None
            if found is not None:
                return found
            way = self._site.way(source, table, aggregate, packed, kept=kept, but="sql")
        if way == "copy":
            self._stream(source, packed)
            return self._local.aggregate(source, aggregate)
        packed = packed or pack(self.sessions.lead, table, source.columns)
        if current is None:
            self._forget()
            self._current = (source, packed)
        result = self._passes.run(source, aggregate, packed, way)
        if current is None:  # later passes are made over the same blocks
            source.check_unchanged()
        return result

    def _pushed(self, source: BlockSource, aggregate: Aggregate[Any, Result], pushed: PushedDown) -> Result | None:
        assert isinstance(source.table, PostgresTable)
        found = pushed.run(source.table)
        if found is None:
            return None
        state, rows = found
        Report(source, aggregate, rows).finish([], rows)
        return aggregate.final(state)

    def _stream(self, source: BlockSource, packed: Packed | None) -> None:
        """Read the rows of a source as packed blocks by COPY from now on, where they have pages of their own."""
        if isinstance(source.table, PostgresTable) and source.table.relation() is not None:
            source.table = PackedStream(source.table, self.address, packed)

    def _held(self, source: BlockSource) -> Packed | None:
        return self._current[1] if self._current is not None and self._current[0] is source else None

    def stays(self, table: Table) -> bool:
        return self._site.stays(table)

    def place(self, source: BlockSource) -> BlockStore:
        """Leave the rows in the server: they are packed, and become blocks in the sessions, which keep what fits."""
        if source.store is not None or not self.stays(source.table):
            return self.materialise(source)
        source.store = self._again_when_lost(lambda: self._placed(source))
        return source.store

    def _placed(self, source: BlockSource) -> ServerStore:
        table, _ = sampled(source.table)
        assert isinstance(table, PostgresTable)
        assert source.encoder is not None
        lead = self.sessions.lead
        cut = source.unit_rows < source.encoder.block_schema.unit_rows
        blocks = -(-table.statistics([]).rows // source.unit_rows) if cut else 1
        packed = find_packed(lead, table, source.columns, blocks, fingerprint=source.fingerprint) or pack(
            lead, table, source.columns, blocks=blocks
        )
        try:
            found = self._passes.folded(source, Resident(), packed, "sessions")
            source.check_unchanged()
        except BaseException:
            self._let_go(packed)
            raise
        rows = [rows for one in found for rows, *_ in one.blocks]
        return ServerStore(source, packed, rows, self._ask, self._let_go)

    def _ask(self, source: BlockSource, number: int, function: Callable[[Block], Any]) -> Any:
        assert isinstance(source.store, ServerStore)
        return self._passes.ask(source, source.store.packed, number, function)

    def _over_store(self, source: BlockSource, aggregate: Aggregate[Any, Result]) -> Result:
        """A pass over blocks that stay in the server."""
        assert isinstance(source.store, ServerStore)
        pack_again(self.sessions.lead, source.store)
        return self._passes.run(source, aggregate, source.store.packed, "sessions")

    def visits(
        self, tasks: Iterable[Task | None], own: BlockStore, whole: Sequence[BlockStore] = (), *, workers: int
    ) -> RunningTasks:
        stores = [store for store in (own, *whole) if isinstance(store, ServerStore)]
        if len(stores) < 1 + len(whole):
            return super().visits(tasks, own, whole, workers=workers)
        mending = Lock()

        def parts_of(worker: int, lost: bool) -> list[Part]:
            with mending:
                if lost:
                    all_there(self.address, stores)
                return self._passes.parts(stores, worker, workers)

        return VisitTasks(tasks, self.sessions, workers, parts_of)

    def materialise(self, source: BlockSource) -> BlockStore:
        """Blocks on this machine: the rows leave the server once, packed where they are packed, else in Arrow form."""
        table = source.table
        if source.store is None and isinstance(table, PostgresTable) and self._site.has(table):
            packed = find_packed(self.sessions.lead, table, source.columns)
            if packed is not None:
                self._stream(source, packed)
        return self._local.materialise(source)

    def map_blocks(
        self, table: Table, function: Callable[[pa.RecordBatch], pa.RecordBatch], schema: pa.Schema, *, name: str
    ) -> Table:
        if not isinstance(table, PostgresTable) or not self._site.has(table) or not self._site.has_python:
            return self._local.map_blocks(table, function, schema, name=name)
        workers = self.workers
        return ServerComputedTable(
            table,
            function,
            schema,
            name=name,
            place=self._site.place,
            streams=lambda rows, f: map_in_order(rows, f, workers),
        )

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
        """A gang on this machine: the rows leave the server once, into a block cache on disk."""
        return self._local.gang(
            member, workers, source=source, max_restarts=max_restarts, on_loss=on_loss, timeout=timeout
        )

    @property
    def files_here(self) -> bool:
        return not self._site.has_tasks or self._site.is_here

    def tasks(self, tasks: Iterable[Task | None]) -> RunningTasks:
        """Tasks on processes of the server's machine, each beside a session that carries its messages; on processes of this
        machine where this role may not run functions, or with executor="copy".
        """
        if not self._site.has_tasks:
            return self._local.tasks(tasks)
        return LocalTasks(tasks, self.workers, start=self._places)
