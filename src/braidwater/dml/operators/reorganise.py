"""The same cells in other places: joined, reshaped, reversed, sorted, left out, replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidwater.dml.hops.facts import Facts
from braidwater.dml.operators.base import Attributes, differ, of_shape, operator, same_facts
from braidwater.dml.operators.constructors import whole
from braidwater.dml.scipy_on_demand import sparse
from braidwater.dml.values import dense, is_sparse, well_formed
from braidwater.errors import DMLShapeError, DMLValueError


def _total(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else sum(size or 0 for size in sizes)


def _columns_joined(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    for other in inputs[1:]:
        if differ(inputs[0].rows, other.rows):
            raise DMLShapeError(f"cbind needs as many rows, and got {of_shape(inputs[0])} and {of_shape(other)}.")
    return Facts.matrix(inputs[0].rows, _total([each.cols for each in inputs]))


def _rows_joined(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    for other in inputs[1:]:
        if differ(inputs[0].cols, other.cols):
            raise DMLShapeError(f"rbind needs as many columns, and got {of_shape(inputs[0])} and {of_shape(other)}.")
    return Facts.matrix(_total([each.rows for each in inputs]), inputs[0].cols)


@operator("cbind", _columns_joined, "Matrices side by side.")
def cbind(values: Sequence[Any], attributes: Attributes) -> Any:
    _columns_joined([Facts.of(value) for value in values], attributes)
    if all(map(is_sparse, values)):
        return well_formed(sparse.hstack(values, format="csr"))
    return np.hstack([dense(value) for value in values])


@operator("rbind", _rows_joined, "Matrices one below the other.")
def rbind(values: Sequence[Any], attributes: Attributes) -> Any:
    _rows_joined([Facts.of(value) for value in values], attributes)
    if all(map(is_sparse, values)):
        return well_formed(sparse.vstack(values, format="csr"))
    return np.vstack([dense(value) for value in values])


def _reshaped(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    rows, cols = whole(inputs[1]), whole(inputs[2])
    if None not in (rows, cols) and inputs[0].cells is not None and inputs[0].cells != rows * cols:  # type: ignore[operator]
        raise DMLShapeError(
            f"The {inputs[0].cells} cells of a {of_shape(inputs[0])} matrix do not make a {rows} x {cols} one."
        )
    return Facts.matrix(rows, cols, inputs[0].nnz)


@operator("reshape", _reshaped, "The same cells in (X, rows, columns); attribute byrow.")
def reshape(values: Sequence[Any], attributes: Attributes) -> Any:
    matrix, rows, cols = values[0], int(values[1]), int(values[2])
    _reshaped([Facts.of(matrix), Facts.scalar(rows), Facts.scalar(cols)], attributes)
    order = "C" if attributes.get("byrow", True) else "F"
    if is_sparse(matrix):
        return sparse.csr_array(matrix.reshape((rows, cols), order=order))
    return np.array(matrix.reshape((rows, cols), order=order), order="C")


@operator("rev", same_facts, "The rows in reverse order.")
def reverse(values: Sequence[Any], attributes: Attributes) -> Any:
    return values[0][::-1] if not is_sparse(values[0]) else sparse.csr_array(values[0][::-1])


def _rolled_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.matrix(inputs[0].rows, inputs[0].cols)


@operator("roll", _rolled_facts, "The rows moved down by the second input; what falls off comes back at the top.")
def roll(values: Sequence[Any], attributes: Attributes) -> Any:
    return np.roll(dense(values[0]), int(values[1]), axis=0)


def _ordered_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    for column in attributes["by"]:
        if inputs[0].cols is not None and not 1 <= column <= inputs[0].cols:
            raise DMLShapeError(f"There is no column {column} to order a {of_shape(inputs[0])} matrix by.")
    return Facts.matrix(inputs[0].rows, 1 if attributes["index_return"] else inputs[0].cols)


@operator(
    "order", _ordered_facts, "Rows sorted (stable) by the columns in attribute by; or where they were (index_return)."
)
def order(values: Sequence[Any], attributes: Attributes) -> Any:
    matrix = values[0]
    _ordered_facts([Facts.of(matrix)], attributes)
    keys = [dense(matrix[:, [column - 1]])[:, 0] for column in reversed(attributes["by"])]
    places = np.lexsort([-key for key in keys] if attributes["decreasing"] else keys)  # NaN comes last both ways
    if attributes["index_return"]:
        return (places + 1).astype(np.float64).reshape(-1, 1)
    return well_formed(matrix[places])


def _removed_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    by_rows = attributes["margin"] == "rows"
    if len(inputs) > 1:
        size = inputs[0].rows if by_rows else inputs[0].cols
        if differ(size, inputs[1].cells):
            raise DMLShapeError(
                f"select is {of_shape(inputs[1])}, and the {attributes['margin']} of the {of_shape(inputs[0])} matrix are {size}."
            )
    return Facts.matrix(None, inputs[0].cols) if by_rows else Facts.matrix(inputs[0].rows, None)


@operator("removeEmpty", _removed_facts, "Rows or columns that are not all zero, or that select chooses.")
def remove_empty(values: Sequence[Any], attributes: Attributes) -> Any:
    matrix, by_rows = values[0], attributes["margin"] == "rows"
    _removed_facts([Facts.of(value) for value in values], attributes)
    if len(values) > 1:
        keep = dense(values[1]).ravel() != 0
    elif is_sparse(matrix):
        keep = np.asarray((matrix != 0).sum(axis=1 if by_rows else 0)).ravel() > 0
    else:
        keep = (matrix != 0).any(axis=1 if by_rows else 0)
    if not keep.any() and attributes.get("empty_return", True):  # one empty row is left, as the reference leaves it
        return np.zeros((1, matrix.shape[1]) if by_rows else (matrix.shape[0], 1))
    chosen = np.flatnonzero(keep)
    return well_formed(matrix[chosen] if by_rows else matrix[:, chosen])


@operator(
    "replace", same_facts, "X with every cell that equals the pattern (also NaN) replaced: (X, pattern, replacement)."
)
def replace(values: Sequence[Any], attributes: Attributes) -> Any:
    matrix, pattern, new = values[0], float(values[1]), float(values[2])
    if is_sparse(matrix) and pattern != 0:
        found = matrix.copy()
        found.data[np.isnan(found.data) if np.isnan(pattern) else found.data == pattern] = new
        return well_formed(found)
    matrix = dense(matrix)
    return np.where(np.isnan(matrix) if np.isnan(pattern) else matrix == pattern, new, matrix)


@operator("triangle", same_facts, "Cells below or above the diagonal; attributes lower, diag, values.")
def triangle(values: Sequence[Any], attributes: Attributes) -> Any:
    matrix, shift = dense(values[0]), 0 if attributes["diag"] else 1
    kept = np.tril(np.ones(matrix.shape), -shift) if attributes["lower"] else np.triu(np.ones(matrix.shape), shift)
    return np.where(kept > 0, matrix, 0.0) if attributes["values"] else kept


@operator(
    "unique",
    lambda inputs, attributes: Facts.matrix(None, None),
    "Distinct cells, sorted: of all (dir rc), of each row (r), of each column (c); where there are fewer, zeros follow.",
)
def unique(values: Sequence[Any], attributes: Attributes) -> Any:
    matrix, direction = dense(values[0]), attributes["dir"]
    if direction == "rc":
        return np.unique(matrix).reshape(-1, 1)
    if direction == "r":
        return _distinct(matrix)
    if direction == "c":
        return np.ascontiguousarray(_distinct(matrix.T).T)
    raise DMLValueError(f"unique has no direction {direction!r}.", hint='It has "r", "c" and "rc".')


def _distinct(rows: Any) -> Any:
    found = [np.unique(row) for row in rows]
    result = np.zeros((len(found), max(map(len, found), default=0)))
    for row, cells in zip(result, found, strict=True):
        row[: len(cells)] = cells
    return result


def _cell_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    if inputs[0].is_matrix and inputs[0].cells not in (None, 1):
        raise DMLShapeError(f"as.scalar needs a 1 x 1 matrix, and this one is {of_shape(inputs[0])}.")
    return Facts.scalar()


@operator("as.scalar", _cell_facts, "The cell of a 1 x 1 matrix as a number.")
def as_scalar(values: Sequence[Any], attributes: Attributes) -> float:
    _cell_facts([Facts.of(values[0])], attributes)
    return float(dense(values[0])[0, 0]) if hasattr(values[0], "shape") else float(values[0])


@operator("as.matrix", lambda inputs, attributes: Facts.matrix(1, 1), "A number as a 1 x 1 matrix.")
def as_matrix(values: Sequence[Any], attributes: Attributes) -> Any:
    return np.full((1, 1), float(values[0]))
