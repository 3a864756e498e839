"""The rows of a table as parts that one worker each owns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array, Block, BlockEncoder
from braidwater.blocks.mini_batches import deal
from braidwater.blocks.store import BlockStore, Unit, runs
from braidwater.errors import OptionError
from braidwater.tables import Table

UNITS_A_PARTITION = 4  # that a partition has at least, where there are rows enough: a deal of few units would be uneven


class Partition(BlockStore):
    """Some units of a store, under their own numbers. `bytes_read` counts the bytes of the units that were fetched from it."""

    def __init__(self, store: BlockStore, units: Sequence[Unit]) -> None:
        self._store = store
        self.schema = store.schema
        self.units = list(units)
        self.kind = store.kind
        self.bytes_read = 0

    @property
    def buffer_bytes(self) -> int:
        return self._store.buffer_bytes

    def read(self, number: int, buffer: Array | None = None) -> Block:
        block = self._store.read(number, buffer)
        self.bytes_read += block.bytes
        return block


def partitions_of(store: BlockStore, count: int) -> list[Partition]:
    """`count` partitions of about as many rows each; every unit is in one of them. Of a store that is elsewhere runs of units."""
    if store.here:
        hands = deal(store.units, count)
    else:
        hands = [[store.units[place] for place in run] for run in runs(len(store.units), count)]
    most = sum(1 for hand in hands if any(unit.rows for unit in hand))
    if most < count:
        raise OptionError(
            "workers",
            count,
            f"at most {most}: every worker owns a part of the {store.rows:,} rows, and they make no more parts",
        )
    return [Partition(store, hand) for hand in hands]


class PartitionedSource(BlockSource):
    """The blocks of a table in a file that other processes can read, cut small enough for `partitions` even parts.

    Where `stays`, no file is looked for: the blocks are made where the rows lie.
    """

    def __init__(self, table: Table, encoder: BlockEncoder, *, partitions: int, stays: bool = False) -> None:
        full = encoder.block_schema.unit_rows
        wanted = -(-table.statistics([]).rows // (partitions * UNITS_A_PARTITION))
        self._unit_rows = full if wanted >= full else max(wanted, 1) if wanted < 64 else wanted // 64 * 64
        self._full = full
        super().__init__(table, encoder, passes=2, cache="memory" if stays else "disk")

    @property
    def unit_rows(self) -> int:
        return self._unit_rows

    @property
    def cache_path(self) -> Path | None:
        """That of everybody's blocks, or, where these are smaller, one of their own."""
        path = super().cache_path
        small = path is not None and self._unit_rows < self._full
        return path.with_name(f"{path.stem}-{self._unit_rows}.blocks") if small and path is not None else path
