"""Which part of a table each row is in (training or test, one of five folds), decided the same way in every pass.

A row's part follows from its number in the table, a seed, and values in its columns, so nothing is copied, and every partition
of a table can be read by itself.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sqlglot import exp

from braidwater.errors import ColumnTypeError, NullValueError, OptionError, TableChangedError
from braidwater.tables.base import Table

Array = NDArray[Any]
MAX_VALUES = 1_000_000  # different values of a column that are held in memory
_CHUNK = 1 << 16  # rows whose numbers stay in the second-level cache
_BITS = 16  # of a histogram that does


class Parts(ABC):
    """The part of every row: a number from 0.

    `columns` are those of the table that it is decided by, `sizes` ``(parts,)`` the rows of each part.
    """

    columns: tuple[str, ...] = ()
    sizes: Array

    @abstractmethod
    def codes(self, batch: pa.RecordBatch | None, first_row: int, rows: int) -> Array:
        """The parts ``(rows,)`` of the rows from number `first_row` on; `batch` holds their `columns`."""

    @property
    @abstractmethod
    def key(self) -> str:
        """A text that differs for parts that differ."""


@dataclass(frozen=True)
class RandomShare(Parts):
    """Part 1 are about `share` of the rows, drawn one by one; part 0 the others."""

    rows: int
    share: float
    seed: int

    @property
    def border(self) -> int:
        return int((1 - self.share) * 2**64)

    @cached_property
    def sizes(self) -> Array:  # type: ignore[override]
        pieces = range(0, self.rows, _CHUNK)
        test = sum(int(self.codes(None, begin, min(_CHUNK, self.rows - begin)).sum()) for begin in pieces)
        return np.array([self.rows - test, test])

    def codes(self, batch: pa.RecordBatch | None, first_row: int, rows: int) -> Array:
        return (random_numbers(self.seed, first_row, rows) >= np.uint64(self.border)).astype(np.uint8)

    @property
    def key(self) -> str:
        return f"share {self.border} of seed {self.seed}"


@dataclass(frozen=True)
class DrawnParts(Parts):
    """Parts of an exact size, drawn at random within each value of a column (or within the whole table).

    Every row has a random number of its own; of the rows with one value those with the smallest are in part 0, and so on.
    `borders` ``(values, parts - 1)`` are the numbers where the next part begins, `values` those of `column` in their order.
    """

    seed: int
    borders: Array
    sizes: Array
    column: str | None = None
    values: pa.Array | None = None

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.column is None else (self.column,)

    def codes(self, batch: pa.RecordBatch | None, first_row: int, rows: int) -> Array:
        numbers = random_numbers(self.seed, first_row, rows)
        borders = self.borders.T  # (parts - 1, 1) where there is one stratum
        if self.column is not None:
            assert batch is not None
            borders = borders[:, places_in(batch.column(self.column), self.values, self.column)]
        found = np.zeros(rows, np.uint16)
        for border in borders:
            found += numbers >= border
        return found

    @property
    def key(self) -> str:
        digest = hashlib.sha256(self.borders.tobytes()).hexdigest()[:16]
        return f"drawn {digest} of seed {self.seed} by {self.column}"


@dataclass(frozen=True)
class ValueParts(Parts):
    """All rows with one value in `column` are in one part: ``parts[i]`` for ``values[i]``."""

    column: str
    values: pa.Array
    parts: Array
    sizes: Array

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.column,)

    def codes(self, batch: pa.RecordBatch | None, first_row: int, rows: int) -> Array:
        assert batch is not None
        return self.parts[places_in(batch.column(self.column), self.values, self.column)]

    @property
    def key(self) -> str:
        digest = hashlib.sha256(self.parts.tobytes() + str(self.values).encode()).hexdigest()[:16]
        return f"parts {digest} by values of {self.column}"


@dataclass(frozen=True)
class OrderedParts(Parts):
    """Part i are the rows whose value in `column` is at least ``borders[i - 1]`` and below ``borders[i]``."""

    column: str
    borders: pa.Array
    sizes: Array

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.column,)

    def codes(self, batch: pa.RecordBatch | None, first_row: int, rows: int) -> Array:
        assert batch is not None
        values = batch.column(self.column)
        found = np.zeros(rows, np.uint16)
        for border in self.borders:
            found += _numpy(pc.cast(pc.greater_equal(values, border), pa.uint8()))
        return found

    @property
    def key(self) -> str:
        return f"ordered by {self.column} at {self.borders}"


@dataclass(frozen=True)
class ListedParts(Parts):
    """The part of every row, listed ``(rows,)``."""

    parts: Array

    @property
    def sizes(self) -> Array:  # type: ignore[override]
        return np.bincount(self.parts)

    def codes(self, batch: pa.RecordBatch | None, first_row: int, rows: int) -> Array:
        return self.parts[first_row : first_row + rows]

    @property
    def key(self) -> str:
        return f"listed {hashlib.sha256(self.parts.tobytes()).hexdigest()[:16]}"


def draw_parts(table: Table, shares: Sequence[float], *, seed: int, stratify: str | None = None) -> DrawnParts:
    """Parts of `shares` of the rows, exact within one row, also within every value of the column `stratify`.

    Cost: with `stratify` a query that counts its values and two streams of that column; else nothing is read.
    """
    if stratify is None:
        counts, values = np.array([len(table)]), None
    else:
        values, counts = counted(table, stratify)
    targets = _targets(counts, np.asarray(shares, np.float64))
    ranks = np.cumsum(targets, axis=1)[:, :-1]
    borders = _borders(table, stratify, values, counts, ranks, seed)
    return DrawnParts(seed, borders, targets.sum(axis=0), stratify, values)


def group_parts(table: Table, column: str, shares: Sequence[float], *, seed: int) -> ValueParts:
    """Parts of about `shares` of the rows that share no value of `column`: the largest groups first, each to who lacks most.

    With equal shares groups are given out in the order of their sizes; `seed` decides among equals.
    """
    values, counts = counted(table, column)
    if len(values) < len(shares):
        raise OptionError(
            "groups", column, f"a column with at least {len(shares)} different values; it has {len(values)}"
        )
    order = np.lexsort((random_numbers(seed, 0, len(counts)), -counts))
    wanted = np.asarray(shares) * counts.sum()
    held = np.zeros(len(shares))
    parts = np.zeros(len(counts), np.uint16)
    for place in order.tolist():
        part = int(np.argmax((wanted - held) / wanted))
        parts[place] = part
        held[part] += counts[place]
    return ValueParts(column, values, parts, held.astype(np.int64))


def ordered_parts(table: Table, column: str, ranks: Sequence[int]) -> OrderedParts:
    """Parts in the order of `column` that begin with the rows of the given `ranks`; equal values are in one part, the later.

    One query where the rows lie, which sorts the column.
    """
    table.require([column])
    value = exp.column(column, quoted=True)
    nulls = table.select(
        exp.select(exp.Count(this=exp.Star()).as_("rows"), exp.Count(this=value).as_("known")).from_("this")
    ).to_pylist()[0]
    if nulls["known"] < nulls["rows"]:
        raise NullValueError(column, nulls["rows"] - nulls["known"], nulls["rows"], "a time for every row")
    number = exp.Window(this=exp.RowNumber(), order=exp.Order(expressions=[exp.Ordered(this=value.copy())]))
    numbered = exp.select(value.copy().as_("v"), number.as_("n")).from_("this")
    picked = exp.select("v").from_(numbered.subquery("s")).where(exp.column("n").isin(*(rank + 1 for rank in ranks)))
    borders = table.select(picked.order_by("v")).column("v").combine_chunks()
    if len(pc.unique(borders)) < len(ranks):
        raise OptionError(
            "time", column, f"a column with more different values: {len(ranks) + 1} parts cannot be told apart"
        )
    below = [
        exp.Sum(this=_one_if(exp.LT(this=value.copy(), expression=_literal(b)))).as_(f"b{i}")
        for i, b in enumerate(borders)
    ]
    row = table.select(exp.select(*below).from_("this")).to_pylist()[0]
    ends = [*(int(row[f"b{i}"] or 0) for i in range(len(borders))), nulls["rows"]]
    return OrderedParts(column, borders, np.diff([0, *ends]))


def counted(table: Table, column: str) -> tuple[pa.Array, Array]:
    """The different values of a column in their order, NULL last, and the rows of each. One query."""
    table.require([column])
    value = exp.column(column, quoted=True)
    query = exp.select(value.as_("v"), exp.Count(this=exp.Star()).as_("n")).from_("this").group_by(value.copy())
    found = table.select(query.limit(MAX_VALUES + 1))
    if found.num_rows > MAX_VALUES:
        raise ColumnTypeError(f"Column {column!r} has more than {MAX_VALUES:,} different values; take a coarser one.")
    found = found.sort_by([("v", "ascending")])
    return _decoded(found.column("v").combine_chunks()), np.asarray(found.column("n").to_pylist(), np.int64)


def places_in(values: pa.Array, known: pa.Array, column: str) -> Array:
    """The place of every value among the `known` ones, NULL included."""
    coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode("encode")
    places = pc.index_in(_decoded(coded.dictionary).cast(known.type), value_set=known)
    if places.null_count:
        raise TableChangedError(f"Column {column!r} has values that were not there when the table was parted.")
    return np.asarray(_numpy(places).astype(np.int64)[_numpy(coded.indices)])


def _numpy(numbers: pa.Array) -> Array:
    # not Array.to_numpy: that imports pandas wherever it is installed, which costs half a second
    found: Array = np.from_dlpack(numbers) if len(numbers) else np.zeros(0, np.int64)
    return found


def random_numbers(seed: int, start: int, count: int) -> NDArray[np.uint64]:
    """Uniform 64-bit numbers for rows ``start`` to ``start + count``: splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    return random_numbers_of(seed, np.arange(start, start + count, dtype=np.uint64))


def random_numbers_of(seed: int, numbers: Array) -> NDArray[np.uint64]:
    """`random_numbers` of the rows with the given numbers, of any shape."""
    with np.errstate(over="ignore"):
        z = np.array(numbers, np.uint64)
        shifted = np.empty_like(z)
        z += np.uint64(seed % 2**31) * np.uint64(0xD1342543DE82EF95) + np.uint64(1)
        z *= np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z ^= np.right_shift(z, np.uint64(shift), out=shifted)
            z *= np.uint64(factor)
        z ^= np.right_shift(z, np.uint64(31), out=shifted)
        return z


def _decoded(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _targets(counts: Array, shares: Array) -> Array:
    """Rows ``(values, parts)``, within one of the share of each value; what is left over goes to the parts in turn."""
    exact = counts[:, None] * (shares / shares.sum())
    targets: Array = np.floor(exact + 1e-9).astype(np.int64)
    owed = np.zeros(len(shares))  # to each part, by the values before
    for value in range(len(counts)):
        owed += exact[value] - targets[value]
        left = int(counts[value] - targets[value].sum())
        first = np.argsort(-owed, kind="stable")[:left]
        targets[value, first] += 1
        owed[first] -= 1
    return targets


def _borders(
    table: Table, column: str | None, values: pa.Array | None, counts: Array, ranks: Array, seed: int
) -> Array:
    """The random numbers of the given ranks within each value, by a histogram and a second look at the bins they fall into."""
    strata = len(counts)
    bits = max(8, _BITS - (strata - 1).bit_length())
    bins, shift = 1 << bits, np.uint64(64 - bits)
    histogram = np.zeros(strata * bins, np.int64)
    for numbers, codes in _stream(table, column, values, seed):
        histogram += np.bincount(_bins(numbers, codes, shift, bins), minlength=strata * bins)
    upto = np.cumsum(histogram.reshape(strata, bins), axis=1)
    if not np.array_equal(upto[:, -1], counts):
        raise TableChangedError(f"Table {table.name!r} changed while it was being parted; run again.")
    places = np.stack([np.searchsorted(row, rank, side="right") for row, rank in zip(upto, ranks, strict=True)])
    wanted = np.zeros((strata, bins), bool)
    for value, found in enumerate(places):
        wanted[value, found[found < bins]] = True
    held: dict[tuple[int, int], list[Any]] = {}
    for numbers, codes in _stream(table, column, values, seed):
        flat = _bins(numbers, codes, shift, bins)
        for at in np.flatnonzero(wanted.reshape(-1)[flat]).tolist():
            held.setdefault(divmod(int(flat[at]), bins), []).append(numbers[at])
    borders = np.full(ranks.shape, np.iinfo(np.uint64).max, np.uint64)
    for value in range(strata):
        for part, rank in enumerate(ranks[value].tolist()):
            bin_ = int(places[value, part])
            if bin_ < bins:
                inside = np.sort(np.array(held[value, bin_], np.uint64))
                borders[value, part] = inside[rank - (int(upto[value, bin_]) - len(inside))]
    return borders


def _bins(numbers: Array, codes: Array | None, shift: np.uint64, bins: int) -> Array:
    """The bin of every number in the histogram of its stratum, counted through all of them."""
    place = (numbers >> shift).view(np.int64)
    return place if codes is None else codes * bins + place


def _stream(table: Table, column: str | None, values: pa.Array | None, seed: int) -> Any:
    """Random numbers and strata of all rows, piece by piece."""
    if column is None:
        rows = len(table)
        for begin in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - begin)
            yield random_numbers(seed, begin, count), None
        return
    first = 0
    for batch in table.read([column]):
        yield random_numbers(seed, first, batch.num_rows), places_in(batch.column(0), values, column)
        first += batch.num_rows


def _one_if(condition: exp.Expression) -> exp.Expression:
    return exp.Case(ifs=[exp.If(this=condition, true=exp.Literal.number(1))], default=exp.Literal.number(0))


def _literal(value: pa.Scalar) -> exp.Expression:
    plain = value.as_py()
    if isinstance(plain, (int, float)) and not isinstance(plain, bool):
        return exp.convert(plain)
    type_ = (
        "DATE" if pa.types.is_date(value.type) else "TIMESTAMPTZ" if getattr(value.type, "tz", None) else "TIMESTAMP"
    )
    return exp.Literal.string(plain) if isinstance(plain, str) else exp.cast(exp.Literal.string(str(plain)), type_)
