"""Products of matrices, transposes, diagonals, inverses and solutions of linear systems."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from braidwater.dml.hops.facts import Facts
from braidwater.dml.operators.base import Attributes, differ, of_shape, operator
from braidwater.dml.scipy_on_demand import linalg, sparse
from braidwater.dml.values import SMALLEST_SPARSE, dense, is_sparse, well_formed
from braidwater.errors import DMLShapeError, DMLValueError

# a reciprocal condition that is a million times what is refused, and a thousand what probes may hide of a small one
SURELY_REGULAR = 1e-9
FEW = 4096  # cells: a look at fewer takes a microsecond or two
MANY_UNKNOWNS = 256  # of a linear system: from there on scipy's LAPACK saves more time than its import takes


def _product_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    left, right = inputs
    if differ(left.cols, right.rows):
        hint = "The columns of the left must be as many as the rows of the right; t(X) transposes."
        raise DMLShapeError(f"A {of_shape(left)} matrix cannot be multiplied by a {of_shape(right)} one.", hint=hint)
    return Facts.matrix(left.rows, right.cols)


@operator("matmul", _product_facts, "Product of two matrices.")
def matmul(values: Sequence[Any], attributes: Attributes) -> Any:
    left, right = values
    _product_facts([Facts.of(left), Facts.of(right)], attributes)
    found = product(left, right)
    return found if is_sparse(found) else np.ascontiguousarray(found)


def product(left: Any, right: Any) -> Any:
    """A product in the form of all matrices. A zero of either side counts nothing, also where NaN or Inf stands opposite.

    So a product that selects rows or adds them up by group leaves what the others hold out, in dense form as in sparse, where
    zero is not stored. BLAS computes 0 * NaN: where its result is not finite, the filled cells alone are multiplied again.
    """
    found = left @ right
    if is_sparse(found):
        return well_formed(found)
    return found if unspoilt(left, right, found) else _of_filled_cells(left, right, found)


def unspoilt(left: Any, right: Any, found: Any) -> bool:
    """Whether surely no zero met NaN or Inf in ``left @ right``, an array. Costs a look at the smallest of the three."""
    small = left if left.size < right.size else right
    if small.size < found.size and found.size > FEW and not is_sparse(small) and small.all() and _all_finite(small):
        return True
    return _all_finite(found)


def _all_finite(cells: Any) -> bool:
    """Whether all cells of an array are finite, and their squares too; in less time than numpy.isfinite takes."""
    cells = cells if cells.flags.c_contiguous else cells.T
    return isfinite(np.vdot(cells, cells))


def _of_filled_cells(left: Any, right: Any, found: Any) -> Any:
    if not any(_has_zero(one) and not _is_finite(other) for one, other in ((right, left), (left, right))):
        return found
    return dense(sparse.csr_array(left) @ sparse.csr_array(right))


def _has_zero(matrix: Any) -> bool:
    return is_sparse(matrix) or not matrix.all()


def _is_finite(matrix: Any) -> bool:
    return bool(np.isfinite(matrix.data if is_sparse(matrix) else matrix).all())


def _transposed_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.matrix(inputs[0].cols, inputs[0].rows, inputs[0].nnz)


@operator("t", _transposed_facts, "Transpose. A dense one is a view: nothing is copied.")
def transpose(values: Sequence[Any], attributes: Attributes) -> Any:
    (matrix,) = values
    return sparse.csr_array(matrix.T) if is_sparse(matrix) else matrix.T


def _diagonal_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    rows, cols = inputs[0].rows, inputs[0].cols
    if cols is None:
        return Facts.matrix(rows, None)
    if cols == 1:
        return Facts.matrix(rows, rows, None if rows is None else (0, rows))
    if differ(rows, cols):
        hint = "It takes a column (and makes a matrix) or a square matrix (and takes its diagonal)."
        raise DMLShapeError(f"diag cannot be taken of a {of_shape(inputs[0])} matrix.", hint=hint)
    return Facts.matrix(cols, 1)


@operator(
    "diag", _diagonal_facts, "A column as the diagonal of a matrix, or the diagonal of a square matrix as a column."
)
def diagonal(values: Sequence[Any], attributes: Attributes) -> Any:
    (matrix,) = values
    _diagonal_facts([Facts.of(matrix)], attributes)
    if matrix.shape[1] != 1:
        return np.array(matrix.diagonal(), dtype=np.float64).reshape(-1, 1)
    cells, size = dense(matrix)[:, 0], matrix.shape[0]
    if size * size < SMALLEST_SPARSE:
        return np.diag(cells)
    made = sparse.csr_array((cells.astype(np.float64), np.arange(size), np.arange(size + 1)), shape=(size, size))
    made.eliminate_zeros()
    return made


def _square(facts: Facts, what: str) -> None:
    if differ(facts.rows, facts.cols):
        raise DMLShapeError(f"{what} needs a square matrix, and this one is {of_shape(facts)}.")


def _inverse_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    _square(inputs[0], "inv")
    return Facts.matrix(inputs[0].rows, inputs[0].cols)


@operator("inv", _inverse_facts, "Inverse. solve(A, b) is more exact and cheaper than inv(A) %*% b.")
def inverse(values: Sequence[Any], attributes: Attributes) -> Any:
    matrix = dense(values[0])
    _square(Facts.of(matrix), "inv")
    try:
        return np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        raise singular(matrix) from None


def _solution_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    left, right = inputs
    if differ(left.rows, right.rows):
        raise DMLShapeError(f"solve needs as many rows on both sides, and got {of_shape(left)} and {of_shape(right)}.")
    return Facts.matrix(left.cols, right.cols)


@operator("solve", _solution_facts, "x with A %*% x = b; of least squares where A has more rows than columns.")
def solve(values: Sequence[Any], attributes: Attributes) -> Any:
    left, right = dense(values[0]), dense(values[1])
    _solution_facts([Facts.of(left), Facts.of(right)], attributes)
    rows, cols = left.shape
    if rows < cols:
        raise DMLShapeError(f"solve has no unique answer: {rows} equations for {cols} unknowns.")
    if rows > cols:
        return _least_squares(left, right)
    try:
        return _solved(left, right) if rows <= MANY_UNKNOWNS else _factored_and_solved(left, right)
    except np.linalg.LinAlgError:
        raise singular(left) from None


def _solved(left: Any, right: Any) -> Any:
    """The inverse, which tells the condition exactly, takes three times as long: it is for matrices that probes do not clear."""
    probes = _probes(len(left))
    found = np.linalg.solve(left, np.concatenate([right, probes], axis=1))
    grown = np.abs(found[:, right.shape[1] :]).sum(axis=0) / np.abs(probes).sum(axis=0)
    if not 1 / float(np.linalg.norm(left, 1) * grown.max()) > SURELY_REGULAR:
        _refuse_singular(1 / float(np.linalg.norm(left, 1) * np.linalg.norm(np.linalg.inv(left), 1)))
    return np.ascontiguousarray(found[:, : right.shape[1]])


def _probes(size: int) -> Any:
    """Right sides whose solutions grow where an inverse is large: Higham's alternating one (1988, section 4), and another."""
    place = np.arange(1.0, size + 1)
    return np.stack([np.where(place % 2, 1 + place / size, -1 - place / size), np.sin(place * place)], axis=1)


def _factored_and_solved(left: Any, right: Any) -> Any:
    """One factorisation for the answer and an estimate of the condition: a third of the time of an inverse beside it."""
    find: Any = linalg.get_lapack_funcs
    factor, reciprocal_of = find(("getrf", "gecon"), (left,))
    factors, pivots, info = factor(left)
    if info > 0:
        raise np.linalg.LinAlgError
    _refuse_singular(reciprocal_of(factors, np.linalg.norm(left, 1))[0])
    return linalg.lu_solve((factors, pivots), right, check_finite=False)


def _refuse_singular(reciprocal_condition: float) -> None:
    if reciprocal_condition < np.finfo(float).eps * 1e-2:  # what is left of such an answer is rounding
        raise np.linalg.LinAlgError


def _least_squares(left: Any, right: Any) -> Any:
    orthogonal, triangle = np.linalg.qr(left)
    pivots = np.abs(np.diag(triangle))
    if pivots.min() <= pivots.max() * np.finfo(float).eps:
        raise singular(left)
    return np.linalg.solve(triangle, orthogonal.T @ right)


def singular(matrix: Any) -> DMLValueError:
    """The error of a matrix without an inverse."""
    if not np.isfinite(matrix).all():
        return DMLValueError("The matrix holds NaN or Inf, so that there is nothing to solve.")
    rank = np.linalg.matrix_rank(matrix)
    return DMLValueError(
        f"The {matrix.shape[0]} x {matrix.shape[1]} matrix is singular: its rank is {rank}.",
        hint="Leave out columns that others add up to, or add a small ridge: A + diag(matrix(1e-6, nrow(A), 1)).",
    )
