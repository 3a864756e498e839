"""Which group each row is in: the different values of some columns as codes, stored in blocks beside features and label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from braidwater.blocks.arrow import numpy_of
from braidwater.blocks.base import Array, BlockColumn, BlockSchema
from braidwater.encoding.categorical import code_type
from braidwater.encoding.encoding import FittedEncoding
from braidwater.errors import ColumnNotFoundError, ColumnTypeError, TableChangedError
from braidwater.tables.base import Table

GROUP = "__group__"  # the block column of the codes
MAX_GROUPS = 1_000_000
_TABLE_SIZE = 1 << 20  # integers that span no more are looked up in a table: a tenth of the time of a dictionary

Key = tuple[Any, ...]


@dataclass(frozen=True)
class GroupKeys:
    """The different values of `columns`, in their order, NULLs last; a NULL is a value like any other, as in GROUP BY.

    `types` are the Arrow types of the columns as text; integers, truth values and text can be keys.

    >>> keys = GroupKeys(("country",), (("DE",), ("FR",), (None,)), ("string",))
    >>> keys.codes(pa.record_batch({"country": ["FR", None, "DE", "XX"]})).tolist()
    [1, 2, 0, 3]
    """

    columns: tuple[str, ...]
    keys: tuple[Key, ...]
    types: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def codes(self, batch: pa.RecordBatch) -> Array:
        """The place in `keys` of every row ``(rows,)``; ``len(keys)`` for a group that is not among them."""
        found = []
        for number, column in enumerate(self.columns):
            place = batch.schema.get_field_index(column)
            if place < 0:
                raise ColumnNotFoundError("the rows", column, batch.schema.names)
            found.append(self._column_codes(number, batch.column(place)))
        if len(found) == 1:
            return self._single[found[0]]
        combined = found[0]
        for values, codes in zip(self._values[1:], found[1:], strict=True):
            combined = combined * (len(values) + 2) + codes
        places = np.minimum(np.searchsorted(self._combined, combined), len(self.keys) - 1)
        return np.where(self._combined[places] == combined, self._order[places], len(self.keys))

    def place(self, key: Any) -> int:
        """The code of a key: a value, or a tuple of values, one a column."""
        wanted = key if isinstance(key, tuple) else (key,)
        try:
            return self._places[wanted]
        except KeyError:
            some = ", ".join(repr(k[0] if len(k) == 1 else k) for k in self.keys[:5])
            more = f" and {len(self.keys) - 5:,} more" if len(self.keys) > 5 else ""
            raise KeyError(f"There is no group {key!r}. There are {some}{more}.") from None

    def column(self, number: int) -> pa.Array:
        """The values of a column of the keys, one a group."""
        values = [key[number] for key in self.keys]
        type_ = pa.type_for_alias(self.types[number])
        return pa.array(values, type_)

    @cached_property
    def _places(self) -> dict[Key, int]:
        return {key: code for code, key in enumerate(self.keys)}

    @cached_property
    def _values(self) -> list[list[Any]]:
        """The different values of each column without NULL, in their order."""
        return [
            sorted({key[number] for key in self.keys if key[number] is not None}) for number in range(len(self.columns))
        ]

    @cached_property
    def _raw(self) -> Array:
        """The combined code of every key."""
        raw = np.zeros(len(self.keys), np.int64)
        for number, values in enumerate(self._values):
            places = {value: place for place, value in enumerate(values)} | {None: len(values)}
            raw = raw * (len(values) + 2) + np.array([places[key[number]] for key in self.keys], np.int64)
        return raw

    @cached_property
    def _order(self) -> Array:
        return np.argsort(self._raw, kind="stable")

    @cached_property
    def _combined(self) -> Array:
        return self._raw[self._order]

    @cached_property
    def _single(self) -> Array:
        table = np.full(len(self._values[0]) + 2, len(self.keys), np.int64)
        table[self._raw] = np.arange(len(self.keys))
        return table

    def _column_codes(self, number: int, values: pa.Array) -> Array:
        """Places in the values of a column: their number stands for NULL, one more for a stranger."""
        known = self._values[number]
        if pa.types.is_boolean(values.type):
            values = pc.cast(values, pa.uint8())
        if pa.types.is_integer(values.type) and not values.null_count and self._tables[number] is not None:
            low, table = self._tables[number]
            numbers = numpy_of(values)
            if len(numbers) and low <= numbers.min() and numbers.max() < low + len(table):
                found_at: Array = table[np.subtract(numbers, low, dtype=np.int64, casting="unsafe")]
                return found_at
            shifted = numbers.astype(np.int64) - low
            inside = (shifted >= 0) & (shifted < len(table))
            return np.where(inside, table[shifted * inside], len(known) + 1)
        coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        if not known:
            places = np.full(len(coded.dictionary), 1, np.int64)
        else:
            dictionary = pa.array(known)
            found = pc.index_in(coded.dictionary.cast(dictionary.type), value_set=dictionary)
            places = numpy_of(pc.fill_null(found, len(known) + 1)).astype(np.int64)
        indices = numpy_of(pc.fill_null(coded.indices, len(places)))
        return np.append(places, len(known))[indices]

    @cached_property
    def _tables(self) -> list[Any]:
        """For columns of integers close to each other the lowest, and the places of it and those above."""
        found: list[Any] = []
        for values in self._values:
            numbers = [int(v) for v in values] if values and isinstance(values[0], int) else []
            if not numbers or numbers[-1] - numbers[0] >= _TABLE_SIZE:
                found.append(None)
                continue
            table = np.full(numbers[-1] - numbers[0] + 1, len(numbers) + 1, np.int64)
            table[np.array(numbers) - numbers[0]] = np.arange(len(numbers))
            found.append((numbers[0], table))
        return found

    def to_json(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "keys": [list(key) for key in self.keys], "types": list(self.types)}

    @staticmethod
    def from_json(document: dict[str, Any]) -> GroupKeys:
        keys = tuple(tuple(key) for key in document["keys"])
        return GroupKeys(tuple(document["columns"]), keys, tuple(document["types"]))


@dataclass(frozen=True)
class GroupedEncoding:
    """A fitted encoding that also stores the group of every row, in the column ``__group__``.

    With `classes` ``(groups, classes)`` the class codes of the label are changed within each group (-1 for what it does not
    have): a group's own classes count from 0. With `gathered` the rows of a batch are ordered by group, so that those of a
    group lie together.
    """

    encoding: FittedEncoding
    keys: GroupKeys
    classes: Array | None = None
    gathered: bool = False

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.encoding.columns, *self.keys.columns)))

    @cached_property
    def block_schema(self) -> BlockSchema:
        return BlockSchema.ordered([*self.encoding.block_schema.columns, BlockColumn(GROUP, code_type(len(self.keys)))])

    @cached_property
    def key(self) -> str:
        facts = [self.encoding.key, self.keys.to_json(), self.gathered]
        facts.append(None if self.classes is None else self.classes.tolist())
        return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()

    def encode(self, batch: pa.RecordBatch) -> dict[str, Array]:
        arrays, kept = self.encoding._encode(batch)
        codes = self.keys.codes(batch)
        codes = codes if kept is None else codes[kept]
        if codes.max(initial=0) >= len(self.keys):
            raise TableChangedError(
                f"The rows have a group of {', '.join(self.keys.columns)} that was not there before."
            )
        if self.classes is not None and self.encoding.label is not None:
            label = self.encoding.label.column
            own = self.classes[codes, arrays[label]]
            arrays[label] = own.astype(arrays[label].dtype)
        arrays[GROUP] = codes.astype(self.block_schema._places[GROUP][1].dtype)
        if not self.gathered:
            return arrays
        order = np.argsort(arrays[GROUP], kind="stable")  # a radix sort for codes of 16 bits
        return {name: values[order] for name, values in arrays.items()}


@dataclass(frozen=True)
class Groups:
    """The groups of a table: their keys, rows ``(groups,)``, and rows by class ``(groups, classes)`` of a label."""

    keys: GroupKeys
    rows: Array
    classes: Array | None = None


def find_groups(table: Table, by: Sequence[str], label: str | None = None, classes: Sequence[Any] = ()) -> Groups:
    """The groups of `table` by the columns `by`, counted in one query where the rows lie; by class too where a label is named.

    Raises `ColumnNotFoundError`, `ColumnTypeError` for a column that is no key, or too many groups.
    """
    table.require(list(by))
    types = tuple(_key_type(table, column) for column in by)
    named = [*by, label] if label is not None else list(by)
    columns = [exp.column(name, quoted=True) for name in named]
    query = exp.select(*(c.as_(f"k{i}") for i, c in enumerate(columns)), exp.Count(this=exp.Star()).as_("rows"))
    query = query.from_("this").group_by(*(c.copy() for c in columns))
    limit = MAX_GROUPS * max(len(classes), 1)
    found = table.select(query.limit(limit + 1))
    if found.num_rows > limit:
        raise ColumnTypeError(
            f"There are more than {MAX_GROUPS:,} groups by {', '.join(by)}; group by something coarser."
        )
    columns_found = [found.column(f"k{i}").combine_chunks() for i in range(len(named))]
    counts = numpy_of(found.column("rows").combine_chunks()).astype(np.int64)
    codes, first = _different(columns_found[: len(by)])
    keys = tuple(zip(*(column.take(pa.array(first)).to_pylist() for column in columns_found[: len(by)]), strict=True))
    grouped = GroupKeys(tuple(by), keys, types)
    total = np.bincount(codes, weights=counts, minlength=len(keys)).astype(np.int64)
    if label is None:
        return Groups(grouped, total)
    number = {value: place for place, value in enumerate(classes)}
    labels = columns_found[-1].dictionary_encode()
    known = np.array([number.get(value, -1) for value in labels.dictionary.to_pylist()] + [number.get(None, -1)])
    place = known[numpy_of(pc.fill_null(labels.indices, len(known) - 1))]
    by_class = np.zeros((len(keys), len(classes)), np.int64)
    np.add.at(by_class, (codes[place >= 0], place[place >= 0]), counts[place >= 0])
    return Groups(grouped, total, by_class)


def _different(columns: Sequence[pa.Array]) -> tuple[Array, Array]:
    """The place of each row of `columns` among the different rows in their order, NULLs last, and a row for each place."""
    ranks = [_ranks(column) for column in columns]
    order = np.lexsort(ranks[::-1])
    is_new = np.zeros(len(order), bool)
    is_new[:1] = True
    for rank in ranks:
        is_new[1:] |= rank[order[1:]] != rank[order[:-1]]
    codes = np.empty(len(order), np.int64)
    codes[order] = np.cumsum(is_new) - 1
    return codes, order[is_new]


def _ranks(column: pa.Array) -> Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    return numpy_of(pc.rank(column, tiebreaker="dense"))  # NULLs last


def _key_type(table: Table, column: str) -> str:
    type_ = table.schema.field(column).type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        type_ = pa.string()
    if not (pa.types.is_integer(type_) or pa.types.is_boolean(type_) or pa.types.is_string(type_)):
        raise ColumnTypeError(
            f"Column {column!r} is {type_}; groups are by integers, truth values or text. Cast it in a SELECT."
        )
    return str(type_)
