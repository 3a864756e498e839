"""Blocks or rows reduced to one by a function that is applied again to what it gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from braidwater.aggregates.base import Aggregate
from braidwater.block_functions.arrays import Array, arrow_type, column_of, refuse_nulls
from braidwater.block_functions.calls import Arguments, Arrays, bind, outputs
from braidwater.blocks.base import RawBlock
from braidwater.blocks.source import BlockSource
from braidwater.engines import Engine, default_engine
from braidwater.errors import ColumnTypeError, EmptyTableError, OptionError
from braidwater.tables import Table, table

Cells = dict[str, Array]


def reduce_blocks(
    function: Callable[..., Any],
    data: Any,
    *,
    constants: Mapping[str, Any] | None = None,
    arrays: Arrays = "auto",
    engine: Engine | None = None,
) -> Cells:
    """One value for each column that `function` gives: of every block, then of what it gave for two of them, in their order.

    Its argument ``x_input`` is an array ``(rows, *shape)`` of the column ``x``, and it returns ``{"x": …}`` of ``shape``: a sum,
    a maximum, a product. What it gives for a block has the type and shape of a row, or it could not be applied again. One pass.

    >>> reduce_blocks(lambda x_input: {"x": x_input.max(axis=0)}, pa.table({"x": [[1, 5], [4, 2]]}))
    {'x': array([4, 5])}
    """
    rows = table(data)
    arguments = bind(function, rows, constants=constants, arrays=arrays, endings=("_input",))
    return _reduced(rows, ReduceBlocks(arguments), engine)


def reduce_rows(
    function: Callable[..., Any],
    data: Any,
    *,
    constants: Mapping[str, Any] | None = None,
    arrays: Arrays = "auto",
    engine: Engine | None = None,
) -> Cells:
    """One value for each column that `function` gives, of pairs of rows, in their order, until one is left.

    Its arguments ``x_1`` and ``x_2`` are two values of the column ``x``, or what it gave before. A call of Python a row.

    >>> reduce_rows(lambda x_1, x_2: {"x": x_1 * x_2}, pa.table({"x": [2, 3, 7]}))
    {'x': array(42)}
    """
    rows = table(data)
    arguments = bind(function, rows, constants=constants, arrays=arrays, endings=("_1", "_2"))
    for column in set(arguments.columns.values()):
        if sorted(name for name, of in arguments.columns.items() if of == column) != [f"{column}_1", f"{column}_2"]:
            raise OptionError("function", column, f"one with the arguments {column}_1 and {column}_2")
    return _reduced(rows, ReduceRows(arguments), engine)


def aggregate(
    function: Callable[..., Any],
    data: Any,
    *,
    by: str | Sequence[str],
    constants: Mapping[str, Any] | None = None,
    arrays: Arrays = "auto",
    engine: Engine | None = None,
) -> Table:
    """`reduce_blocks` for each group of rows with the same values of the columns `by`: a table of a row a group, in their order.

    All groups are held in memory. One pass.

    >>> sales = pa.table({"shop": ["b", "a", "b"], "sold": [1, 2, 3]})
    >>> aggregate(lambda sold_input: {"sold": sold_input.sum(axis=0)}, sales, by="shop").to_arrow().to_pydict()
    {'shop': ['a', 'b'], 'sold': [2, 4]}
    """
    rows = table(data)
    keys = (by,) if isinstance(by, str) else tuple(by)
    rows.require(keys)
    arguments = bind(function, rows, constants=constants, arrays=arrays, endings=("_input",))
    groups: dict[tuple[Any, ...], Cells] = _run(
        rows, ReduceGroups(arguments, keys), (*keys, *arguments.columns.values()), engine
    )
    if not groups:
        raise EmptyTableError(f"Table {rows.name!r} has no rows to aggregate.")
    order = sorted(groups, key=lambda key: tuple((value is None, value) for value in key))
    columns = {name: pa.array([key[n] for key in order], rows.schema.field(name).type) for n, name in enumerate(keys)}
    for name in groups[order[0]]:
        values = np.stack([groups[key][name] for key in order])
        columns[name] = column_of(values, arrow_type(values))
    return table(pa.table(columns), name=f"{rows.name} by {', '.join(keys)}")


def _reduced(rows: Table, reduction: _Reduction, engine: Engine | None) -> Cells:
    found: Cells | None = _run(rows, reduction, tuple(reduction.arguments.columns.values()), engine)
    if found is None:
        raise EmptyTableError(f"Table {rows.name!r} has no rows to reduce.")
    return found


def _run(rows: Table, reduction: Aggregate[Any, Any], columns: Sequence[str], engine: Engine | None) -> Any:
    with BlockSource(rows) as source:
        source.columns = list(dict.fromkeys(columns))
        return (engine or default_engine()).aggregate(source, reduction)


class _Reduction(Aggregate[Any, Any]):
    """A function that reduces two to one; the state is what it gave so far, None before the first row."""

    what = "reduce"

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments

    def initialize(self) -> Any:
        return None

    def merge(self, state: Any, other: Any) -> Any:
        if state is None or other is None:
            return other if state is None else state
        return self.pair(state, other)

    def pair(self, one: Cells, other: Cells) -> Cells:
        raise NotImplementedError

    def final(self, state: Any) -> Any:
        return state


class ReduceBlocks(_Reduction):
    """Applied to the rows of a block, then to what it gave for blocks, two at a time."""

    def transition(self, state: Cells | None, block: RawBlock) -> Cells | None:
        return self.merge(state, self.of(block.batch)) if block.rows else state

    def of(self, batch: pa.RecordBatch) -> Cells:
        return self._call(self.arguments.of_block(batch))

    def pair(self, one: Cells, other: Cells) -> Cells:
        columns = self.arguments.columns
        lacking = [column for column in columns.values() if column not in one]
        if lacking:
            raise OptionError(
                "function",
                ", ".join(one),
                f"one that gives a value for every column it takes; it gave none for {lacking[0]}",
            )
        return self._call({name: np.stack([one[column], other[column]]) for name, column in columns.items()})

    def _call(self, arrays: Mapping[str, Array]) -> Cells:
        found = outputs(self.arguments.call(arrays), self.arguments.function)
        for name, column in self.arguments.columns.items():
            if column in found and np.shape(found[column]) != arrays[name].shape[1:]:
                raise ColumnTypeError(
                    f"The function gave {column!r} of shape {np.shape(found[column])}; a row of that column has the shape "
                    f"{arrays[name].shape[1:]}, and so must what stands for many. Reduce along axis 0."
                )
        extra = [name for name in found if name not in self.arguments.columns.values()]
        if extra:
            raise OptionError("function", extra[0], f"one that gives only {', '.join(self.arguments.columns.values())}")
        return {name: np.asarray(value) for name, value in found.items()}


class ReduceRows(_Reduction):
    """Applied to what there is and the next row."""

    def transition(self, state: Cells | None, block: RawBlock) -> Cells | None:
        columns = self.arguments.columns
        for row in self.arguments.of_rows(block.batch):
            cells = {columns[name]: np.asarray(value) for name, value in row.items()}
            state = cells if state is None else self.pair(state, cells)
        return state

    def pair(self, one: Cells, other: Cells) -> Cells:
        arrays = {
            name: (one if name.endswith("_1") else other)[column] for name, column in self.arguments.columns.items()
        }
        found = outputs(self.arguments.call(arrays), self.arguments.function)
        if set(found) != set(one):
            raise OptionError("function", ", ".join(found), f"one that gives exactly {', '.join(one)}")
        return {name: np.asarray(value) for name, value in found.items()}


class ReduceGroups(_Reduction):
    """`ReduceBlocks` for each group; the state is a dictionary by the values of the keys."""

    what = "reduce groups"

    def __init__(self, arguments: Arguments, keys: tuple[str, ...]) -> None:
        super().__init__(arguments)
        self._inner = ReduceBlocks(arguments)
        self._keys = keys

    def initialize(self) -> dict[tuple[Any, ...], Cells]:
        return {}

    def transition(self, state: dict[tuple[Any, ...], Cells], block: RawBlock) -> dict[tuple[Any, ...], Cells]:
        if not block.rows:
            return state
        batch = block.batch
        for column in self.arguments.columns.values():
            refuse_nulls(batch.column(column), column)
        order = pc.sort_indices(batch, [(key, "ascending") for key in self._keys])  # stable: rows stay in their order
        sorted_ = pa.RecordBatch.from_arrays([pc.take(c, order) for c in batch.columns], schema=batch.schema)
        for begin, end in _runs(sorted_, self._keys):
            key = tuple(sorted_.column(name)[begin].as_py() for name in self._keys)
            found = self._inner.of(sorted_.slice(begin, end - begin))
            state[key] = self._inner.merge(state.get(key), found)
        return state

    def merge(
        self, state: dict[tuple[Any, ...], Cells], other: dict[tuple[Any, ...], Cells]
    ) -> dict[tuple[Any, ...], Cells]:
        for key, cells in other.items():
            state[key] = self._inner.merge(state.get(key), cells)
        return state


def _runs(batch: pa.RecordBatch, keys: Sequence[str]) -> list[tuple[int, int]]:
    """Where each run of rows with equal keys begins and ends."""
    new = np.zeros(batch.num_rows, bool)
    new[0] = True
    for key in keys:
        codes = batch.column(key)
        codes = codes if pa.types.is_dictionary(codes.type) else codes.dictionary_encode("encode")
        numbers = np.asarray(codes.indices.to_pylist())
        new[1:] |= numbers[1:] != numbers[:-1]
    begins = np.flatnonzero(new).tolist()
    return list(zip(begins, [*begins[1:], batch.num_rows], strict=True))
