"""The PostgreSQL engine: chooses where a pass runs, runs it, and goes on when a session is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import psycopg
import pyarrow as pa
from psycopg import sql

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import BlockEncoder
from braidwater.blocks.source import BlockSource
from braidwater.engines.base import TIMEOUT, Capabilities, Engine, Member, OnLoss, RunningTasks, Task, Way
from braidwater.engines.local.engine import LocalEngine
from braidwater.engines.local.threads import map_in_order
from braidwater.engines.postgres.cost import Question, estimates
from braidwater.engines.postgres.packing import SCHEMA, Packed, drop, find_packed, pack
from braidwater.engines.postgres.predictions import ServerComputedTable
from braidwater.engines.postgres.push_down import PushedDown, pushed_down
from braidwater.engines.postgres.session import Folded, Rows, Share, facts, fold
from braidwater.engines.postgres.sessions import Sessions, execute, of_server, opened, permissions, place_of, request_of
from braidwater.engines.postgres.stream import PackedStream
from braidwater.engines.postgres.tree import TreeFold, merged
from braidwater.errors import NullValueError, OptionError, TableError, UnsupportedError, WorkerLostError
from braidwater.events import BlockDone, PassFinished, PassStarted, RowsDropped, WorkerLost, emit
from braidwater.options import current_options
from braidwater.tables.base import Table
from braidwater.tables.missing import missing_count
from braidwater.tables.postgres import PostgresTable

Result = TypeVar("Result")
Executor = Literal["auto", "sql", "aggregate", "sessions", "copy"]
_RETRIES = 2  # times that a pass is begun again after a session was lost


class PostgresEngine(Engine):
    """The server at `address`. Passes run inside it, over blocks that it has packed once; nothing but states leaves it.

    `executor` says how: ``"sessions"`` keep their share of the blocks in memory between passes, ``"aggregate"`` is an SQL
    aggregate on the server's own parallel workers, ``"sql"`` plain SQL for what has such a form, ``"copy"`` packed blocks
    streamed to threads here, which needs no permission but SELECT. ``"auto"`` takes the cheapest that is possible
    (`ways` tells the estimates). Exact aggregates have the same result to the last bit on any number of sessions, and on
    ``"sessions"`` as on ``"aggregate"``.

    Tables that lie elsewhere, gangs and tasks run on this machine. A session that is lost is opened again, and its pass
    repeated: what earlier passes found is kept.

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
        self._of_query: tuple[BlockSource, Packed] | None = (
            None  # blocks that serve one fit, as nobody can tell if they are stale
        )
        self._kept = ("", "")  # whose blocks the sessions hold: version and encoder

    @property
    def workers(self) -> int:
        return self._workers or current_options().workers

    @cached_property
    def sessions(self) -> Sessions:
        """The sessions of this engine."""
        return Sessions(self.address, self.workers)

    def close(self) -> None:
        """End the sessions, and remove the blocks of queries that nobody could find again."""
        self._forget_query()
        self.sessions.close()

    def _forget_query(self) -> None:
        if self._of_query is not None:
            with suppress(psycopg.Error, TableError):
                drop(self.sessions.lead, self._of_query[1])
        self._of_query = None

    def __enter__(self) -> PostgresEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def segments(self) -> list[dict[str, Any]]:
        """What every session sees: host, process, cores, memory (bytes), gpus, versions."""
        found = dict(self.sessions.call([(facts, ())] * self.workers))
        return [json.loads(found[number]) for number in sorted(found)]

    def ways(self, table: Table, columns: Sequence[str], *, passes: int, exact: bool = True) -> Sequence[Way]:
        if not isinstance(table, PostgresTable) or not self._lies_here(table):
            return ()
        packed = find_packed(self.sessions.lead, table, columns)
        found = self._estimated(table, columns, packed, passes=passes, exact=exact)
        return sorted(found, key=lambda way: way.name != self.executor) if self.executor != "auto" else found

    def aggregate(self, source: BlockSource, aggregate: Aggregate[Any, Result]) -> Result:
        if source.store is not None or not self._lies_here(source.table):
            return self._local.aggregate(source, aggregate)
        for attempt in range(_RETRIES + 1):
            try:
                return self._pass(source, aggregate)
            except (psycopg.Error, WorkerLostError) as error:
                lost = of_server(error) if isinstance(error, psycopg.Error) else error
                if not isinstance(lost, WorkerLostError):
                    raise lost from error
                again = attempt < _RETRIES
                emit(WorkerLost(worker=0, reason=str(lost), restart=again))
                if not again:
                    raise lost from error
                self.sessions.come_back()
        raise AssertionError

    def _pass(self, source: BlockSource, aggregate: Aggregate[Any, Result]) -> Result:
        table = source.table
        assert isinstance(table, PostgresTable)
        packed = self._held(source) or find_packed(self.sessions.lead, table, source.columns)
        way = self._way(source, table, aggregate, packed)
        if way == "sql":
            pushed = pushed_down(aggregate, source.encoder)
            found = self._pushed(source, aggregate, pushed) if pushed is not None else None
            if found is not None:
                return found
            way = self._way(source, table, aggregate, packed, but="sql")
        if way == "copy":
            if table.relation() is not None:
                source.table = PackedStream(table, self.address, packed)
            return self._local.aggregate(source, aggregate)
        return self._in_server(source, table, aggregate, way, packed)

    def _way(
        self,
        source: BlockSource,
        table: PostgresTable,
        aggregate: Aggregate[Any, Any],
        packed: Packed | None,
        but: str = "",
    ) -> str:
        """The cheapest way of a pass, or the one that was asked for."""
        pushed = pushed_down(aggregate, source.encoder)
        found = self._estimated(
            table,
            source.columns,
            packed,
            passes=max(source.passes - source.passes_done, 1),
            exact=aggregate.exact,
            figures=0 if pushed is None else pushed.size,
            keeps=source.cache != "none" and source.expected_bytes <= current_options().memory // 4,
            kept=packed is not None and self._kept == (packed.version, _key(source.encoder)),
        )
        if self.executor in ("auto", but):
            return next(one.name for one in found if one.name != but)
        chosen = next(one for one in found if one.name == self.executor)
        if chosen.refused:
            others = ", ".join(one.name for one in found if not one.refused)
            raise UnsupportedError(f"executor={self.executor!r} is not possible: {chosen.refused}. Possible: {others}.")
        return chosen.name

    def _estimated(
        self,
        table: PostgresTable,
        columns: Sequence[str],
        packed: Packed | None,
        *,
        passes: int,
        exact: bool,
        figures: int = 0,
        keeps: bool = True,
        kept: bool = False,
    ) -> list[Way]:
        rows = table.statistics([]).rows
        python, why, may_pack = self._allowed
        return estimates(
            Question(
                rows=rows,
                bytes=packed.bytes if packed else 8 * rows * len(columns),
                passes=passes,
                sessions=self.workers,
                warm=self.sessions.warm,
                exact=exact,
                packed=packed is not None,
                may_pack=may_pack,
                python=python,
                why_no_python=why,
                figures=figures,
                keeps=keeps,
                kept=kept,
                parallel=min(self.workers - 1, self._parallel),
            )
        )

    @cached_property
    def _allowed(self) -> tuple[bool, str, bool]:
        """Whether functions may be called, why not, and whether packed blocks may be kept."""
        allowed = permissions(self.sessions.lead)
        if not allowed.installed:
            return False, "braidwater is not installed in this database (braidwater postgres install)", allowed.keep
        if not allowed.call:
            return False, "this role may not run braidwater's functions (GRANT EXECUTE)", allowed.keep
        return True, "", allowed.keep

    @cached_property
    def _parallel(self) -> int:
        row = self.sessions.lead.execute("SELECT current_setting('max_parallel_workers')::int").fetchone()
        return 0 if row is None else int(row[0])

    def _pushed(self, source: BlockSource, aggregate: Aggregate[Any, Result], pushed: PushedDown) -> Result | None:
        assert isinstance(source.table, PostgresTable)
        begun = time.perf_counter()
        found = pushed.run(source.table)
        if found is None:
            return None
        state, rows = found
        report = _Report(source, aggregate, rows)
        report.finish([], rows, begun)
        return aggregate.final(state)

    def _in_server(
        self,
        source: BlockSource,
        table: PostgresTable,
        aggregate: Aggregate[Any, Result],
        way: str,
        packed: Packed | None,
    ) -> Result:
        begun = time.perf_counter()
        packed = packed or self._pack(source, table)
        rows = Rows(packed.columns, source.encoder, _key(source.encoder))
        report = _Report(source, aggregate, packed.rows)
        try:
            run = self._by_query if way == "aggregate" else self._by_sessions
            found = run(packed, rows, aggregate)
        except NullValueError as error:
            missing, all_rows = missing_count(table, error.column)
            raise NullValueError(error.column, missing, all_rows, error.choices) if missing else error from error
        source.rows_dropped = sum(one.dropped for one in found)
        report.finish(found, sum(rows for one in found for rows, *_ in one.blocks), begun)
        source.check_unchanged()
        if not aggregate.exact:
            return aggregate.final(merged(aggregate, [one.state for one in found]))
        tree = TreeFold(aggregate)
        for one in found:
            tree.take(one.nodes)
        return aggregate.final(tree.state())

    def _pack(self, source: BlockSource, table: PostgresTable) -> Packed:
        """Pack a table; the blocks of a query serve all passes of one source."""
        packed = pack(self.sessions.lead, table, source.columns)
        if packed.temporary:
            self._forget_query()
            self._of_query = (source, packed)
        return packed

    def _held(self, source: BlockSource) -> Packed | None:
        return self._of_query[1] if self._of_query is not None and self._of_query[0] is source else None

    def _by_sessions(self, packed: Packed, rows: Rows, aggregate: Aggregate[Any, Any]) -> list[Folded]:
        shares = _shares(packed, self.workers, current_options().memory // 4)
        requests = [(fold, (share, rows, aggregate)) for share in shares]
        found = dict(self.sessions.call(requests))
        held = sum(size for one in found.values() for _, size, *_ in one.blocks)
        self._kept = (packed.version, rows.key) if held <= shares[0].keep * len(shares) else ("", "")
        return [found[number] for number in sorted(found)]

    def _by_query(self, packed: Packed, rows: Rows, aggregate: Aggregate[Any, Any]) -> list[Folded]:
        lead = self.sessions.lead
        with lead.transaction():
            for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
                lead.execute("SELECT set_config(%s, '0', true)", [name])
            lead.execute("SELECT set_config('max_parallel_workers_per_gather', %s, true)", [str(self.workers - 1)])
            request = request_of((rows, aggregate))
            row = execute(
                lead, _AGGREGATE.format(schema=sql.Identifier(SCHEMA), table=packed.identifier), [request], binary=True
            ).fetchone()
        assert row is not None
        return [opened(row[0], "a worker")]

    def _lies_here(self, table: Table) -> bool:
        return isinstance(table, PostgresTable) and table.place == self._place

    @cached_property
    def _place(self) -> str:
        return place_of(self.sessions.lead)

    def map_blocks(
        self, table: Table, function: Callable[[pa.RecordBatch], pa.RecordBatch], schema: pa.Schema, *, name: str
    ) -> Table:
        if not isinstance(table, PostgresTable) or not self._lies_here(table) or not self._allowed[0]:
            return self._local.map_blocks(table, function, schema, name=name)
        workers = self.workers
        return ServerComputedTable(
            table,
            function,
            schema,
            name=name,
            place=self._place,
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
        """A gang on this machine: the rows leave the server once, as Arrow, into a block cache on disk."""
        return self._local.gang(
            member, workers, source=source, max_restarts=max_restarts, on_loss=on_loss, timeout=timeout
        )

    def tasks(self, tasks: Iterable[Task | None]) -> RunningTasks:
        """Tasks on processes of this machine: one that dies in a session would take the whole server down with it."""
        return self._local.tasks(tasks)


class _Report:
    """The events of a pass in the server."""

    def __init__(self, source: BlockSource, aggregate: Aggregate[Any, Any], rows: int) -> None:
        source.passes_done += 1
        self._source, self._what, self._number = source, aggregate.what, source.passes_done
        kept = source.cache != "none"
        origin = ("memory" if self._number > 1 else "table+write") if kept else "table"
        emit(PassStarted(number=self._number, what=self._what, rows=rows, origin=origin))

    def finish(self, found: Sequence[Folded], rows: int, begun: float) -> None:
        size = 0
        for worker, one in enumerate(found):
            for count, held, start, seconds in one.blocks:
                size += held
                if count:
                    emit(BlockDone(worker=worker, rows=count, start=start, seconds=seconds, bytes=held))
        if self._source.rows_dropped and self._number == 1:
            emit(RowsDropped(rows=self._source.rows_dropped, reason="NULLs, by the policy 'drop'"))
        cpu = sum(one.cpu_seconds for one in found)
        emit(
            PassFinished(
                number=self._number, what=self._what, rows=rows, seconds=time.perf_counter() - begun, cpu_seconds=cpu,
                bytes_read=size,
            )
        )  # fmt: skip


def _shares(packed: Packed, workers: int, memory: int) -> list[Share]:
    """Runs of blocks, as many as there are workers and blocks for them."""
    count = len(packed.blocks)
    workers = max(min(workers, count), 1)
    starts = [0]
    for _, rows in packed.blocks:
        starts.append(starts[-1] + rows)
    found = []
    for worker in range(workers):
        begin, end = count * worker // workers, count * (worker + 1) // workers
        first, last = (packed.blocks[begin][0], packed.blocks[end - 1][0]) if count else (0, -1)
        found.append(Share(packed.qualified, packed.version, first, last, starts[begin], memory // workers))
    return found


def _key(encoder: BlockEncoder | None) -> str:
    return "" if encoder is None else f"{encoder.key} {encoder.block_schema.to_json()}"


_AGGREGATE = sql.SQL("SELECT {schema}.aggregate(number, rows, data, %b) FROM {table}")
