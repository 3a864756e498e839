"""A table as blocks: encoded while it is read, kept while that pays, read back in later passes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal
from uuid import uuid4

import pyarrow as pa

from braidwater.blocks.base import UNIT_BYTES, Array, Block, BlockEncoder, RawBlock
from braidwater.blocks.disk import DiskWriter, open_cached
from braidwater.blocks.shuffle import shuffled
from braidwater.blocks.store import BlockStore, MemoryStore, MemoryWriter, NoWriter, StoreWriter
from braidwater.errors import NullValueError, OptionError, TableChangedError
from braidwater.options import current_options
from braidwater.tables.base import Partition, Table
from braidwater.tables.missing import missing_count

CacheChoice = Literal["auto", "none", "memory", "disk"]
RAW_ROWS = 65_536  # rows of a block that keeps its Arrow form


class BlockSource:
    """The blocks of `table`, encoded by `encoder` (Arrow as it comes where there is none).

    `passes` is how often they are going to be read. The first pass reads the table; where there are more it also keeps the
    blocks: in memory while they take at most a quarter of the memory option, else in a cache file, which later sessions
    find again as long as the table's fingerprint and the encoder are the same. `cache` overrides the choice.

    Use it in a ``with`` block: leaving it lets go of memory and of files that nobody could find again.
    """

    def __init__(
        self, table: Table, encoder: BlockEncoder | None = None, *, passes: int = 1, cache: CacheChoice = "auto"
    ) -> None:
        if cache not in ("auto", "none", "memory", "disk"):
            raise OptionError("cache", cache, "one of auto, none, memory, disk")
        self.table = table
        self.encoder = encoder
        self.passes = passes
        self.columns: Sequence[str] = table.column_names if encoder is None else encoder.columns
        table.require(self.columns)
        self.cache = self._choose(cache)
        self.rows_dropped = 0
        self.passes_done = 0
        self.fingerprint = table.fingerprint()  # when this source was made
        self.store: BlockStore | None = None if encoder is None else table.kept_blocks(encoder)
        path = self.cache_path
        if self.store is None and path is not None and (self.cache == "disk" or table.encoded):
            self.store = found = open_cached(path)
            self.rows_dropped = 0 if found is None else found.rows_dropped

    def _choose(self, cache: CacheChoice) -> CacheChoice:
        if self.encoder is None:
            return "none"
        if cache != "auto":
            return cache
        if self.passes <= 1:
            return "none"
        return "memory" if self.expected_bytes <= current_options().memory // 4 else "disk"

    def keep(self, cache: CacheChoice = "auto") -> None:
        """Keep the blocks of the pass to come, in memory or on disk, however often they were going to be read."""
        self.passes = max(self.passes, 2)
        if self.encoder is None:
            raise ValueError("a source without an encoder keeps no blocks")
        if cache != "auto" or self.cache == "none":
            self.cache = self._choose(cache)

    @property
    def expected_bytes(self) -> int:
        """Bytes of all blocks, if no row is dropped."""
        rows = self.table.statistics([]).rows
        return 0 if self.encoder is None else self.encoder.block_schema.bytes(rows)

    @property
    def unit_rows(self) -> int:
        return RAW_ROWS if self.encoder is None else self.encoder.block_schema.unit_rows

    @property
    def cache_path(self) -> Path | None:
        """Where the cache file of these blocks lies; None where the table has no fingerprint to find it by."""
        if self.fingerprint is None or self.encoder is None:
            return None
        identity = [
            self.fingerprint,
            list(self.columns),
            self.encoder.key,
            self.encoder.block_schema.to_json(),
            UNIT_BYTES,
        ]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        return current_options().cache_directory / "blocks" / f"{digest}.blocks"

    def check_unchanged(self) -> None:
        """Raise `TableChangedError` when the table is not what it was when this source was made."""
        if self.fingerprint is not None and self.table.fingerprint() != self.fingerprint:
            raise TableChangedError(
                f"Table {self.table.name!r} changed while it was being read. Nothing was learnt from the mixture; run again."
            )

    def writer(self) -> StoreWriter:
        """Takes the blocks of the first pass."""
        if self.encoder is None:
            raise ValueError("a source without an encoder keeps no blocks")
        schema = self.encoder.block_schema
        if self.cache == "memory":
            return MemoryWriter(schema)
        if self.cache == "disk":
            path = self.cache_path
            return (
                self._private_writer() if path is None else DiskWriter(schema, path, expected_bytes=self.expected_bytes)
            )
        return NoWriter(schema)

    def _private_writer(self, folder: Path | None = None) -> DiskWriter:
        """Writes a file that goes with this source: no other session could find it."""
        assert self.encoder is not None
        folder = folder or current_options().cache_directory / "blocks"
        path = folder / f"private-{uuid4().hex}.blocks"
        return DiskWriter(self.encoder.block_schema, path, expected_bytes=self.expected_bytes, temporary=True)

    def shuffle(self, seed: int, folder: Path | None = None) -> None:
        """Put the rows of the kept blocks in a random order that follows from `seed`: in memory, or in a file of its own.

        That file lies in `folder`, by default in the cache directory. Rows are read twice and written twice. Their numbers are
        then those of the new order.
        """
        if self.store is None:
            raise ValueError("a source is shuffled when its blocks were kept")
        store = self.store
        in_memory = isinstance(store, MemoryStore)
        self.store = shuffled(
            store, lambda: MemoryWriter(store.schema) if in_memory else self._private_writer(folder), seed
        )
        store.close()

    def partitions(self, rows: int = 0) -> list[Partition]:
        """Parts of the table of at least one full unit each."""
        return self.table.partitions(max(rows, self.unit_rows))

    def pieces(self, partition: Partition) -> Iterator[list[pa.RecordBatch]]:
        """The rows of a partition, cut into the rows of one unit each (the last may be smaller)."""
        held: list[pa.RecordBatch] = []
        rows = 0
        for batch in self.table.read(self.columns, partition=partition, batch_rows=min(self.unit_rows, 131_072)):
            while batch.num_rows:
                part = batch.slice(0, self.unit_rows - rows)
                held.append(part)
                rows += part.num_rows
                batch = batch.slice(part.num_rows)
                if rows == self.unit_rows:
                    yield held
                    held, rows = [], 0
        if held:
            yield held

    def encode(self, batches: Sequence[pa.RecordBatch], writer: StoreWriter | None = None) -> Block | RawBlock:
        """One block of `batches`, in a buffer of `writer` where there is one."""
        if self.encoder is None:
            whole = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
            return RawBlock(whole)
        try:
            parts = [self.encoder.encode(batch) for batch in batches]
        except NullValueError as error:
            raise self._counted(error) from error
        schema = self.encoder.block_schema
        first = schema.columns[0].name
        rows = sum(len(part[first]) for part in parts)
        writer = writer or NoWriter(schema)
        block = Block(schema, writer.buffer(rows), rows)
        for column in schema.columns:
            _fill(block[column.name], [part[column.name] for part in parts])
        return block

    def _counted(self, error: NullValueError) -> NullValueError:
        """The error about NULLs with the count of the whole table in place of that of a few rows."""
        missing, rows = missing_count(self.table, error.column)
        return NullValueError(error.column, missing, rows, error.choices) if missing else error

    def close(self) -> None:
        """Let go of memory; remove a cache file that nobody could find again."""
        if self.store is not None:
            self.store.close()
            self.store = None

    def __enter__(self) -> BlockSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fill(target: Array, parts: Sequence[Array]) -> None:
    begin = 0
    for part in parts:
        target[begin : begin + len(part)] = part
        begin += len(part)
