"""New columns as a function of others, block by block or row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.block_functions.arrays import arrow_type, column_of, column_of_cells, dtype_of, is_list
from braidwater.block_functions.calls import Arguments, Arrays, bind, outputs
from braidwater.engines import Engine, default_engine
from braidwater.errors import ColumnTypeError, EmptyTableError, UnsupportedError
from braidwater.tables import Table, table
from braidwater.tables.arrow import select_from_stream
from braidwater.tables.base import Partition, TableStatistics
from braidwater.tables.computed import ComputedTable

_LOOK_ROWS = 3  # that a function is tried on, to learn what it gives


def map_blocks(
    function: Callable[..., Any],
    data: Any,
    *,
    trim: bool = False,
    feed: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
    arrays: Arrays = "auto",
    engine: Engine | None = None,
) -> Table:
    """The table with the columns that `function` makes of blocks of rows, computed while it is read.

    An argument of the function is the column of its name (``x``, or ``x_input`` for the column ``x``), the column that
    `feed` names, or one of the `constants`. A column comes as an array ``(rows, *shape)``, as a tensor where the function is
    a torch module, says so by its annotations, or `arrays` is ``"torch"``. It returns a dictionary of arrays with as many rows.
    With `trim` only these columns are left, and the number of rows may be another.

    A block is a batch of at most 65,536 rows, so what a function gives must not depend on how the table is cut, but for
    `trim`. The function is tried on the first three rows: arguments, names, row counts, types and shapes that do not fit are
    errors here, and nothing else runs before the table is read.

    >>> points = pa.table({"x": [[1.0, 2.0], [3.0, 4.0]], "n": [1, 2]})
    >>> map_blocks(lambda x, w: {"y": x @ w}, points, constants={"w": np.array([1.0, 10.0])}).to_arrow()["y"].to_pylist()
    [21.0, 43.0]
    """
    rows = table(data)
    arguments = bind(function, rows, feed=feed, constants=constants, arrays=arrays)
    return _mapped(rows, arguments, _whole_blocks, trim, engine)


def map_rows(
    function: Callable[..., Any],
    data: Any,
    *,
    feed: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
    arrays: Arrays = "auto",
    engine: Engine | None = None,
) -> Table:
    """The table with the columns that `function` makes of each row by itself; lists may differ in length from row to row.

    A call of Python a row: about a microsecond and what the function takes. Use `map_blocks` where lengths are equal.

    >>> ragged = pa.table({"v": [[1.0], [2.0, 3.0]]})
    >>> map_rows(lambda v: {"total": v.sum(), "twice": 2 * v}, ragged).to_arrow().select(["total", "twice"]).to_pydict()
    {'total': [1.0, 5.0], 'twice': [[2.0], [4.0, 6.0]]}
    """
    rows = table(data)
    arguments = bind(function, rows, feed=feed, constants=constants, arrays=arrays, endings=("",))
    return _mapped(rows, arguments, _one_by_one, False, engine)


Give = Callable[[Arguments, pa.RecordBatch, "Sequence[pa.Field] | None"], "tuple[list[pa.Field], list[pa.Array]]"]


def _mapped(rows: Table, arguments: Arguments, give: Give, trim: bool, engine: Engine | None) -> Table:
    fields, _ = give(arguments, _first_rows(rows, arguments), None)
    taken = [field.name for field in fields if field.name in rows.column_names and not trim]
    if taken:
        raise UnsupportedError(
            f"Table {rows.name!r} has a column {taken[0]!r} already. Let the function give it another name, or use trim=True."
        )
    schema = pa.schema(fields if trim else [*rows.schema, *fields])
    step = AddOutputs(arguments, give, tuple(fields), schema, trim)
    names = ", ".join(field.name for field in fields)
    name = names if trim else f"{rows.name} with {names}"
    found = (engine or default_engine()).map_blocks(rows, step, schema, name=name)
    return TrimmedTable(found) if trim and isinstance(found, ComputedTable) else found


def _first_rows(rows: Table, arguments: Arguments) -> pa.RecordBatch:
    """Rows to try the function on; made-up ones where the table has none."""
    found = rows.head(_LOOK_ROWS).combine_chunks().to_batches()
    if found and found[0].num_rows:
        return found[0]
    unknown = [column for column in arguments.columns.values() if is_list(rows.schema.field(column).type)]
    if unknown:
        raise EmptyTableError(
            f"Table {rows.name!r} has no rows, so nobody knows the lengths of the lists in column {unknown[0]!r}."
        )
    return pa.RecordBatch.from_arrays([_zeros(field.type) for field in rows.schema], schema=rows.schema)


def _zeros(type: pa.DataType) -> pa.Array:
    dtype = dtype_of(type)
    if dtype is None or is_list(type):
        return pa.nulls(1, type)
    return pa.array([""] if dtype.hasobject else np.zeros(1, dtype)).cast(type)


@dataclass(frozen=True)
class AddOutputs:
    """What an engine calls with the batches of the table."""

    arguments: Arguments
    give: Give
    fields: tuple[pa.Field, ...]
    schema: pa.Schema
    trim: bool

    @property
    def reads(self) -> tuple[str, ...] | None:
        """The columns that the function takes, where no others are passed on."""
        return tuple(dict.fromkeys(self.arguments.columns.values())) if self.trim else None

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows == 0:
            return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in self.schema], schema=self.schema)
        _, columns = self.give(self.arguments, batch, self.fields)
        lengths = {len(column) for column in columns}
        if len(lengths) > 1 or (not self.trim and lengths != {batch.num_rows}):
            given = ", ".join(f"{f.name} {len(column)}" for f, column in zip(self.fields, columns, strict=True))
            raise ColumnTypeError(
                f"The function was given {batch.num_rows} rows and gave another number: {given}. "
                + ("All columns need as many." if self.trim else "With trim=True it may.")
            )
        kept = [] if self.trim else batch.columns
        return pa.RecordBatch.from_arrays([*kept, *columns], schema=self.schema)


def _whole_blocks(
    arguments: Arguments, batch: pa.RecordBatch, fields: Sequence[pa.Field] | None
) -> tuple[list[pa.Field], list[pa.Array]]:
    found = outputs(arguments.call(arguments.of_block(batch)), arguments.function)
    arrays = {}
    for name, value in found.items():
        array = np.asarray(value)
        if array.ndim == 0:
            raise ColumnTypeError(
                f"The function gave one value for {name!r}, where a block needs an array with a value a row. To reduce blocks "
                "use reduce_blocks."
            )
        arrays[name] = array
    declared = fields or [pa.field(name, arrow_type(array)) for name, array in arrays.items()]
    return list(declared), [_checked(arrays, field) for field in declared]


def _one_by_one(
    arguments: Arguments, batch: pa.RecordBatch, fields: Sequence[pa.Field] | None
) -> tuple[list[pa.Field], list[pa.Array]]:
    answers = [outputs(arguments.call(row), arguments.function) for row in arguments.of_rows(batch)]
    first = {name: np.asarray(value)[None] for name, value in answers[0].items()}
    declared = fields or [pa.field(name, arrow_type(array, ragged=True)) for name, array in first.items()]
    columns = []
    for field in declared:
        values = [_given(answer, field) for answer in answers]
        for value in values:
            _check(value[None], field)
        columns.append(column_of_cells(values, field.type))
    return list(declared), columns


def _given(answer: Mapping[str, Any], field: pa.Field) -> Any:
    if field.name not in answer:
        raise ColumnTypeError(
            f"The function gave no {field.name!r} for some rows, which it gave for the first; it gave {', '.join(answer)}."
        )
    return np.asarray(answer[field.name])


def _checked(arrays: Mapping[str, Any], field: pa.Field) -> pa.Array:
    array = _given(arrays, field)
    _check(array, field)
    return column_of(array, field.type)


def _check(array: Any, field: pa.Field) -> None:
    """The type and shape that the first rows had."""
    found = arrow_type(array, ragged=not _is_fixed(field.type))
    if found != field.type:
        raise ColumnTypeError(
            f"Column {field.name!r} was {_shape(field.type)} a row for the first rows that the function was tried on, and is "
            f"{_shape(found)} now. Give arrays of one type and shape"
            + ("." if not is_list(field.type) else ", or use map_rows.")
        )


def _is_fixed(type: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(type))


def _shape(type: pa.DataType) -> str:
    sizes = []
    inner = type
    while is_list(inner):
        sizes.append(str(inner.list_size) if _is_fixed(inner) else "?")
        inner = inner.value_type
    return f"{inner} [{', '.join(sizes)}]"


class TrimmedTable(Table):
    """What a function made of the blocks of a table, with another number of rows: one stream, computed to be counted."""

    def __init__(self, computed: Table) -> None:
        self.name = computed.name
        self.reader = computed.reader
        self._computed = computed

    @property
    def schema(self) -> pa.Schema:
        return self._computed.schema

    @cached_property
    def _counted(self) -> TableStatistics:
        rows = size = 0
        for batch in self._computed.read():
            rows, size = rows + batch.num_rows, size + batch.nbytes
        return TableStatistics(rows, size)

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        self.require(self.column_names if columns is None else columns)
        return self._counted

    def partitions(self, rows: int) -> list[Partition]:
        return [Partition(0, first_row=0)]

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        self.require(names)
        for whole in self._computed.read():  # blocks as ever: another size could give other rows
            batch = whole.select(names)
            yield from (batch.slice(start, batch_rows) for start in range(0, batch.num_rows, batch_rows))

    def fingerprint(self) -> str | None:
        return None

    def select(self, query: exp.Select) -> pa.Table:
        return select_from_stream(self, query)
