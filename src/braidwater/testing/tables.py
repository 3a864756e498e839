"""The laws of a table, as checks that anybody can run on theirs.

An implementation says how it holds given rows: ``make(rows, folder) -> Table`` writes the Arrow table `rows` to its kind of
place inside `folder` and returns the table that lies there. The rows have a column ``number`` that counts from 0, a double
``value``, a text ``word`` with NULLs and a boolean ``flag``.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sqlglot import exp

from braidwater.errors import ColumnNotFoundError
from braidwater.tables.base import Table

Make = Callable[[pa.Table, Path], Table]


def example_rows(count: int = 10_000, seed: int = 0) -> pa.Table:
    """The rows that the checks put into a table."""
    random = np.random.default_rng(seed)
    words = [None if i % 11 == 0 else string.ascii_letters[i % 7] for i in range(count)]
    return pa.table(
        {
            "number": pa.array(np.arange(count)),
            "value": pa.array(random.normal(size=count)),
            "word": pa.array(words, pa.string()),
            "flag": pa.array(random.random(count) < 0.5),
        }
    )


def check_rows_come_back_in_their_order(make: Make, folder: Path) -> None:
    """What was put in comes out: values, NULLs, types and order."""
    rows = example_rows()
    assert make(rows, folder).to_arrow().equals(rows)


def check_partitions_hold_every_row_once_and_in_order(make: Make, folder: Path) -> None:
    """Reading the parts one after the other is reading the table."""
    table = make(example_rows(), folder)
    for size in (1, 999, 10**6):
        numbers: list[int] = []
        for place, partition in enumerate(table.partitions(size)):
            assert partition.number == place
            begin = len(numbers)
            for batch in table.read(["number"], partition=partition):
                numbers.extend(batch.column(0).to_pylist())
            assert partition.rows in (None, len(numbers) - begin)
            assert partition.first_row in (None, begin)
        assert numbers == list(range(10_000))


def check_reading_twice_gives_the_same_rows(make: Make, folder: Path) -> None:
    """A second pass sees what the first one saw."""
    table = make(example_rows(), folder)
    assert table.to_arrow().equals(table.to_arrow())


def check_two_readers_do_not_disturb_each_other(make: Make, folder: Path) -> None:
    """Two streams of one table may be open at a time."""
    table = make(example_rows(), folder)
    one, two = table.read(["number"], batch_rows=1000), table.read(["number"], batch_rows=1000)
    first = [batch.column(0)[0].as_py() for pair in zip(one, two, strict=True) for batch in pair]
    assert first[::2] == first[1::2]


def check_columns_come_in_the_order_asked_for(make: Make, folder: Path) -> None:
    """A subset, and not in the table's own order."""
    table = make(example_rows(), folder)
    assert next(iter(table.read(["flag", "number"]))).schema.names == ["flag", "number"]


def check_batches_are_no_larger_than_asked_for(make: Make, folder: Path) -> None:
    """The size of a batch bounds memory."""
    assert max(batch.num_rows for batch in make(example_rows(), folder).read(batch_rows=777)) <= 777


def check_statistics_tell_the_rows(make: Make, folder: Path) -> None:
    """Rows, NULLs and bounds are right where they are told."""
    rows = example_rows()
    found = make(rows, folder).statistics()
    assert found.rows == 10_000
    assert found.bytes > 0
    for name, column in found.columns.items():
        assert column.nulls in (None, rows.column(name).null_count)


def check_a_select_runs_over_all_rows(make: Make, folder: Path) -> None:
    """Small questions are answered where the rows lie."""
    query = exp.select(exp.Count(this=exp.Star()).as_("rows"), exp.Sum(this=exp.column("number")).as_("total")).from_(
        "this"
    )
    answer = make(example_rows(), folder).select(query).to_pylist()[0]
    assert (answer["rows"], int(answer["total"])) == (10_000, sum(range(10_000)))


def check_a_wrong_column_is_named_with_a_suggestion(make: Make, folder: Path) -> None:
    """The message holds what was asked for and what is near it."""
    table = make(example_rows(), folder)
    with pytest.raises(ColumnNotFoundError, match=r"'nummber'.*'number'"):
        next(iter(table.read(["nummber"])))


def check_a_table_without_rows_can_be_read(make: Make, folder: Path) -> None:
    """No rows, but columns and their types."""
    table = make(example_rows(0), folder)
    assert table.schema.names == ["number", "value", "word", "flag"]
    assert sum(batch.num_rows for batch in table.read()) == 0
    assert len(table) == 0


def check_the_fingerprint_changes_with_the_rows(make: Make, folder: Path) -> None:
    """A cache made of other rows is not taken for this table's."""
    before = make(example_rows(seed=1), folder).fingerprint()
    again = make(example_rows(500, seed=2), folder).fingerprint()
    assert before is None or before != again


TABLE_CHECKS = (
    check_rows_come_back_in_their_order,
    check_partitions_hold_every_row_once_and_in_order,
    check_reading_twice_gives_the_same_rows,
    check_two_readers_do_not_disturb_each_other,
    check_columns_come_in_the_order_asked_for,
    check_batches_are_no_larger_than_asked_for,
    check_statistics_tell_the_rows,
    check_a_select_runs_over_all_rows,
    check_a_wrong_column_is_named_with_a_suggestion,
    check_a_table_without_rows_can_be_read,
    check_the_fingerprint_changes_with_the_rows,
)
