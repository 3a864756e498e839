"""Sizes and kinds of values."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.interpreter.lazy import is_matrix_value
from braidwater.dml.values import Frame, ListValue, count_nonzero, kind_of, with_article
from braidwater.errors import DMLTypeError


def _shape(caller: Caller, value: Any) -> tuple[int, int]:
    if isinstance(value, Frame):
        return value.shape
    if is_matrix_value(value):
        return caller.shape(value)
    raise DMLTypeError(f"{caller.name} needs a matrix or frame, and got {with_article(kind_of(caller.force(value)))}.")


@builtin("nrow(X: value)", "Rows of a matrix or frame. Known without computing it, mostly.")
def nrow(caller: Caller, X: Any) -> int:
    known = caller.interpreter.block.facts_of(X)[0] if is_matrix_value(X) else None
    return _shape(caller, X)[0] if known is None else known


@builtin("ncol(X: value)", "Columns of a matrix or frame.")
def ncol(caller: Caller, X: Any) -> int:
    known = caller.interpreter.block.facts_of(X)[1] if is_matrix_value(X) else None
    return _shape(caller, X)[1] if known is None else known


@builtin("length(X: value)", "Cells of a matrix or frame, items of a list, characters of a string.")
def length(caller: Caller, X: Any) -> int:
    if isinstance(X, ListValue | str):
        return len(X)
    rows, cols = _shape(caller, X)
    return rows * cols


@builtin("nnz(X: matrix)", "Cells that are not zero.")
def nnz(caller: Caller, X: Any) -> int:
    return count_nonzero(caller.force(X))


@builtin(
    "countDistinct(X: matrix, dir: string = 'rc')",
    "Distinct values: of all cells, of each row (r), of each column (c).",
    "countDistinctApprox",
)
def count_distinct(caller: Caller, X: Any, dir: str) -> Any:
    array = caller.array(X)
    if dir == "rc":
        return len(np.unique(array))
    lines = array if dir == "r" else array.T
    counts = np.array([float(len(np.unique(line))) for line in lines])
    return counts.reshape((-1, 1) if dir == "r" else (1, -1))


@builtin("rowCountDistinct(X: matrix)", "Distinct values of each row, as a column.", "rowCountDistinctApprox")
def row_count_distinct(caller: Caller, X: Any) -> Any:
    return count_distinct(caller, X, "r")


@builtin("colCountDistinct(X: matrix)", "Distinct values of each column, as a row.", "colCountDistinctApprox")
def col_count_distinct(caller: Caller, X: Any) -> Any:
    return count_distinct(caller, X, "c")


@builtin("exists(name: value)", "Whether a variable of this name (a string), or the value given, is there.")
def exists(caller: Caller, name: Any) -> bool:
    return name in caller.interpreter.scopes[-1].variables if isinstance(name, str) else True


@builtin("contains(target: value, pattern: scalar)", "Whether a value is among the cells of a matrix, frame or list.")
def contains(caller: Caller, target: Any, pattern: Any) -> bool:
    if isinstance(target, Frame):
        return any(str(cell) == str(pattern) for column in target.columns for cell in column.tolist())
    if isinstance(target, ListValue):
        return any(caller.force(item) == pattern for item in target.items if not is_matrix_value(item))
    array, wanted = caller.array(target), float(pattern)
    return bool(np.isnan(array).any() if wanted != wanted else (array == wanted).any())


@builtin("typeof(X: value)", "The kind of a value: matrix, frame, list, string, boolean, integer or double.")
def typeof(caller: Caller, X: Any) -> str:
    return "matrix" if is_matrix_value(X) else kind_of(caller.force(X))
