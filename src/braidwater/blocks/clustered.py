"""Blocks in which the rows of a group lie together: the table is sorted by group once, while its blocks are made.

Rows are dealt out to buckets of neighbouring groups as they come (each bucket about a block), then every bucket is sorted.
Both steps keep the order of the table within a group, so the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from uuid import uuid4

import numpy as np

from braidwater.blocks.base import Array, Block, BlockEncoder, BlockSchema, allocate
from braidwater.blocks.disk import DiskWriter
from braidwater.blocks.parts import part_of
from braidwater.blocks.source import BlockSource, CacheChoice
from braidwater.blocks.store import BlockStore, Key, MemoryWriter, StoreWriter, ThreadBuffers
from braidwater.options import current_options
from braidwater.tables.base import Table

MAX_BUCKETS = 1024  # of a row's block, each gets a part: with more of them the parts of a file would be small
_SPAN = 1 << 32  # blocks of a partition, in the place of a part


class ClusteredSource(BlockSource):
    """A `BlockSource` whose kept blocks hold the rows of the table ordered by the codes in `column`.

    `counts` ``(groups,)`` are the rows of each group (about: they decide where blocks end, not what is in them). A block holds
    many small groups whole, a large one fills several blocks. The first pass sees the rows in the order of the table. Cost: two
    copies of the rows beside writing them; memory for two blocks a thread (twice the blocks, where they are kept in memory).
    """

    def __init__(
        self,
        table: Table,
        encoder: BlockEncoder,
        *,
        column: str,
        counts: Array,
        passes: int = 2,
        cache: CacheChoice = "auto",
    ) -> None:
        super().__init__(table, encoder, passes=max(passes, 2), cache="auto" if cache == "none" else cache)
        self._column = column
        rows = max(self.unit_rows, int(counts.sum()) // MAX_BUCKETS + 1)
        self._bucket_of = ((np.cumsum(counts) - counts) // rows).astype(np.uint16)

    def writer(self) -> StoreWriter:
        assert self.encoder is not None
        schema = self.encoder.block_schema
        # the parts never lie where a later session would look: they are not sorted yet
        parts = MemoryWriter(schema) if self.cache == "memory" else _private(schema, self.expected_bytes)
        return ClusteringWriter(parts, super().writer, self._column, self._bucket_of)


def _private(schema: BlockSchema, size: int) -> DiskWriter:
    path = current_options().cache_directory / "blocks" / f"parts-{uuid4().hex}.blocks"
    return DiskWriter(schema, path, expected_bytes=size, temporary=True)


class ClusteringWriter(StoreWriter):
    """Deals out the rows of blocks to buckets, and makes a store of the sorted buckets."""

    def __init__(
        self, parts: StoreWriter, make_writer: Callable[[], StoreWriter], column: str, bucket_of: Array
    ) -> None:
        super().__init__(parts.schema)
        self._column = column
        self._bucket_of = bucket_of
        self._parts = parts
        self._make_writer = make_writer
        self._held: dict[Key, int] = {}
        self._buffers = ThreadBuffers()

    def buffer(self, rows: int) -> Array:
        return self._buffers.take(self.schema.bytes(rows))

    def put(self, key: Key, block: Block) -> None:
        buckets = self._bucket_of[block[self._column]]
        order = np.argsort(buckets, kind="stable")
        present, begins = np.unique(buckets[order], return_index=True)
        for bucket, rows in zip(present.tolist(), np.split(order, begins[1:]), strict=True):
            place = (bucket, key[0] * _SPAN + key[1])
            self._parts.put(place, part_of(block, rows))
            with self._lock:
                self._held[place] = len(rows)

    def finish(self) -> BlockStore:
        parts = self._parts.finish()
        numbers: dict[int, list[int]] = {}
        for number, (bucket, _) in enumerate(sorted(self._held)):
            numbers.setdefault(bucket, []).append(number)
        writer = self._make_writer()

        def sort(bucket: int) -> None:
            self._sort(parts, numbers[bucket], bucket, writer)

        try:
            with ThreadPoolExecutor(current_options().workers, "braidwater-sort") as pool:
                for done in [pool.submit(copy_context().run, sort, bucket) for bucket in numbers]:
                    done.result()
            return writer.finish()
        except BaseException:
            writer.abort()
            raise
        finally:
            parts.close()

    def _sort(self, parts: BlockStore, numbers: list[int], bucket: int, writer: StoreWriter) -> None:
        whole = joined([parts.read(number) for number in numbers])
        order = np.argsort(whole[self._column], kind="stable")
        unit = self.schema.unit_rows
        pieces = max(round(len(order) / unit), 1)
        for number in range(pieces):
            rows = order[len(order) * number // pieces : len(order) * (number + 1) // pieces]
            writer.put((bucket, number), part_of(whole, rows))

    def abort(self) -> None:
        self._parts.abort()


def joined(blocks: list[Block]) -> Block:
    """The rows of several blocks, one after another."""
    if len(blocks) == 1:
        return blocks[0]
    rows = sum(block.rows for block in blocks)
    schema = blocks[0].schema
    whole = Block(schema, allocate(schema.bytes(rows)), rows, start=blocks[0].start)
    for column in schema.columns:
        np.concatenate([block[column.name] for block in blocks], out=whole[column.name])
    return whole
