"""Rows in a random order, so many at a time, without holding them all: the database shuffles, and keeps what it has shuffled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.blocks.base import Array
from braidwater.errors import ColumnTypeError, DataError
from braidwater.sql.names import Name
from braidwater.sql.place import Place


@contextmanager
def buffers(place: Place, query: exp.Select, held: Name, size: int, *, shuffle: bool) -> Iterator[Iterator[pa.Table]]:
    """The rows of `query`, `size` at a time, in a random order where `shuffle` says so. `held` names a table that is there
    meanwhile."""
    inner = query.copy().select(exp.Anonymous(this="random", expressions=[]).as_("n_random")) if shuffle else query
    order = {"order": exp.Order(expressions=[exp.Ordered(this=exp.column("n_random"))])} if shuffle else {}
    number = exp.Window(this=exp.RowNumber(), **order).as_("n_row")
    numbered = exp.select("*", number).from_(inner.subquery("rows_in_order"))
    place.create_as(held, numbered)
    try:
        yield _read(place, held, size)
    finally:
        place.run(exp.Drop(tables=[held.table], kind="TABLE", exists=True))


def _read(place: Place, held: Name, size: int) -> Iterator[pa.Table]:
    begin = 0
    row = exp.column("n_row")
    while True:
        above = exp.GT(this=row, expression=exp.Literal.number(begin))
        upto = exp.LTE(this=row.copy(), expression=exp.Literal.number(begin + size))
        found = place.select(exp.select("*").from_(held.table).where(above, upto).order_by(row.copy()))
        if found.num_rows == 0:
            return
        yield found
        begin += size


def as_array(values: pa.ChunkedArray, name: str) -> Array:
    """A column of numbers or of (nested) arrays as one array ``(rows, ...)``; NULLs and uneven lengths are refused."""
    flat = values.combine_chunks()
    shape = [len(flat)]
    while pa.types.is_nested(flat.type):
        if flat.null_count:
            raise DataError(f"Column {name!r} has NULLs. Leave these rows out with a view.")
        lengths = {len(one) for one in flat} if len(flat) <= 1 else set(np.diff(flat.offsets.to_numpy()).tolist())
        if len(lengths) > 1:
            raise DataError(
                f"Column {name!r} has arrays of {min(lengths)} and of {max(lengths)} elements; they must be equal."
            )
        shape.append(int(lengths.pop()) if lengths else 0)
        flat = flat.flatten()
    if flat.null_count:
        raise DataError(f"Column {name!r} has NULLs. Leave these rows out with a view.")
    if not (pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type) or pa.types.is_decimal(flat.type)):
        raise ColumnTypeError(f"Column {name!r} holds {flat.type}, not numbers.")
    if pa.types.is_decimal(flat.type):
        flat = flat.cast(pa.float64())
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(shape)
