"""What a table's columns are as arrays: the type of their numbers and the shape of a block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from braidwater.aggregates.base import Aggregate
from braidwater.block_functions.arrays import inner_type, is_list
from braidwater.blocks.base import RawBlock
from braidwater.blocks.source import BlockSource
from braidwater.engines import Engine, default_engine
from braidwater.tables import table

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class ColumnShape:
    """A column as an array: the type of its numbers and the shape of a block of it, rows first; None where sizes vary."""

    name: str
    type: str
    shape: Shape
    nulls: int | None = None  # nobody has looked where it is None

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.type} [{sizes}]" + (f", {self.nulls} NULL" if self.nulls else "")


@dataclass(frozen=True)
class TableShapes:
    """The columns of a table as arrays. ``print(shapes)`` shows them."""

    table: str
    columns: tuple[ColumnShape, ...]

    def __getitem__(self, name: str) -> ColumnShape:
        return {column.name: column for column in self.columns}[name]

    def __iter__(self) -> Iterator[ColumnShape]:
        return iter(self.columns)

    def __str__(self) -> str:
        return "\n".join(["root", *(f" |-- {column}" for column in self.columns)])


def schema(data: Any) -> TableShapes:
    """What the types alone say: a list's length is not known, unless its size is fixed. Nothing is read.

    >>> print(schema(pa.table({"x": [1.0, 2.0], "v": [[1, 2], [3, 4]]})))
    root
     |-- x: double [?]
     |-- v: int64 [?, ?]
    """
    rows = table(data)
    return TableShapes(rows.name, tuple(_declared(field) for field in rows.schema))


def analyze(data: Any, *, engine: Engine | None = None) -> TableShapes:
    """What the rows say: one pass over the table. Sizes that differ between rows stay unknown; NULLs are counted.

    >>> print(analyze(pa.table({"x": [1.0, 2.0], "v": [[1, 2], [3, 4]], "w": [[1], [2, 3]]})))
    root
     |-- x: double [?]
     |-- v: int64 [?, 2]
     |-- w: int64 [?, ?]
    """
    rows = table(data)
    declared = tuple(_declared(field) for field in rows.schema)
    with BlockSource(rows) as source:
        found = (engine or default_engine()).aggregate(source, FindShapes(tuple(rows.column_names)))
    columns = []
    for column in declared:
        sizes, nulls = found[column.name]
        shape: Shape = (None, *(sizes if sizes is not None else column.shape[1:]))
        columns.append(ColumnShape(column.name, column.type, shape, nulls))
    return TableShapes(rows.name, tuple(columns))


def print_schema(data: Any) -> None:
    """Print the shapes of a table, or those that `analyze` found."""
    print(data if isinstance(data, TableShapes) else schema(data))


def _declared(field: pa.Field) -> ColumnShape:
    inner, _ = inner_type(field.type)
    sizes: list[int | None] = []
    type_ = field.type
    while is_list(type_):
        sizes.append(type_.list_size if pa.types.is_fixed_size_list(type_) else None)
        type_ = type_.value_type
    return ColumnShape(field.name, str(inner), (None, *sizes))


State = dict[str, tuple[Shape | None, int]]  # the sizes of the cells so far (None: no row yet), and NULLs


class FindShapes(Aggregate[State, State]):
    """The sizes that all lists of a column have in common, at every depth."""

    what = "shapes"

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns

    def initialize(self) -> State:
        return dict.fromkeys(self._columns, (None, 0))

    def transition(self, state: State, block: RawBlock) -> State:
        found: State = {name: (_sizes(block[name]), block[name].null_count) for name in self._columns}
        return self.merge(state, found)

    def merge(self, state: State, other: State) -> State:
        return {
            name: (_common(state[name][0], other[name][0]), state[name][1] + other[name][1]) for name in self._columns
        }

    def final(self, state: State) -> State:
        return state


def _sizes(values: pa.Array) -> Shape | None:
    sizes: list[int | None] = []
    known = len(values) > values.null_count
    while is_list(values.type):
        bounds = pc.min_max(pc.list_value_length(values))
        least, most = bounds["min"].as_py(), bounds["max"].as_py()
        sizes.append(least if least == most else None)
        values = values.flatten()
    return tuple(sizes) if known else None


def _common(one: Shape | None, other: Shape | None) -> Shape | None:
    if one is None or other is None:
        return other if one is None else one
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))
