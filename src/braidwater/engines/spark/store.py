"""The blocks of a table as a store that every worker can read: each makes and keeps those that it looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from braidwater.blocks.base import Array, Block, BlockEncoder
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import BlockStore, Unit
from braidwater.engines.local.engine import LocalEngine
from braidwater.engines.spark.shards import Shard


class ShardStore(BlockStore):
    """The blocks of shards, in their order. It pickles as the shards and their encoder, without a block.

    A block is read from the cache of its shard on the disk of the machine that asks. Where that has none, because it never
    read the shard or has lost it, the blocks of the shard are made again from the file: one pass over it.
    """

    kind = "disk"

    def __init__(
        self, shards: Sequence[Shard], encoder: BlockEncoder, blocks: Mapping[tuple[int, int], int], rows_dropped: int
    ) -> None:
        self.schema = encoder.block_schema
        self.shards = tuple(shards)
        self.rows_dropped = rows_dropped
        self._encoder = encoder
        self._places = [key for key in sorted(blocks) if blocks[key]]
        self._within = _numbers_within(self._places)
        starts = np.cumsum([0, *(blocks[key] for key in self._places)])
        self.units = [Unit(n, blocks[key], int(starts[n])) for n, key in enumerate(self._places)]
        self._open: dict[int, BlockSource] = {}

    def read(self, number: int, buffer: Array | None = None) -> Block:
        shard, _ = self._places[number]
        store = self._store(shard)
        # `buffer` is as large as `buffer_bytes` says, which no cache of a shard needs: they are small enough to be mapped
        block = store.read(self._within[number])
        unit = self.units[number]
        return Block(self.schema, block.buffer, unit.rows, start=unit.start, number=number)

    def _store(self, shard: int) -> BlockStore:
        source = self._open.get(shard)
        if source is None:
            source = self._open[shard] = BlockSource(self.shards[shard].table(), self._encoder, passes=2, cache="disk")
        return LocalEngine(1).materialise(source)

    def begins(self) -> dict[int, tuple[int, int]]:
        """The numbers of the first row and the first block of each shard."""
        found: dict[int, tuple[int, int]] = {}
        row = number = 0
        for shard in self.shards:
            found[shard.number] = row, number
            while number < len(self.units) and self._places[number][0] == shard.number:
                row, number = row + self.units[number].rows, number + 1
        return found

    def close(self) -> None:
        for source in self._open.values():
            source.close()
        self._open.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def _numbers_within(places: Sequence[tuple[int, int]]) -> list[int]:
    """The number of each block in the cache of its shard, where blocks without rows are not kept."""
    found: list[int] = []
    last, number = -1, 0
    for shard, _ in places:
        number = number + 1 if shard == last else 0
        found.append(number)
        last = shard
    return found
