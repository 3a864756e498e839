"""Columns of Arrow as arrays ``(rows, *shape)``, and arrays as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from braidwater.blocks.arrow import numpy_of
from braidwater.errors import ColumnTypeError, DataError

Array = NDArray[Any]
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def is_list(type: pa.DataType) -> bool:
    return any(known(type) for known in _LISTS)


def inner_type(type: pa.DataType) -> tuple[pa.DataType, int]:
    """The type of the numbers inside lists of lists, and how deep they lie."""
    inner, rank = type, 0
    while is_list(inner):
        inner, rank = inner.value_type, rank + 1
    return inner, rank


def dtype_of(type: pa.DataType) -> np.dtype[Any] | None:
    """The numpy type of a column's numbers; `object` for text and bytes, None for what has no arrays."""
    inner, rank = inner_type(type)
    if pa.types.is_boolean(inner):
        return np.dtype(bool)
    if pa.types.is_integer(inner) or pa.types.is_floating(inner):
        numbers: np.dtype[Any] = np.dtype(inner.to_pandas_dtype())
        return numbers
    plain = any(known(inner) for known in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))
    return np.dtype(object) if plain and rank == 0 else None


def block_array(values: pa.Array, column: str) -> Array:
    """All rows as one array ``(rows, *shape)``; rows of different lengths are refused."""
    refuse_nulls(values, column)
    shape: list[int] = []
    while is_list(values.type):
        lengths = numpy_of(pc.list_value_length(values))
        most = int(lengths[0]) if len(lengths) else 0
        if (lengths != most).any():
            row = int(np.argmax(lengths != most))
            raise ColumnTypeError(
                f"Column {column!r} holds lists of different lengths ({most} and {lengths[row]}, first at row {row} of a block), "
                "which make no array. Use map_rows, which takes a row at a time, or pad them in a SELECT."
            )
        shape.append(most)
        values = values.flatten()
        refuse_nulls(values, column)
    flat = _flat(values)
    rows = -1 if len(flat) or not shape else 0
    return flat.reshape(rows, *shape) if shape else flat


def cells(values: pa.Array, column: str) -> list[Array]:
    """Every row as an array of its own, of whatever shape."""
    refuse_nulls(values, column)
    if not is_list(values.type):
        return list(_flat(values))
    dtype = dtype_of(values.type)
    found = []
    for row in values:
        try:
            found.append(np.array(row.as_py(), dtype))
        except (ValueError, TypeError) as error:
            raise ColumnTypeError(f"Column {column!r} holds a list that is no array: {row}.") from error
    return found


def refuse_nulls(values: pa.Array, column: str) -> None:
    if values.null_count:
        raise DataError(
            f"Column {column!r} has {values.null_count} NULL{'s' * (values.null_count != 1)} in a block of {len(values)} rows, "
            "which arrays cannot hold. Leave the rows out or fill them with a SELECT (COALESCE)."
        )


def column_of(array: Array, type: pa.DataType) -> pa.Array:
    """An array ``(rows, *shape)`` as a column of `type`."""
    if not is_list(type):
        return pa.array(array, type)
    return _lists(np.ascontiguousarray(array), type)


def _lists(array: Array, type: pa.DataType) -> pa.Array:
    inner = array.reshape(-1, *array.shape[2:])
    values = _lists(inner, type.value_type) if is_list(type.value_type) else pa.array(inner, type.value_type)
    if pa.types.is_fixed_size_list(type):
        return pa.FixedSizeListArray.from_arrays(values, type.list_size)
    offsets = np.arange(len(array) + 1, dtype=np.int32) * array.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def column_of_cells(values: Sequence[Any], type: pa.DataType) -> pa.Array:
    """Arrays of one rank as a column of lists."""
    return pa.array([np.asarray(value).tolist() for value in values], type)


def arrow_type(array: Array, *, ragged: bool = False) -> pa.DataType:
    """The column type of an array ``(rows, *shape)``: lists of a fixed size, or (`ragged`) of any."""
    if array.dtype == object or array.dtype.kind in "US":
        first = next(iter(array.ravel()), "")
        return pa.binary() if isinstance(first, bytes) else pa.string()
    found = pa.from_numpy_dtype(array.dtype)
    for size in reversed(array.shape[1:]):
        found = pa.list_(found) if ragged else pa.list_(found, size)
    return found


def _flat(values: pa.Array) -> Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_boolean(values.type):
        return numpy_of(values).astype(bool)
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return numpy_of(values)
    found = np.empty(len(values), object)
    found[:] = values.to_pylist()
    return found
