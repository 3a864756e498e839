"""The blocks of a store, round and round, fetched ahead of those who fold them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from braidwater.blocks.base import Block, allocate
from braidwater.blocks.store import BlockStore


class RoundReader:
    """Gives the blocks 0, 1, ..., last, 0, 1, ... of a store, up to `most` of them at a time.

    Where blocks have to be fetched (a cache that outgrew the memory), a thread fetches the next ones meanwhile. A block is
    good until the next call of `take`.
    """

    def __init__(self, store: BlockStore, most: int) -> None:
        self._store = store
        self._most = most
        self._taken = self._asked = 0
        self._buffers = [allocate(store.buffer_bytes) for _ in range(2 * most)] if store.buffer_bytes else []
        self._reader = ThreadPoolExecutor(1, "braidwater-read") if self._buffers else None
        self._ahead: deque[Future[Block]] = deque()

    @property
    def position(self) -> int:
        """The number of the block that comes next."""
        return self._taken % len(self._store.units)

    def take(self, count: int) -> list[Block]:
        """The next `count` blocks."""
        if self._reader is None:
            begin, self._taken = self._taken, self._taken + count
            return [self._store.read(place % len(self._store.units)) for place in range(begin, self._taken)]
        self._fetch_until(self._taken + count)
        self._taken += count
        blocks = [self._ahead.popleft().result() for _ in range(count)]
        self._fetch_until(self._taken + self._most)  # into buffers that nobody reads: those of the blocks before these
        return blocks

    def close(self) -> None:
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)

    def _fetch_until(self, end: int) -> None:
        assert self._reader is not None
        while self._asked < end:
            buffer = self._buffers[self._asked % len(self._buffers)]
            self._ahead.append(self._reader.submit(self._store.read, self._asked % len(self._store.units), buffer))
            self._asked += 1
