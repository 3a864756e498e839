"""What the worker threads of a pass draw their blocks from: the table (first pass), or the kept blocks (later ones)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from types import TracebackType
from typing import Any

import pyarrow as pa

from braidwater.blocks.base import Block, RawBlock, allocate
from braidwater.blocks.disk import DiskWriter
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import BlockStore, Key
from braidwater.errors import BraidwaterError, WorkerError

ABSENT = object()  # a piece that carries no state; None is a state that an aggregate may have


@dataclass
class Piece:
    """A block on its way through a worker. `last` ends its partition (and may come without a block)."""

    key: Key
    worker: int
    block: Block | RawBlock | None
    last: bool = False
    state: Any = ABSENT
    rows: int = 0
    bytes: int = 0
    start: float = field(default_factory=time.time)
    seconds: float = 0.0

    def done(self) -> Piece:
        """Measured, and without the block, whose memory is the worker's."""
        if self.block is not None:
            self.rows, self.bytes = self.block.rows, self.block.bytes
        self.seconds = time.time() - self.start
        self.block = None
        return self


class StoreFeed:
    """The kept blocks: every worker takes the next one that nobody has, or those of its `share` (its number, of how many)."""

    def __init__(self, store: BlockStore, share: tuple[int, int] | None = None) -> None:
        self._store = store
        count = len(store.units)
        begin, end = (0, count) if share is None else (count * share[0] // share[1], count * (share[0] + 1) // share[1])
        self._next = begin
        self._end = end
        self._lock = Lock()

    def pieces(self, worker: int) -> Iterator[Piece]:
        begun = time.time()
        for block in self._blocks():
            yield Piece((0, block.number), worker, block, start=begun)
            begun = time.time()

    def _blocks(self) -> Iterator[Block]:
        """The blocks of one worker. What has to be fetched is fetched a block ahead by a thread, or the disk would wait."""
        size = self._store.buffer_bytes
        if not size:
            yield from map(self._store.read, self._numbers())
            return
        buffers = allocate(size), allocate(size)
        with ThreadPoolExecutor(1, "braidwater-read") as reader:
            ahead: Future[Block] | None = None
            for count, number in enumerate(self._numbers()):
                last, ahead = ahead, reader.submit(self._store.read, number, buffers[count % 2])
                if last is not None:
                    yield last.result()
            if ahead is not None:
                yield ahead.result()

    def _numbers(self) -> Iterator[int]:
        while True:
            with self._lock:
                number = self._next
                self._next += 1
            if number >= self._end:
                return
            yield number


class TableFeed:
    """The table itself: read, encoded, kept where it will be read again.

    Partitions are taken by one worker each; a table that is one stream is shared, every worker pulling the rows of a block
    at a time and encoding them on its own. With `shares` worker i reads the i-th of so many runs of partitions, in order.
    """

    def __init__(self, source: BlockSource, shares: int | None = None) -> None:
        self._source = source
        self._partitions = source.partitions()
        self._shares = shares
        self._writer = source.writer() if source.encoder is not None else None
        self._lock = Lock()
        self._next_partition = 0
        self._shared: Iterator[tuple[Key, list[pa.RecordBatch]]] | None = None
        self._taken = 0
        self._kept = 0
        if len(self._partitions) == 1 and shares is None:
            self._shared = self._stream(0)

    def pieces(self, worker: int) -> Iterator[Piece]:
        if self._shared is not None:
            yield from self._from_shared(worker)
            return
        for number in self._numbers(worker):
            count = 0
            for key, batches in self._stream(number):
                yield self._piece(worker, key, batches)
                count += 1
            yield Piece((number, count), worker, None, last=True)

    def _numbers(self, worker: int) -> Iterator[int]:
        """The partitions of a worker: those of its share, or the next one that nobody has."""
        count = len(self._partitions)
        if self._shares is not None:
            yield from range(count * worker // self._shares, count * (worker + 1) // self._shares)
            return
        while True:
            with self._lock:
                number = self._next_partition
                self._next_partition += 1
            if number >= count:
                return
            yield number

    def _from_shared(self, worker: int) -> Iterator[Piece]:
        assert self._shared is not None
        while True:
            with self._lock:
                found = next(self._shared, None)
            if found is None:
                return
            yield self._piece(worker, *found)

    def _stream(self, number: int) -> Iterator[tuple[Key, list[pa.RecordBatch]]]:
        for count, batches in enumerate(self._source.pieces(self._partitions[number])):
            yield (number, count), batches

    def _piece(self, worker: int, key: Key, batches: list[pa.RecordBatch]) -> Piece:
        begun = time.time()
        taken = sum(batch.num_rows for batch in batches)
        block = self._source.encode(batches, self._writer)
        block.number = key[1]
        block.start = (self._partitions[key[0]].first_row or 0) + key[1] * self._source.unit_rows
        if isinstance(block, Block) and self._writer is not None:
            self._writer.put(key, block)
        with self._lock:
            self._taken += taken
            self._kept += block.rows
        return Piece(key, worker, block, start=begun)

    def finish(self) -> None:
        """All rows went by: what was kept becomes the source's store."""
        self._source.rows_dropped = self._taken - self._kept
        if self._writer is not None and self._source.cache in ("memory", "disk"):
            if isinstance(self._writer, DiskWriter):
                self._writer.rows_dropped = self._source.rows_dropped
            self._source.store = self._writer.finish()
            self._writer = None

    def __enter__(self) -> TableFeed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close = getattr(self._shared, "close", None)
        if close is not None:
            close()
        if self._writer is not None:
            self._writer.abort()


@contextmanager
def blamed(piece: Piece) -> Iterator[None]:
    """Errors inside the ``with`` block carry the worker and the rows that it was at."""
    try:
        yield
    except Exception as error:
        block = piece.block
        rows = "no rows" if not block else f"rows {block.start} to {block.start + block.rows - 1}"
        where = f"worker {piece.worker}, block {piece.key[1]} of partition {piece.key[0]} ({rows})"
        if isinstance(error, BraidwaterError):
            error.add_note(f"In {where}.")
            raise
        raise WorkerError(f"{type(error).__name__}: {error} (in {where})") from error
