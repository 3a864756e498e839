"""From one kind of value to another."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.interpreter.lazy import Lazy, is_matrix_value, settled
from braidwater.dml.interpreter.scalars import to_integer
from braidwater.dml.values import Frame, ListValue, dense, is_matrix
from braidwater.errors import DMLTypeError


def scalar_of(caller: Caller, value: Any) -> Any:
    """The one number or string in a value, computed."""
    value = _single(value)
    if isinstance(value, Frame):
        if value.shape != (1, 1):
            raise DMLTypeError(
                f"{caller.name} needs one cell, and this is a {value.shape[0]} x {value.shape[1]} frame."
            )
        cell = value.columns[0][0]
        return cell.item() if isinstance(cell, np.generic) else cell
    return caller.force(caller.node("as.scalar", value) if is_matrix_value(value) else value)


def _single(value: Any) -> Any:
    if isinstance(value, ListValue):
        if len(value) != 1:
            raise DMLTypeError(
                f"The list has {len(value)} items, and one is needed.", hint='Take one out: L[1] or L["name"].'
            )
        value = value.items[0]
    return settled(value)


@builtin(
    "as.scalar(X: value)",
    "The number in a 1 x 1 matrix, the cell of a 1 x 1 frame, the item of a list of one.",
    "castAsScalar",
)
def as_scalar(caller: Caller, X: Any) -> Any:
    value = _single(X)
    if is_matrix(value) and value.shape == (1, 1):
        return float(dense(value)[0, 0])
    if is_matrix_value(value):
        return caller.node("as.scalar", value)
    return scalar_of(caller, value)


@builtin("as.matrix(X: value)", "A number as a 1 x 1 matrix, a frame of numbers or a list of numbers as a matrix.")
def as_matrix(caller: Caller, X: Any) -> Any:
    if isinstance(X, ListValue) and len(X) != 1:
        return np.array([[float(scalar_of(caller, item))] for item in X.items]).reshape(-1, 1)
    value = _single(X)
    if isinstance(value, Frame):
        return value.to_matrix()
    if is_matrix_value(value):
        return value
    if isinstance(value, str):
        raise DMLTypeError(f"The string {value!r} is no number.")
    return caller.node("as.matrix", value)


@builtin("as.double(x: value)", "A double: of a number, a truth value, a string, a 1 x 1 matrix.")
def as_double(caller: Caller, x: Any) -> Any:
    if isinstance(x, Lazy) and not x.is_matrix:
        return x
    found = scalar_of(caller, x)
    try:
        return float(found)
    except (TypeError, ValueError):
        raise DMLTypeError(f"{found!r} is no number.") from None


@builtin("as.integer(x: value)", "An integer: cut towards zero.")
def as_integer(caller: Caller, x: Any) -> int:
    found = scalar_of(caller, x)
    try:
        return int(found) if isinstance(found, int) else to_integer(float(found))
    except (TypeError, ValueError):
        raise DMLTypeError(f"{found!r} is no number.") from None


@builtin(
    "as.logical(x: value)", "TRUE or FALSE: of a number (0 is FALSE), or of the strings TRUE and FALSE.", "as.boolean"
)
def as_logical(caller: Caller, x: Any) -> bool:
    found = scalar_of(caller, x)
    if isinstance(found, str):
        if found.upper() not in ("TRUE", "FALSE"):
            raise DMLTypeError(f"{found!r} is neither TRUE nor FALSE.")
        return found.upper() == "TRUE"
    return bool(found)


@builtin("as.frame(X: value)", "A frame: of a matrix (columns of doubles), a number or string (one cell), a list.")
def as_frame(caller: Caller, X: Any) -> Frame:
    if isinstance(X, ListValue) and len(X) != 1:
        return Frame.of([[scalar_of(caller, item) for item in X.items]])
    value = _single(X)
    if isinstance(value, Frame):
        return value
    value = caller.gathered(value)
    if is_matrix(value):
        return Frame.of(list(dense(value).T.copy()))
    return Frame.of([[value]], types=["string"] if isinstance(value, str) else None)


@builtin(
    "as.list(X: value)",
    "A list: of a matrix with one row or column (its numbers), a frame (its columns), or an item of a list.",
)
def as_list(caller: Caller, X: Any) -> ListValue:
    if isinstance(X, ListValue):
        inner = settled(X.items[0]) if len(X) == 1 else None
        return inner if isinstance(inner, ListValue) else X
    if isinstance(X, Frame):
        return ListValue([X.take(slice(None), [place]) for place in range(len(X.names))], X.names)
    if is_matrix_value(X):
        return ListValue([float(cell) for cell in caller.array(X).ravel()])
    return ListValue([X])


def integers_of(caller: Caller, value: ListValue) -> list[int]:
    """The items of a list as whole numbers."""
    return [as_integer(caller, settled(item)) for item in value.items]
