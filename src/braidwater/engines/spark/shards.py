"""Shards: the parts of a table that a worker opens itself, a Parquet file and some of its row groups each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa

from braidwater.errors import TableError
from braidwater.tables.base import Partition, TableStatistics
from braidwater.tables.parquet import ParquetTable

_UNITS = (
    4  # of 8 MB: small enough that a lost one is soon made again, large enough that a terabyte is not a million files
)


@dataclass(frozen=True)
class Shard:
    """Row groups of a file that follow each other. `number` is its place in the order of the table, `start` its first row there.

    How a table is cut does not depend on the number of workers, so that their caches serve any number of them.
    """

    number: int
    file: str
    groups: tuple[int, ...]
    rows: int
    start: int
    schema: pa.Schema
    name: str

    def table(self) -> ShardTable:
        """Its rows, opened where this is called."""
        return ShardTable(self)


class ShardTable(ParquetTable):
    """The rows of a shard, in the types of the table that it is a part of."""

    def __init__(self, shard: Shard) -> None:
        super().__init__([shard.file], name=shard.name)
        self._shard = shard

    @property
    def schema(self) -> pa.Schema:
        return self._shard.schema

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        whole = super().statistics(columns)
        return TableStatistics(self._shard.rows, whole.bytes, whole.columns)

    def partitions(self, rows: int) -> list[Partition]:
        """Cut as the whole table is: a shard begins where a partition does."""
        parts: list[Partition] = []
        groups: list[int] = []
        held = first_row = 0
        for group in self._shard.groups:
            groups.append(group)
            held += self.group_rows(group)
            if held >= rows or group == self._shard.groups[-1]:
                parts.append(Partition(len(parts), held, first_row, (0, tuple(groups))))
                first_row += held
                groups, held = [], 0
        return parts or [Partition(0, 0, 0, (0, ()))]

    def require_unchanged(self) -> None:
        """Raise `TableError` where the file has other row groups than when the table was opened."""
        there = range(self._metadata[0].num_row_groups)
        rows = sum(self.group_rows(group) for group in self._shard.groups if group in there)
        if rows != self._shard.rows:
            raise TableError(
                f"{self._shard.file!r} had {self._shard.rows} rows in its row groups {self._shard.groups}, and has {rows}: it "
                "was written anew after the table was opened. Open the table again."
            )

    def group_rows(self, group: int) -> int:
        found: int = self._metadata[0].row_group(group).num_rows
        return found

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        wanted = pa.schema([self.schema.field(name) for name in names])
        part = partition or Partition(0, where=(0, self._shard.groups))
        for batch in super().read(names, partition=part, batch_rows=batch_rows):
            yield batch if batch.schema.equals(wanted) else batch.cast(wanted)

    def fingerprint(self) -> str:
        return f"{super().fingerprint()}#{self._shard.groups}"


def shards_of(table: ParquetTable, unit_rows: int, schema: pa.Schema | None = None) -> list[Shard]:
    """The shards of a table whose blocks have `unit_rows` rows: about four blocks each, cut where one machine cuts too."""
    found: list[Shard] = []
    held: list[Partition] = []

    def close() -> None:
        groups = tuple(group for part in held for group in part.where[1])
        rows = sum(part.rows or 0 for part in held)
        start = held[0].first_row or 0
        file = table.files[held[0].where[0]]
        found.append(Shard(len(found), file, groups, rows, start, schema or table.schema, table.name))
        held.clear()

    for part in table.partitions(unit_rows):
        if held and (part.where[0] != held[0].where[0] or sum(one.rows or 0 for one in held) >= _UNITS * unit_rows):
            close()
        held.append(part)
    close()
    return found


def shares(shards: Sequence[Shard], workers: int) -> list[tuple[Shard, ...]]:
    """Runs of shards for at most so many workers, of about as many rows each; no run is empty.

    >>> rows = [Shard(n, "", (), size, 0, pa.schema([]), "") for n, size in enumerate([5, 1, 1, 1, 9, 1])]
    >>> [[shard.rows for shard in run] for run in shares(rows, 3)]
    [[5, 1], [1, 1], [9, 1]]
    """
    ends = list(accumulate(shard.rows for shard in shards))
    total = max(ends[-1], 1)
    runs: list[list[Shard]] = [[] for _ in range(workers)]
    for shard, end in zip(shards, ends, strict=True):
        middle = end - shard.rows / 2
        runs[min(int(middle * workers / total), workers - 1)].append(shard)
    return [tuple(run) for run in runs if run]
