"""The events of a pass in the server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.source import BlockSource
from braidwater.engines.postgres.session import Folded
from braidwater.events import BlockDone, PassFinished, PassStarted, RowsDropped, emit


class Report:
    """Announces a pass when it is made, and its blocks and its end when they are known."""

    def __init__(self, source: BlockSource, aggregate: Aggregate[Any, Any], rows: int) -> None:
        source.passes_done += 1
        self._source, self._what, self._number = source, aggregate.what, source.passes_done
        self._begun = time.perf_counter()
        kept = source.cache != "none"
        origin = ("memory" if self._number > 1 else "table+write") if kept else "table"
        emit(PassStarted(number=self._number, what=self._what, rows=rows, origin=origin))

    def finish(self, found: Sequence[Folded], rows: int) -> None:
        """Tell of what the sessions `found`, and of `rows` in all."""
        size = 0
        for worker, one in enumerate(found):
            for count, held, start, seconds in one.blocks:
                size += held
                if count:
                    emit(BlockDone(worker=worker, rows=count, start=start, seconds=seconds, bytes=held))
        if self._source.rows_dropped and self._number == 1:
            emit(RowsDropped(rows=self._source.rows_dropped, reason="NULLs, by the policy 'drop'"))
        seconds, cpu = time.perf_counter() - self._begun, sum(one.cpu_seconds for one in found)
        emit(
            PassFinished(
                number=self._number, what=self._what, rows=rows, seconds=seconds, cpu_seconds=cpu, bytes_read=size
            )
        )
