"""Sums, extremes, means and variances: of all cells, of each row, of each column.

NaN makes a result NaN. The maximum of nothing is -Inf, the minimum Inf, the mean NaN. Variances divide by n - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from braidwater.dml.hops.facts import Facts
from braidwater.dml.operators.base import Attributes, Kernel, differ, of_shape, operator, scalar_facts
from braidwater.dml.values import dense, is_sparse
from braidwater.errors import DMLShapeError


def _extreme(function: Callable[..., Any], empty: float) -> Callable[[Any, int | None], Any]:
    def find(matrix: Any, axis: int | None) -> Any:
        if 0 in matrix.shape if axis is None else matrix.shape[axis] == 0:  # a sparse matrix has its entries as size
            return empty if axis is None else np.full(matrix.shape[1 - axis], empty)
        return function(dense(matrix), axis=axis)

    return find


def _sum(matrix: Any, axis: int | None) -> Any:
    return matrix.sum(axis=axis)


def _squares(matrix: Any, axis: int | None) -> Any:
    return (matrix.multiply(matrix) if is_sparse(matrix) else matrix * matrix).sum(axis=axis)


def _mean(matrix: Any, axis: int | None) -> Any:
    count = matrix.shape[0] * matrix.shape[1] if axis is None else matrix.shape[axis]
    return np.true_divide(matrix.sum(axis=axis), count)


def _variance(matrix: Any, axis: int | None) -> Any:
    count = matrix.shape[0] * matrix.shape[1] if axis is None else matrix.shape[axis]
    if count < 2:
        return np.zeros(()) if axis is None else np.zeros(matrix.shape[1 - axis])
    return np.var(dense(matrix), axis=axis, ddof=1)


AGGREGATES: dict[str, tuple[Callable[[Any, int | None], Any], str]] = {
    "sum": (_sum, "Sum"),
    "mean": (_mean, "Mean"),
    "min": (_extreme(np.min, np.inf), "Least"),
    "max": (_extreme(np.max, -np.inf), "Greatest"),
    "prod": (lambda matrix, axis: np.prod(dense(matrix), axis=axis), "Product"),
    "var": (_variance, "Variance (divided by n - 1)"),
    "sd": (lambda matrix, axis: np.sqrt(_variance(matrix, axis)), "Standard deviation (divided by n - 1)"),
    "sumsq": (_squares, "Sum of squares"),
}  # fmt: skip
SUFFIX = {"sum": "Sums", "mean": "Means", "min": "Mins", "max": "Maxs", "prod": "Prods", "var": "Vars", "sd": "Sds"}


def aggregate(name: str, matrix: Any, axis: int | None) -> Any:
    """`axis` None: a number; 1: a column with a cell for each row; 0: a row with a cell for each column."""
    with np.errstate(all="ignore"):
        found = AGGREGATES[name][0](matrix, axis)
    if axis is None:
        return float(found)
    return np.asarray(found, dtype=np.float64).reshape((-1, 1) if axis else (1, -1))


def _row_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.matrix(inputs[0].rows, 1)


def _column_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.matrix(1, inputs[0].cols)


def _kernel(name: str, axis: int | None) -> Kernel:
    return lambda values, attributes: aggregate(name, values[0], axis)


for _name, (_, _doc) in AGGREGATES.items():
    operator(_name, scalar_facts, f"{_doc} of all cells.")(_kernel(_name, None))
for _name, _suffix in SUFFIX.items():
    operator(f"row{_suffix}", _row_facts, f"{AGGREGATES[_name][1]} of each row, as a column.")(_kernel(_name, 1))
    operator(f"col{_suffix}", _column_facts, f"{AGGREGATES[_name][1]} of each column, as a row.")(_kernel(_name, 0))


@operator("rowIndexMax", _row_facts, "The column (from 1) of each row's greatest cell; the last one of several.")
def row_index_max(values: Sequence[Any], attributes: Attributes) -> Any:
    return _last_best(dense(values[0]))


@operator("rowIndexMin", _row_facts, "The column (from 1) of each row's least cell; the last one of several.")
def row_index_min(values: Sequence[Any], attributes: Attributes) -> Any:
    return _last_best(-dense(values[0]))


def _last_best(matrix: Any) -> Any:
    """The last of equal cells, which is what the reference implementation takes; NaN never wins."""
    width = matrix.shape[1]
    missing = np.isnan(matrix)
    known = np.where(missing, -np.inf, matrix)
    places = width - np.argmax(known[:, ::-1], axis=1)
    return np.where(missing.all(axis=1), 1, places).astype(np.float64).reshape(-1, 1)


def _trace_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    if differ(inputs[0].rows, inputs[0].cols):
        raise DMLShapeError(f"trace needs a square matrix, and this one is {of_shape(inputs[0])}.")
    return Facts.scalar()


@operator("trace", _trace_facts, "Sum of the cells on the diagonal.")
def trace(values: Sequence[Any], attributes: Attributes) -> float:
    _trace_facts([Facts.of(values[0])], attributes)
    return float(values[0].diagonal().sum())


def _size_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.scalar()


def _sizes(name: str) -> Kernel:
    def kernel(values: Sequence[Any], attributes: Attributes) -> int:
        rows, cols = values[0].shape
        return int({"nrow": rows, "ncol": cols, "length": rows * cols}[name])

    return kernel


for _name, _doc in {"nrow": "Rows", "ncol": "Columns", "length": "Cells"}.items():
    operator(_name, _size_facts, f"{_doc} of a matrix.")(_sizes(_name))
