"""Python's values as those of a script, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.scipy_on_demand import sparse
from braidwater.dml.values import Frame, ListValue, is_matrix, is_sparse, is_streamed
from braidwater.errors import DMLTypeError

if TYPE_CHECKING:  # slow to import, and many scripts have no table
    import pyarrow as pa

    from braidwater.tables import Table

LARGEST_SHARE = 0.25  # of the memory option, for one table: a script holds intermediate results beside it
LARGEST_SENT = 1 << 20  # bytes of a table that lies elsewhere: bringing it costs no more than a scan of it there


def from_python(value: Any, name: str, context: Context) -> Any:
    """A value of a script. Arrays of doubles are not copied: scripts never change what others hold.

    Raises DMLTypeError for what is no value of the language.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float | int | bool | str):
        return value
    if isinstance(value, np.ndarray) or is_sparse(value):
        return _matrix(value, name)
    if isinstance(value, Frame | ListValue) or is_streamed(value):
        return value
    if type(value).__module__.partition(".")[0] == "torch":
        return _matrix(value.detach().cpu().numpy(), name)
    if isinstance(value, Mapping):
        return ListValue(
            [from_python(item, f"{name}[{key!r}]", context) for key, item in value.items()], [str(key) for key in value]
        )
    if isinstance(value, list | tuple):
        return ListValue([from_python(item, f"{name}[{place}]", context) for place, item in enumerate(value)])
    from braidwater.tables import table

    return from_table(table(value), name, context)


def _matrix(value: Any, name: str) -> Any:
    if value.dtype.kind not in "fiub":
        if value.ndim == 1 and value.dtype.kind in "OU":
            return Frame.of([value])
        raise DMLTypeError(f"The input {name!r} is an array of {value.dtype}, and a matrix holds numbers.")
    if is_sparse(value):
        return sparse.csr_array(value, dtype=np.float64)
    if value.ndim > 2:
        hint = "Tensors are matrices with a row for each image: X.reshape(len(X), -1)."
        raise DMLTypeError(f"The input {name!r} has {value.ndim} dimensions, and a matrix has two.", hint=hint)
    array = np.asarray(value, dtype=np.float64)
    return array.reshape(-1, 1) if array.ndim < 2 else array


def from_table(table: Table, name: str, context: Context) -> Any:
    """A table as a matrix where all its columns are numbers without NULLs, else as a frame.

    A matrix that would take more than a part of the memory option stays where it lies, and is read block by block; where the
    engine has workers elsewhere, so does each that is not small.
    """
    size = 8 * len(table) * len(table.column_names)
    largest = LARGEST_SENT if context.elsewhere else context.memory * LARGEST_SHARE
    if size > largest and all(_is_number(field.type) for field in table.schema):
        from braidwater.dml.runtime.streamed import TableMatrix

        matrix = TableMatrix(table, memory=context.memory, engine=context.engine)
        context.opened.append(matrix)
        if context.explain is not None and context.engine is not None:
            context.explain.note(matrix.where)
        return matrix
    arrow = table.to_arrow()
    if all(_is_number(field.type) for field in arrow.schema) and not any(column.null_count for column in arrow.columns):
        columns = [column.to_numpy(zero_copy_only=False) for column in arrow.columns]
        return (
            np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.float64)
            if columns
            else np.zeros((arrow.num_rows, 0))
        )
    return frame_of_arrow(arrow)


def frame_of_arrow(arrow: pa.Table) -> Frame:
    """Columns of an Arrow table with their types; NULLs are NaN in numbers, missing in strings."""
    columns, types = [], []
    for field, column in zip(arrow.schema, arrow.columns, strict=True):
        kind = _kind(field.type, column.null_count > 0)
        types.append(kind)
        columns.append(
            column.to_numpy(zero_copy_only=False)
            if kind in ("double", "int", "boolean")
            else np.array(column.to_pylist(), dtype=object)
        )
    return Frame.of(columns, arrow.column_names, types)


def _kind(type: pa.DataType, nulls: bool) -> str:
    import pyarrow as pa

    if pa.types.is_boolean(type) and not nulls:
        return "boolean"
    if pa.types.is_integer(type):
        return "double" if nulls else "int"
    return "double" if pa.types.is_floating(type) else "string"


def _is_number(type: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_boolean(type))


def to_python(value: Any) -> Any:
    """Frames as Arrow tables, lists as Python lists (dicts where all items have names); all else as it is."""
    if isinstance(value, Frame):
        import pyarrow as pa

        return pa.table([pa.array(column.tolist()) for column in value.columns], names=value.names)
    if isinstance(value, ListValue):
        items = [to_python(getattr(item, "value", item) if not is_matrix(item) else item) for item in value.items]
        names = [name for name in value.names if name is not None]
        return dict(zip(names, items, strict=True)) if len(names) == len(items) and items else items
    return value.table if is_streamed(value) else value
