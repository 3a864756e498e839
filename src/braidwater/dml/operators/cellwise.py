"""Operators on each cell: arithmetic, comparison, logic, functions of one variable.

Two matrices have one shape, or one of them is a row or column that is repeated, or 1 x 1. Numbers are those of the language's
reference implementation: ``%/%`` and ``%%`` truncate towards zero, ``round`` rounds halves up, truth is 1 and 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from braidwater.dml.hops.facts import Facts
from braidwater.dml.operators.base import Attributes, Kernel, of_shape, operator
from braidwater.dml.scipy_on_demand import sparse, special
from braidwater.dml.values import dense, is_sparse, well_formed
from braidwater.errors import DMLShapeError


def broadcast(first: Facts, second: Facts) -> Facts:
    """The shape of a cell-wise operator of two inputs."""
    if first.kind == "scalar" or second.kind == "scalar":
        other = second if first.kind == "scalar" else first
        return Facts.scalar() if other.kind == "scalar" else Facts.matrix(other.rows, other.cols)
    if first.rows == second.rows and first.cols == second.cols and first.known:
        return Facts.matrix(first.rows, first.cols)
    a, b = (first.rows, first.cols), (second.rows, second.cols)
    if a == (1, 1) or b == (1, 1):
        return Facts.matrix(*(b if a == (1, 1) else a))
    rows, cols = (_common(m, n) for m, n in zip(a, b, strict=True))
    if "differ" in (rows, cols):
        raise _misfit(first, second)
    if None not in (*a, *b) and (rows, cols) not in (a, b):
        raise _misfit(first, second, 'A column and a row make a matrix with outer(column, row, "op").')
    return Facts.matrix(rows, cols)  # type: ignore[arg-type]


def _common(first: int | None, second: int | None) -> int | str | None:
    if first == second or second == 1:
        return first if first != 1 or second == 1 else second
    if first == 1:
        return second
    return (second if first is None else first) if None in (first, second) else "differ"


def _misfit(first: Facts, second: Facts, hint: str | None = None) -> DMLShapeError:
    hint = hint or "The shapes must be equal, or one of them a row or column that fits the other."
    return DMLShapeError(
        f"A {of_shape(first)} and a {of_shape(second)} matrix cannot be combined cell by cell.", hint=hint
    )


def _binary_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return broadcast(inputs[0], inputs[1])


def _unary_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.scalar() if inputs[0].kind == "scalar" else Facts.matrix(inputs[0].rows, inputs[0].cols)


def remainder(a: Any, b: Any) -> Any:
    """The rest of a truncating division: it has the sign of `a`."""
    return np.fmod(a, b)


def quotient(a: Any, b: Any) -> Any:
    return np.trunc(np.true_divide(a, b))


def minimum(a: Any, b: Any) -> Any:
    return np.minimum(a, b)


def round_half_up(a: Any) -> Any:
    """2.5 -> 3, -2.5 -> -2."""
    return np.floor(np.add(a, 0.5))


def sigmoid(a: Any) -> Any:
    return special.expit(a)  # named here, so that importing this module does not import scipy's


def _shift_left(a: Any, b: Any) -> Any:
    return np.left_shift(_integers(a), _integers(b))


def _integers(a: Any) -> Any:
    return np.asarray(a).astype(np.int64)


Function = Callable[..., Any]
BINARY: dict[str, tuple[Function, str]] = {
    "+": (np.add, "sum"),
    "-": (np.subtract, "difference"),
    "*": (np.multiply, "product"),
    "/": (np.true_divide, "quotient"),
    "^": (np.power, "power"),
    "%%": (remainder, "rest of the truncating division"),
    "%/%": (quotient, "truncating division"),
    "<": (np.less, "less"),
    "<=": (np.less_equal, "less or equal"),
    ">": (np.greater, "greater"),
    ">=": (np.greater_equal, "greater or equal"),
    "==": (np.equal, "equal"),
    "!=": (np.not_equal, "not equal"),
    "&": (np.logical_and, "both are not zero"),
    "|": (np.logical_or, "one is not zero"),
    "xor": (np.logical_xor, "exactly one is not zero"),
    "pmin": (np.minimum, "the smaller; NaN where one is"),
    "pmax": (np.maximum, "the larger; NaN where one is"),
    "logbase": (lambda a, b: np.log(a) / np.log(b), "logarithm to a base"),
    "bitwAnd": (lambda a, b: np.bitwise_and(_integers(a), _integers(b)), "bits of both, as integers"),
    "bitwOr": (lambda a, b: np.bitwise_or(_integers(a), _integers(b)), "bits of either, as integers"),
    "bitwXor": (lambda a, b: np.bitwise_xor(_integers(a), _integers(b)), "bits of one, as integers"),
    "bitwShiftL": (_shift_left, "bits shifted to the left"),
    "bitwShiftR": (lambda a, b: np.right_shift(_integers(a), _integers(b)), "bits shifted to the right"),
}
UNARY: dict[str, tuple[Function, str]] = {
    "neg": (np.negative, "the sign changed"),
    "!": (np.logical_not, "1 where zero, else 0"),
    "abs": (np.abs, "absolute value"),
    "sqrt": (np.sqrt, "square root; NaN below zero"),
    "exp": (np.exp, "e to the power"),
    "log": (np.log, "natural logarithm; -Inf at zero"),
    "sin": (np.sin, "sine"), "cos": (np.cos, "cosine"), "tan": (np.tan, "tangent"),
    "asin": (np.arcsin, "inverse sine"), "acos": (np.arccos, "inverse cosine"), "atan": (np.arctan, "inverse tangent"),
    "sinh": (np.sinh, "hyperbolic sine"), "cosh": (np.cosh, "hyperbolic cosine"), "tanh": (np.tanh, "hyperbolic tangent"),
    "sign": (np.sign, "-1, 0 or 1"),
    "floor": (np.floor, "the integer below"), "ceil": (np.ceil, "the integer above"),
    "round": (round_half_up, "the nearest integer; halves go up, as 2.5 to 3 and -2.5 to -2"),
    "sigmoid": (sigmoid, "1 / (1 + exp(-x))"),
    "is.nan": (np.isnan, "1 where not a number"), "is.na": (np.isnan, "1 where not a number"),
    "is.infinite": (np.isinf, "1 where infinite"),
}  # fmt: skip
KEEPS_ZERO = frozenset(
    {"neg", "abs", "sqrt", "sin", "tan", "asin", "atan", "sinh", "tanh", "sign", "floor", "ceil", "round"}
)
"""Functions of one variable that leave zero zero, so that only the filled cells of a sparse matrix need be visited."""


def apply_unary(name: str, value: Any) -> Any:
    """A function of one variable on a matrix or number."""
    function = UNARY[name][0]
    with np.errstate(all="ignore"):
        if is_sparse(value):
            if name in KEEPS_ZERO or name.startswith("is."):
                return well_formed(_with_data(value, function(value.data)))
            value = value.toarray()
        return _doubles(function(value))


def apply_binary(name: str, a: Any, b: Any) -> Any:
    """An operator of two matrices or numbers. Sparse where the result of a sparse input surely is."""
    broadcast(Facts.of(a), Facts.of(b))
    a, b = _unpacked(a, b), _unpacked(b, a)
    with np.errstate(all="ignore"):
        if is_sparse(a) or is_sparse(b):
            found = _sparse_binary(name, a, b)
            if found is not None:
                return well_formed(found)
            a, b = dense(a), dense(b)
        return _doubles(BINARY[name][0](*_floating(name, a, b)))


def _floating(name: str, a: Any, b: Any) -> tuple[Any, Any]:
    # numpy refuses integers to negative powers, and squares by multiplying only where the exponent is a plain number
    return (float(a) if isinstance(a, int) else a, b) if name == "^" else (a, b)


def _unpacked(value: Any, other: Any) -> Any:
    """A 1 x 1 matrix is repeated as a number, unless the other is one too."""
    if getattr(value, "shape", None) == (1, 1) and getattr(other, "shape", (1, 1)) != (1, 1):
        return float(dense(value)[0, 0])
    return value


def _sparse_binary(name: str, a: Any, b: Any) -> Any:
    """The sparse result, or None where it may be dense."""
    both = is_sparse(a) and is_sparse(b) and a.shape == b.shape
    if name in ("*", "&"):
        product = _sparse_product(a, b)
        return product if name == "*" or product is None else product != 0
    if both and name in ("+", "-"):
        return a + b if name == "+" else a - b
    if both and name in ("!=", "<", ">", "|"):
        return {"!=": lambda: a != b, "<": lambda: a < b, ">": lambda: a > b, "|": lambda: (a != 0) + (b != 0)}[name]()
    if both and name in ("pmin", "pmax"):
        return a.minimum(b) if name == "pmin" else a.maximum(b)
    if isinstance(b, float | int) and not np.ndim(b):
        zero = BINARY[name][0](0.0, float(b))
        if zero == 0:
            return _with_data(a, BINARY[name][0](a.data, float(b)))
    elif isinstance(a, float | int) and BINARY[name][0](float(a), 0.0) == 0:
        return _with_data(b, BINARY[name][0](float(a), b.data))
    return None


def _sparse_product(a: Any, b: Any) -> Any:
    if not is_sparse(a):
        a, b = b, a
    if isinstance(b, float | int):
        return _with_data(a, a.data * float(b)) if np.isfinite(b) else None
    if not is_sparse(b) and not np.isfinite(b).all():
        return None  # zero times infinity is NaN, also where the zero is not stored
    if is_sparse(b) and a.shape != b.shape:
        if 1 not in b.shape:
            a, b = b, a
        b = b.toarray()
    if a.shape != b.shape and 1 not in b.shape:  # a sparse row or column that is repeated along a dense matrix
        return None
    return a.multiply(b)


def _with_data(matrix: Any, data: Any) -> Any:
    data = np.asarray(data, dtype=np.float64)
    result = sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
    if np.count_nonzero(data) < len(data):
        result = result.copy()  # zeros are taken out of the places too, which are shared with `matrix` until now
        result.eliminate_zeros()
    return result


def _doubles(found: Any) -> Any:
    if isinstance(found, np.ndarray) and found.ndim:
        return found if found.dtype == np.float64 else found.astype(np.float64)
    return float(found)


def _binary_kernel(name: str) -> Kernel:
    return lambda values, attributes: apply_binary(name, values[0], values[1])


def _unary_kernel(name: str) -> Kernel:
    return lambda values, attributes: apply_unary(name, values[0])


for _name, (_, _doc) in BINARY.items():
    operator(_name, _binary_facts, f"Cell by cell: {_doc}.")(_binary_kernel(_name))
for _name, (_, _doc) in UNARY.items():
    operator(_name, _unary_facts, f"Of each cell: {_doc}.")(_unary_kernel(_name))


def _ifelse_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return broadcast(broadcast(inputs[0], inputs[1]), inputs[2])


@operator("ifelse", _ifelse_facts, "Cell by cell: the second where the first is not zero, else the third.")
def ifelse(values: Sequence[Any], attributes: Attributes) -> Any:
    test, yes, no = (_unpacked(dense(value), None) for value in values)
    _ifelse_facts([Facts.of(value) for value in (test, yes, no)], attributes)
    return _doubles(np.where(np.not_equal(test, 0), yes, no))
