"""What a scan does with the rows of one block: kernels that write into a given buffer, and states of folds.

Blocks are arrays ``(rows, columns)`` of float64. Buffers of narrow values lie column by column (Fortran order): an operation
with a column vector, or a reduction of each row, then runs along the rows, which vectorises; in row order each of the thousands
of rows would be a loop of a few cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from braidwater.dml.hops.facts import is_csr
from braidwater.dml.operators.products import product, unspoilt
from braidwater.dml.values import Array

NARROW = 64  # columns up to which rows are too short for numpy's inner loops

BlockKernel = Callable[..., Any]


def _square(a: Array, two: Any, out: Array) -> None:
    np.multiply(a, a, out)


def _power(a: Any, b: Any, out: Array) -> None:
    np.power(float(a) if isinstance(a, int) else a, b, out)


def _smaller(a: Any, b: Any, out: Array) -> None:
    np.minimum(a, b, out=out)  # the only ufuncs that want `out` by name


def _larger(a: Any, b: Any, out: Array) -> None:
    np.maximum(a, b, out=out)


def _quotient(a: Any, b: Any, out: Array) -> None:
    np.true_divide(a, b, out)
    np.trunc(out, out)


def _round(a: Array, out: Array) -> None:
    np.add(a, 0.5, out)
    np.floor(out, out)


def _sigmoid(a: Array, out: Array) -> None:
    np.negative(a, out)
    np.exp(out, out)
    np.add(out, 1.0, out)
    np.reciprocal(out, out)


def _ifelse(test: Any, yes: Any, no: Any, out: Array) -> None:
    out[...] = no
    np.copyto(out, yes, where=np.not_equal(test, 0))


def _matmul(a: Array, b: Array, out: Array) -> None:
    if out.shape[1] == 1:
        np.dot(a, b[:, 0], out=out[:, 0])
    elif out.flags.f_contiguous:
        np.matmul(b.T, a.T, out=out.T)
    else:
        np.matmul(a, b, out=out)
    if not unspoilt(a, b, out):
        out[...] = product(a, b)


def _matmult(a: Array, b: Array, out: Array) -> None:
    _matmul(a, b.T, out)


def _columns(a: Array, first_row: Any, last_row: Any, first: Any, last: Any, out: Array) -> None:
    out[...] = a[:, int(first) - 1 : int(last)]


def _beside(*parts_and_out: Array) -> None:
    *parts, out = parts_and_out
    begin = 0
    for part in parts:
        out[:, begin : begin + part.shape[1]] = part
        begin += part.shape[1]


def _replaced(a: Array, pattern: float, new: float, out: Array) -> None:
    out[...] = a
    np.copyto(out, new, where=np.isnan(a) if pattern != pattern else np.equal(a, pattern))


def _row_sums(a: Array, out: Array) -> None:
    if (
        a.flags.c_contiguous and a.shape[1] > 1
    ):  # a product with ones: BLAS reads narrow rows twice as fast as a reduction
        np.dot(a, np.ones(a.shape[1]), out=out[:, 0])
    else:
        np.add.reduce(a, axis=1, keepdims=True, out=out)


def _row_means(a: Array, out: Array) -> None:
    _row_sums(a, out)
    np.true_divide(out, a.shape[1], out)


def _row_reduction(function: Any) -> BlockKernel:
    def reduce(a: Array, out: Array) -> None:
        if 1 < a.shape[1] <= NARROW and a.flags.c_contiguous:  # a reduction costs 100 ns a row to begin with
            function(a[:, :1], a[:, 1:2], out=out)
            for column in range(2, a.shape[1]):
                function(out, a[:, column : column + 1], out=out)
        else:
            function.reduce(a, axis=1, keepdims=True, out=out)

    return reduce


def _row_place(better: Any) -> BlockKernel:
    """The column of the best cell, from 1: the last of several, and NaN never wins."""
    worst = -np.inf if better is np.greater_equal else np.inf

    def find(a: Array, out: Array) -> None:
        ignoring = np.fmax if better is np.greater_equal else np.fmin
        best = ignoring(a[:, 0], worst)
        place = out[:, 0]
        place[...] = 1.0
        for column in range(1, a.shape[1]):
            cells = a[:, column]
            found = better(cells, best)
            np.copyto(best, cells, where=found)
            np.copyto(place, column + 1.0, where=found)

    return find


MAPS: Mapping[str, BlockKernel] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.true_divide, "^": _power, "square": _square,
    "%%": np.fmod, "%/%": _quotient,
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
    "&": np.logical_and, "|": np.logical_or, "xor": np.logical_xor,
    "is.nan": np.isnan, "is.na": np.isnan, "is.infinite": np.isinf, "!": np.logical_not, "neg": np.negative,
    "pmin": _smaller, "pmax": _larger,
    "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "abs": np.abs, "round": _round, "floor": np.floor, "ceil": np.ceil,
    "sign": np.sign, "sin": np.sin, "cos": np.cos, "tan": np.tan, "tanh": np.tanh, "sinh": np.sinh, "cosh": np.cosh,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sigmoid": _sigmoid, "ifelse": _ifelse,
    "matmul": _matmul, "matmult": _matmult, "index": _columns, "cbind": _beside, "replace": _replaced,
    "rowSums": _row_sums, "rowMeans": _row_means,
    "rowMins": _row_reduction(np.minimum), "rowMaxs": _row_reduction(np.maximum),
    "rowIndexMax": _row_place(np.greater_equal), "rowIndexMin": _row_place(np.less_equal),
}  # fmt: skip
"""Kernels of aligned operators: inputs, then the buffer to write."""


def _sum(a: Array) -> Any:
    return a.sum()


def _sum_squares(a: Array) -> Any:
    return _sum_products(a, a)


def _sum_products(a: Array, b: Array) -> Any:
    if a.flags.c_contiguous and b.flags.c_contiguous:
        return np.dot(a.reshape(-1), b.reshape(-1))
    if a.flags.f_contiguous and b.flags.f_contiguous:
        return np.dot(a.T.reshape(-1), b.T.reshape(-1))
    return np.einsum("ij,ij->", a, b)


def _col_sums(a: Array) -> Any:
    return a.sum(axis=0, keepdims=True)


def _tmatmul(a: Any, b: Array) -> Any:
    if is_csr(a):  # rows of a table that are added up by group, say
        return a.T @ b
    if b.shape[1] == 1:
        found = np.dot(b[:, 0], a)[:, None]
    elif a.shape[1] == 1:
        found = np.dot(a[:, 0], b)[None, :]
    else:
        found = np.matmul(a.T, b)
    return found if unspoilt(a.T, b, found) else product(a.T, b)


def _tsmm(a: Array) -> Any:
    found = np.matmul(a.T, a)
    return found if unspoilt(a.T, a, found) else product(a.T, a)


def _extreme(function: Any, axis: int | None) -> BlockKernel:
    def reduce(a: Array) -> Any:
        return function.reduce(a, axis=axis, keepdims=axis is not None)

    return reduce


def _spread(a: Array) -> Any:
    """Rows, means of the columns, and their sums of squared distances from the mean."""
    mean = a.mean(axis=0, keepdims=True)
    gap = a - mean
    return len(a), mean, np.einsum("ij,ij->j", gap, gap)[None, :]


def _spread_merged(one: Any, other: Any) -> Any:
    """Two parts as one, without cancellation (Chan, Golub, LeVeque 1983, equation 1.5)."""
    (n, mean, squares), (m, other_mean, other_squares) = one, other
    gap = other_mean - mean
    return n + m, mean + gap * (m / (n + m)), squares + other_squares + gap * gap * (n * m / (n + m))


def _added(one: Any, other: Any) -> Any:
    one += other
    return one


def _least(one: Any, other: Any) -> Any:
    return np.minimum(one, other)


def _greatest(one: Any, other: Any) -> Any:
    return np.maximum(one, other)


FOLDS: Mapping[str, tuple[BlockKernel, Callable[[Any, Any], Any]]] = {
    "sum": (_sum, _added),
    "mean": (_sum, _added),
    "sumsq": (_sum_squares, _added),
    "sumsquares": (_sum_squares, _added),
    "sumprod": (_sum_products, _added),
    "colSums": (_col_sums, _added),
    "colMeans": (_col_sums, _added),
    "tmatmul": (_tmatmul, _added),
    "tsmm": (_tsmm, _added),
    "colVars": (_spread, _spread_merged),
    "colSds": (_spread, _spread_merged),
    "min": (_extreme(np.minimum, None), _least),
    "max": (_extreme(np.maximum, None), _greatest),
    "colMins": (_extreme(np.minimum, 0), _least),
    "colMaxs": (_extreme(np.maximum, 0), _greatest),
}
"""Kernels of folds: the state of a block, and two states merged into one."""


def finished(op: str, state: Any, rows: int, cols: int) -> Any:
    """The value of a fold over all rows."""
    if op == "mean":
        return float(state) / (rows * cols)
    if op == "colMeans":
        return state / rows
    if op in ("colVars", "colSds"):
        variance = state[2] / (rows - 1)
        return np.sqrt(variance) if op == "colSds" else variance
    return state if isinstance(state, np.ndarray) else float(state)
