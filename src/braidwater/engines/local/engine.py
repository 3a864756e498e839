"""The local engine: every core of this machine, over any table that can be streamed to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import BlockStore
from braidwater.engines.base import TIMEOUT, Capabilities, Engine, Member, OnLoss, RunningTasks, Task
from braidwater.engines.local.feed import Piece, StoreFeed, TableFeed, blamed
from braidwater.engines.local.fold import OrderedFold
from braidwater.engines.local.memory import memory_used
from braidwater.engines.local.processes import LocalTasks
from braidwater.engines.local.threads import map_in_order, run_threads
from braidwater.errors import OptionError
from braidwater.events import BlockDone, PassFinished, PassStarted, RowsDropped, emit
from braidwater.options import current_options
from braidwater.tables.base import Table
from braidwater.tables.computed import ComputedTable

Result = TypeVar("Result")


class LocalEngine(Engine):
    """This machine. Threads fold blocks (the kernels let go of the interpreter's lock), processes run gangs and tasks.

    `workers` is the number of either; by default the `workers` option. Partial states of an exact aggregate are merged in
    the order of the blocks, so results do not depend on the number of workers, not even by rounding.
    """

    name = "local"
    capabilities = Capabilities()

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise OptionError("workers", workers, "at least 1")
        self._workers = workers

    @property
    def workers(self) -> int:
        return self._workers or current_options().workers

    def aggregate(self, source: BlockSource, aggregate: Aggregate[Any, Result]) -> Result:
        if (
            not aggregate.exact
            and source.store is None
            and source.encoder is not None
            and self._shares(source) == 1 < self.workers
        ):
            self.materialise(source)  # one stream can be shared out only once its blocks have been cut
        source.passes_done += 1
        number = source.passes_done
        origin = self._origin(source)
        rows = source.store.rows if source.store is not None else source.table.statistics([]).rows
        emit(PassStarted(number=number, what=aggregate.what, rows=rows, origin=origin))
        started, cpu = time.perf_counter(), time.process_time()
        if source.store is not None:
            state, seen, size = self._over_store(source.store, aggregate)
        else:
            state, seen, size = self._over_table(source, aggregate)
        emit(
            PassFinished(
                number=number,
                what=aggregate.what,
                rows=seen,
                seconds=time.perf_counter() - started,
                cpu_seconds=time.process_time() - cpu,
                bytes_read=size,
            )
        )
        emit(memory_used())
        return aggregate.final(state)

    def map_blocks(
        self, table: Table, function: Callable[[pa.RecordBatch], pa.RecordBatch], schema: pa.Schema, *, name: str
    ) -> Table:
        workers = self.workers
        return ComputedTable(
            table,
            function,
            schema,
            name=name,
            streams=lambda batches, f: map_in_order(batches, f, workers),
            reads=getattr(function, "reads", None),
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
        from braidwater.engines.local.gang import run_gang  # needs torch

        if source is not None and source.store is None:
            source.keep("disk")  # the members are processes of their own
            self.materialise(source)
        return run_gang(member, workers, source=source, max_restarts=max_restarts, on_loss=on_loss, timeout=timeout)

    def tasks(self, tasks: Iterable[Task | None]) -> RunningTasks:
        return LocalTasks(tasks, self.workers)

    def _origin(self, source: BlockSource) -> str:
        if source.store is not None:
            return source.store.kind
        return "table" if source.cache == "none" else "table+write"

    def _over_store(self, store: BlockStore, aggregate: Aggregate[Any, Any]) -> tuple[Any, int, int]:
        workers = min(self.workers, max(len(store.units), 1))
        if aggregate.exact:
            return self._fold_exact(StoreFeed(store), aggregate, workers)
        workers = min(workers, aggregate.workers or workers)
        return self._fold_shares([StoreFeed(store, share=(n, workers)) for n in range(workers)], aggregate)

    def _over_table(self, source: BlockSource, aggregate: Aggregate[Any, Any]) -> tuple[Any, int, int]:
        shares = None if aggregate.exact else self._shares(source)
        with TableFeed(source, shares) as feed:  # leaving it by an error leaves no file behind
            if shares is None:
                outcome = self._fold_exact(feed, aggregate, self.workers)
            else:
                outcome = self._fold_shares([feed] * shares, aggregate)
            source.check_unchanged()
            feed.finish()
        if source.rows_dropped:
            emit(RowsDropped(rows=source.rows_dropped, reason="NULLs, by the policy 'drop'"))
        return outcome

    def _shares(self, source: BlockSource) -> int:
        """How many workers can read the table at a time, each a run of its partitions."""
        return min(self.workers, len(source.partitions()))

    def _fold_exact(
        self, feed: TableFeed | StoreFeed, aggregate: Aggregate[Any, Any], workers: int
    ) -> tuple[Any, int, int]:
        """Every block into a state of its own, merged in the order of the blocks."""
        fold = OrderedFold(aggregate)

        def work(worker: int) -> Iterator[Piece]:
            for piece in feed.pieces(worker):
                if piece.block is not None:
                    with blamed(piece):
                        piece.state = aggregate.transition(aggregate.initialize(), piece.block)
                yield piece.done()

        rows = size = 0
        for piece in run_threads(work, workers):
            fold.add(piece)
            _announce(piece)
            rows += piece.rows
            size += piece.bytes
        return fold.state, rows, size

    def _fold_shares(
        self, feeds: Sequence[TableFeed | StoreFeed], aggregate: Aggregate[Any, Any]
    ) -> tuple[Any, int, int]:
        """Each worker folds the blocks of its feed into one state; the states are merged in order of worker."""
        states: dict[int, Any] = {}

        def work(worker: int) -> Iterator[Piece]:
            state = aggregate.initialize()
            for piece in feeds[worker].pieces(worker):
                if piece.block is not None:
                    with blamed(piece):
                        state = aggregate.transition(state, piece.block)
                yield piece.done()
            states[worker] = state

        rows = size = 0
        for piece in run_threads(work, len(feeds)):
            _announce(piece)
            rows += piece.rows
            size += piece.bytes
        merged = states[0]
        for worker in range(1, len(feeds)):
            merged = aggregate.merge(merged, states[worker])
        return merged, rows, size


def _announce(piece: Piece) -> None:
    if piece.rows:
        emit(
            BlockDone(worker=piece.worker, rows=piece.rows, start=piece.start, seconds=piece.seconds, bytes=piece.bytes)
        )
