"""Parts of matrices: read (`index`) and replaced (`leftindex`). Bounds count from 1 and are part of the range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidwater.dml.hops.facts import Facts
from braidwater.dml.operators.base import Attributes, differ, of_shape, operator
from braidwater.dml.operators.constructors import whole
from braidwater.dml.scipy_on_demand import sparse
from braidwater.dml.values import dense, is_sparse, well_formed
from braidwater.errors import DMLShapeError


def extent(first: int | None, last: int | None, size: int | None, what: str, shape: str) -> int | None:
    """How many rows (or columns) a range has. ``3:2`` has none.

    Raises DMLShapeError where it leaves the matrix.
    """
    if first is None or last is None:
        return None
    if first < 1 or last < first - 1 or (size is not None and last > size):
        ends = str(first) if first == last else f"{first}:{last}"
        hint = f"Its {what}s are 1 to {size}." if size else f"It has no {what}s." if size == 0 else None
        raise DMLShapeError(f"There is no {what} {ends} in a {shape} matrix.", hint=hint)
    return last - first + 1


def index_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    matrix, bounds, shape = inputs[0], [whole(facts) for facts in inputs[1:]], of_shape(inputs[0])
    return Facts.matrix(
        extent(bounds[0], bounds[1], matrix.rows, "row", shape),
        extent(bounds[2], bounds[3], matrix.cols, "column", shape),
    )


@operator("index", index_facts, "X[first row:last row, first column:last column].")
def index(values: Sequence[Any], attributes: Attributes) -> Any:
    matrix, bounds = values[0], [int(bound) for bound in values[1:]]
    index_facts([Facts.of(matrix), *(Facts.scalar(bound) for bound in bounds)], attributes)
    part = matrix[bounds[0] - 1 : bounds[1], bounds[2] - 1 : bounds[3]]
    # a copy: a view would keep the whole matrix from being changed in place, and from being freed
    return well_formed(part) if is_sparse(part) else np.array(part, order="C")


def _left_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    target, new, bounds = inputs[0], inputs[1], [whole(facts) for facts in inputs[2:]]
    shape = of_shape(target)
    rows = extent(bounds[0], bounds[1], target.rows, "row", shape)
    cols = extent(bounds[2], bounds[3], target.cols, "column", shape)
    if new.is_matrix and (new.rows, new.cols) != (1, 1) and (differ(rows, new.rows) or differ(cols, new.cols)):
        raise DMLShapeError(f"A {of_shape(new)} matrix cannot be put into {rows} x {cols} cells.")
    return Facts.matrix(target.rows, target.cols)


@operator(
    "leftindex", _left_facts, "X with some cells replaced: (X, new, first row, last row, first column, last column)."
)
def left_index(values: Sequence[Any], attributes: Attributes) -> Any:
    matrix = values[0].copy() if is_sparse(values[0]) else np.array(values[0], order="C")
    return assign(matrix, values[1], [int(bound) for bound in values[2:]])


def assign(matrix: Any, new: Any, bounds: Sequence[int]) -> Any:
    """Replace cells in place where that is possible; the matrix to go on with comes back (sparse ones are made anew)."""
    _left_facts([Facts.of(matrix), Facts.of(new), *(Facts.scalar(bound) for bound in bounds)], {})
    rows, cols = slice(bounds[0] - 1, bounds[1]), slice(bounds[2] - 1, bounds[3])
    if not is_sparse(matrix):
        matrix[rows, cols] = dense(new)
        return matrix
    return _assign_sparse(matrix, new, rows, cols)


def _assign_sparse(matrix: Any, new: Any, rows: slice, cols: slice) -> Any:
    kept = sparse.coo_array(matrix)
    outside = (kept.row < rows.start) | (kept.row >= rows.stop) | (kept.col < cols.start) | (kept.col >= cols.stop)
    shape = (rows.stop - rows.start, cols.stop - cols.start)
    part = sparse.coo_array(new) if is_sparse(new) else sparse.coo_array(np.broadcast_to(new, shape))
    cells = np.concatenate([kept.data[outside], part.data])
    places = (
        np.concatenate([kept.row[outside], part.row + rows.start]),
        np.concatenate([kept.col[outside], part.col + cols.start]),
    )
    return well_formed(sparse.coo_array((cells, places), shape=matrix.shape))
