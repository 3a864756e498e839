"""A table parted in two at random, the same way in every pass and on every machine; and tables of parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.errors import OptionError
from braidwater.tables.arrow import select_from_stream
from braidwater.tables.base import Partition, Table, TableStatistics
from braidwater.tables.computed import ComputedTable
from braidwater.tables.parts import Parts, RandomShare, draw_parts, group_parts, random_numbers, random_numbers_of

__all__ = ["PartedTable", "SampledTable", "random_numbers", "random_numbers_of", "train_test_split"]


def train_test_split(
    table: Table, test: float = 0.2, *, seed: int = 0, stratify: str | None = None, groups: str | None = None
) -> tuple[Table, Table]:
    """Two tables without a row in common: about ``1 - test`` of the rows for training, and the rest.

    With `stratify`, every value of that column has the same share of its rows in the test table, exact within one row (a query
    that counts, and two streams of the column). With `groups`, all rows with one value of that column are on one side.
    A row's side follows from `seed`, its number in the table and those columns, so nothing is copied and both sides are read as
    streams.
    """
    if not 0 < test < 1:
        raise OptionError("test", test, "a fraction between 0 and 1")
    if stratify is not None and groups is not None:
        raise OptionError("stratify", stratify, "None where groups are given: a group cannot be cut")
    shares = (1 - test, test)
    parts: Parts
    if stratify is not None:
        parts = draw_parts(table, shares, seed=seed, stratify=stratify)
    elif groups is not None:
        parts = group_parts(table, groups, shares, seed=seed)
    else:
        parts = RandomShare(len(table), test, seed)
    return (
        SampledTable(table, parts, [0], name=f"{table.name} (train)"),
        SampledTable(table, parts, [1], name=f"{table.name} (test)"),
    )


@dataclass(frozen=True)
class Sample:
    """Which rows of a table are in a sample: those of the `chosen` of its parts. It pickles."""

    parts: Parts
    chosen: tuple[int, ...]

    @cached_property
    def is_chosen(self) -> np.ndarray[Any, Any]:
        found = np.zeros(max(len(self.parts.sizes), max(self.chosen, default=0) + 1), bool)
        found[list(self.chosen)] = True
        return found

    @property
    def key(self) -> str:
        """The same for the same rows of the same table."""
        return f"parts {self.chosen} of {self.parts.key}"

    def of(self, batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
        """Those rows of `batch`, which begins with row `start` of the table and has the columns that the parts look at."""
        return batch.filter(pa.array(self.is_chosen[self.parts.codes(batch, start, batch.num_rows)]))


class SampledTable(Table):
    """The rows of a `table` that are in some of its parts, decided by their numbers and a seed: its `sample`."""

    def __init__(self, table: Table, parts: Parts, chosen: Collection[int], *, name: str) -> None:
        self.name = name
        self.table = self._table = table
        self.sample = Sample(parts, tuple(sorted(chosen)))
        self.reader = table.reader
        self._parts = parts
        self._is_chosen = self.sample.is_chosen

    @property
    def schema(self) -> pa.Schema:
        return self._table.schema

    @property
    def _rows(self) -> int:
        sizes = self._parts.sizes
        return int(sizes[self._is_chosen[: len(sizes)]].sum())

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        self.require(self.column_names if columns is None else columns)
        inner = self._table.statistics([])
        return TableStatistics(self._rows, inner.bytes * self._rows // max(inner.rows, 1))

    def partitions(self, rows: int) -> list[Partition]:
        share = self._rows / max(len(self._table), 1)
        return numbered(self._table, int(rows / share) if share else rows)

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        self.require(names)
        for batch, codes in with_parts(self._table, self._parts, names, partition, batch_rows):
            kept = batch.select(names).filter(pa.array(self._is_chosen[codes]))
            if kept.num_rows:
                yield kept

    def fingerprint(self) -> str | None:
        inner = self._table.fingerprint()
        return None if inner is None else f"{inner}|{self.sample.key}"

    def select(self, query: exp.Select) -> pa.Table:
        return select_from_stream(self, query)


class PartedTable(ComputedTable):
    """A table with one column more, `column`, that says which part each row is in."""

    def __init__(self, table: Table, parts: Parts, column: str) -> None:
        if column in table.column_names:
            raise OptionError("column", column, "no column of the table")
        self._parts = parts
        self._column = column
        schema = pa.schema([*table.schema, pa.field(column, pa.uint16())])
        super().__init__(table, lambda batch: batch, schema, name=table.name)

    def partitions(self, rows: int) -> list[Partition]:
        return numbered(self._table, rows)

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        self.require(names)
        inner = [name for name in names if name != self._column]
        for batch, codes in with_parts(self._table, self._parts, inner, partition, batch_rows):
            held = {name: batch.column(name) for name in inner} | {self._column: pa.array(codes.astype(np.uint16))}
            yield pa.record_batch(
                [held[name] for name in names], schema=pa.schema([self._schema.field(n) for n in names])
            )

    def fingerprint(self) -> str | None:
        inner = self._table.fingerprint()
        return None if inner is None else f"{inner}|{self._column}: {self._parts.key}"


def numbered(table: Table, rows: int) -> list[Partition]:
    """The partitions of a table, where it is known which row each begins with; else the table as one."""
    inner = table.partitions(rows)
    return inner if all(part.first_row is not None for part in inner) else [Partition(0, first_row=0)]


def with_parts(
    table: Table, parts: Parts, columns: Sequence[str], partition: Partition | None, batch_rows: int
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """The rows with at least `columns`, batch by batch, and the part of each."""
    number = 0 if partition is None else partition.first_row or 0
    inner = None if partition is None or (partition.where is None and partition.rows is None) else partition
    wanted = list(dict.fromkeys((*columns, *parts.columns))) or table.column_names[:1]
    for batch in table.read(wanted, partition=inner, batch_rows=batch_rows):
        yield batch, parts.codes(batch, number, batch.num_rows)
        number += batch.num_rows
