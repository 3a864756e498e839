"""A table parted in two at random, the same way in every pass and on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sqlglot import exp

from braidwater.errors import OptionError
from braidwater.tables.arrow import select_from_stream
from braidwater.tables.base import Partition, Table, TableStatistics


def train_test_split(table: Table, test: float = 0.2, *, seed: int = 0) -> tuple[Table, Table]:
    """Two tables without a row in common: about ``1 - test`` of the rows for training, and the rest.

    A row's side follows from `seed` and its number in the table, so nothing is copied and both sides are read as streams.
    """
    if not 0 < test < 1:
        raise OptionError("test", test, "a fraction between 0 and 1")
    border = int((1 - test) * 2**64)
    return (
        SampledTable(table, seed, 0, border, name=f"{table.name} (train)"),
        SampledTable(table, seed, border, 2**64, name=f"{table.name} (test)"),
    )


class SampledTable(Table):
    """The rows of a table whose random number lies in ``[low, high)`` of 2**64."""

    def __init__(self, table: Table, seed: int, low: int, high: int, *, name: str) -> None:
        self.name = name
        self._table = table
        self.reader = table.reader
        self._seed = seed
        self._low = low
        self._high = high

    @property
    def schema(self) -> pa.Schema:
        return self._table.schema

    @cached_property
    def _rows(self) -> int:
        total = self._table.statistics([]).rows
        return sum(int(self._mask(start, min(2**20, total - start)).sum()) for start in range(0, total, 2**20))

    def _mask(self, start: int, count: int) -> NDArray[np.bool_]:
        numbers = random_numbers(self._seed, start, count)
        return (numbers >= np.uint64(self._low)) & (numbers <= np.uint64(self._high - 1))

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        self.require(self.column_names if columns is None else columns)
        inner = self._table.statistics([])
        return TableStatistics(self._rows, inner.bytes * self._rows // max(inner.rows, 1))

    def partitions(self, rows: int) -> list[Partition]:
        inner = self._table.partitions(int(rows * 2**64 / max(self._high - self._low, 1)))
        numbered = all(part.first_row is not None for part in inner)
        return inner if numbered else [Partition(0, first_row=0)]

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        number = 0 if partition is None else partition.first_row or 0
        inner = None if partition is None or (partition.where is None and partition.rows is None) else partition
        for batch in self._table.read(columns, partition=inner, batch_rows=batch_rows):
            kept = batch.filter(pa.array(self._mask(number, batch.num_rows)))
            number += batch.num_rows
            if kept.num_rows:
                yield kept

    def fingerprint(self) -> str | None:
        inner = self._table.fingerprint()
        return None if inner is None else f"{inner}|rows {self._low}..{self._high} of seed {self._seed}"

    def select(self, query: exp.Select) -> pa.Table:
        return select_from_stream(self, query)


def random_numbers(seed: int, start: int, count: int) -> NDArray[np.uint64]:
    """Uniform 64-bit numbers for rows ``start`` to ``start + count``: splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = np.arange(start, start + count, dtype=np.uint64) + np.uint64(seed % 2**31) * np.uint64(0xD1342543DE82EF95)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
