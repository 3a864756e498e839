"""Blocks in which the rows of a group lie together: the table is sorted by group once, while its blocks are made.

Rows are dealt out to buckets of neighbouring groups as they come (each bucket about a block), then every bucket is sorted.
Both steps keep the order of the table within a group, so the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from uuid import uuid4

import numpy as np

from braidwater.blocks.base import Array, Block, BlockEncoder, BlockSchema, allocate
from braidwater.blocks.disk import DiskWriter
from braidwater.blocks.parts import part_of
from braidwater.blocks.source import BlockSource, CacheChoice
from braidwater.blocks.store import BlockStore, Key, StoreWriter, ThreadBuffers
from braidwater.kernels import scratch
from braidwater.options import current_options
from braidwater.tables.base import Table

MAX_BUCKETS = 1024  # of a row's block, each gets a part: with more of them the parts of a file would be small
_SPAN = 1 << 32  # blocks of a partition, in the place of a part

Part = tuple[Block, slice]


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
        if self.cache == "memory":
            return SortingWriter(schema, super().writer, self._column, self._bucket_of)
        # the parts never lie where a later session would look: they are not sorted yet
        parts = _private(schema, self.expected_bytes)
        return DealingWriter(parts, super().writer, self._column, self._bucket_of)


def _private(schema: BlockSchema, size: int) -> DiskWriter:
    path = current_options().cache_directory / "blocks" / f"parts-{uuid4().hex}.blocks"
    return DiskWriter(schema, path, expected_bytes=size, temporary=True)


class ClusteringWriter(StoreWriter):
    """Deals out the rows of blocks to buckets, and makes a store of the sorted buckets."""

    def __init__(
        self, schema: BlockSchema, make_writer: Callable[[], StoreWriter], column: str, bucket_of: Array
    ) -> None:
        super().__init__(schema)
        self._column = column
        self._bucket_of = bucket_of
        self._buckets = int(bucket_of.max(initial=0)) + 1
        self._make_writer = make_writer

    def _dealt(self, block: Block) -> tuple[Array, Array]:
        """The rows of a block in the order of their buckets, and where each bucket begins and ends there."""
        buckets = self._bucket_of[block[self._column]]
        ends = np.cumsum(np.bincount(buckets, minlength=self._buckets))
        return np.argsort(buckets, kind="stable"), np.append(0, ends)

    def _make_store(self, parts_of: Callable[[int], list[Part]]) -> BlockStore:
        """The store of all buckets, from the parts that each has."""
        writer = self._make_writer()

        def sort(bucket: int) -> None:
            parts = parts_of(bucket)
            if parts:
                self._sort(parts, bucket, writer)

        try:
            with ThreadPoolExecutor(current_options().workers, "braidwater-sort") as pool:
                for done in [pool.submit(copy_context().run, sort, bucket) for bucket in range(self._buckets)]:
                    done.result()
            return writer.finish()
        except BaseException:
            writer.abort()
            raise

    def _sort(self, parts: Sequence[Part], bucket: int, writer: StoreWriter) -> None:
        codes = np.concatenate([block[self._column][rows] for block, rows in parts])
        order = np.argsort(codes, kind="stable")
        pieces = np.array_split(order, max(round(len(order) / self.schema.unit_rows), 1))
        for number, found in enumerate(picked(parts, pieces)):
            writer.put((bucket, number), found)


class SortingWriter(ClusteringWriter):
    """In memory: a block in the order of its buckets stays one block, of which a bucket takes its part later."""

    def __init__(
        self, schema: BlockSchema, make_writer: Callable[[], StoreWriter], column: str, bucket_of: Array
    ) -> None:
        super().__init__(schema, make_writer, column, bucket_of)
        self._held: dict[Key, tuple[Block, Array]] = {}
        self._buffers = ThreadBuffers()

    def buffer(self, rows: int) -> Array:
        return self._buffers.take(self.schema.bytes(rows))

    def put(self, key: Key, block: Block) -> None:
        order, bounds = self._dealt(block)
        ordered = part_of(block, order)
        with self._lock:
            self._held[key] = ordered, bounds

    def finish(self) -> BlockStore:
        held = [self._held[key] for key in sorted(self._held)]

        def parts_of(bucket: int) -> list[Part]:
            parts = [(block, slice(int(bounds[bucket]), int(bounds[bucket + 1]))) for block, bounds in held]
            return [(block, rows) for block, rows in parts if rows.stop > rows.start]

        return self._make_store(parts_of)

    def abort(self) -> None:
        self._held.clear()


class DealingWriter(ClusteringWriter):
    """On disk: every bucket's rows of a block are a part in a file, so that each is read once."""

    def __init__(
        self, parts: StoreWriter, make_writer: Callable[[], StoreWriter], column: str, bucket_of: Array
    ) -> None:
        super().__init__(parts.schema, make_writer, column, bucket_of)
        self._parts = parts
        self._held: set[Key] = set()
        self._buffers = ThreadBuffers()

    def buffer(self, rows: int) -> Array:
        return self._buffers.take(self.schema.bytes(rows))

    def put(self, key: Key, block: Block) -> None:
        order, bounds = self._dealt(block)
        for bucket in np.flatnonzero(np.diff(bounds)).tolist():
            place = (bucket, key[0] * _SPAN + key[1])
            self._parts.put(place, part_of(block, order[bounds[bucket] : bounds[bucket + 1]]))
            with self._lock:
                self._held.add(place)

    def finish(self) -> BlockStore:
        parts = self._parts.finish()
        numbers: dict[int, list[int]] = {}
        for number, (bucket, _) in enumerate(sorted(self._held)):
            numbers.setdefault(bucket, []).append(number)

        def parts_of(bucket: int) -> list[Part]:
            return [(parts.read(number), slice(None)) for number in numbers.get(bucket, ())]

        try:
            return self._make_store(parts_of)
        finally:
            parts.close()

    def abort(self) -> None:
        self._parts.abort()


def picked(parts: Sequence[Part], pieces: Sequence[Array]) -> list[Block]:
    """Blocks of rows that are picked from several blocks, numbered through their `parts`.

    Column by column: what is joined, and picked from, is then a column that stays in the cache.
    """
    schema = parts[0][0].schema
    found = [Block(schema, allocate(schema.bytes(len(rows))), len(rows), start=parts[0][0].start) for rows in pieces]
    count = sum(map(len, pieces))
    for names in schema.neighbours:
        if schema.view(found[0].buffer, names[0], len(pieces[0])).ndim > 1:
            column = np.concatenate([block[names[0]][rows] for block, rows in parts])
            for block, rows in zip(found, pieces, strict=True):
                block[names[0]][...] = column[rows]
            continue
        sources = [(block.matrix(names), rows) for block, rows in parts]
        targets = [block.matrix(names) for block in found]
        joined = scratch("joined", (count,), sources[0][0].dtype)
        for number in range(len(names)):
            np.concatenate([matrix[number, rows] for matrix, rows in sources], out=joined)
            for target, rows in zip(targets, pieces, strict=True):
                np.take(joined, rows, out=target[number], mode="clip")
    return found
