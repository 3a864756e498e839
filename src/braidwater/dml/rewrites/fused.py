"""Operators that no script writes: what several operators of the language become when they are computed at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from braidwater.dml.hops import Facts
from braidwater.dml.hops.facts import is_csr
from braidwater.dml.operators.products import product
from braidwater.dml.scipy_on_demand import sparse
from braidwater.dml.values import dense
from braidwater.errors import DMLShapeError

Values = Sequence[Any]
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Fused:
    """A fused operator: what it is in the language, the facts of its value, and its kernel."""

    name: str
    doc: str
    facts: Callable[[Sequence[Facts], Attributes], Facts]
    kernel: Callable[[Values, Attributes], Any]


def _left_transposed_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    _agree(inputs[0].rows, inputs[1].rows, "t(A) %*% B", inputs)
    return Facts.matrix(inputs[0].cols, inputs[1].cols)


def _right_transposed_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    _agree(inputs[0].cols, inputs[1].cols, "A %*% t(B)", inputs)
    return Facts.matrix(inputs[0].rows, inputs[1].rows)


def _gram_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.matrix(inputs[0].cols, inputs[0].cols)


def _scalar_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.scalar()


def _first_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    high = inputs[0].nnz[1] if inputs[0].nnz else None
    return Facts.matrix(*inputs[0].shape, None if high is None else (0, high))


def _agree(one: int | None, other: int | None, text: str, inputs: Sequence[Facts]) -> None:
    if one is not None and other is not None and one != other:
        raise DMLShapeError(f"{text}: A is {inputs[0]}, B is {inputs[1]}")


def _left_transposed(values: Values, attributes: Attributes) -> Any:
    _agree(values[0].shape[0], values[1].shape[0], "t(A) %*% B", [Facts.of(value) for value in values])
    return product(values[0].T, values[1])


def _right_transposed(values: Values, attributes: Attributes) -> Any:
    _agree(values[0].shape[1], values[1].shape[1], "A %*% t(B)", [Facts.of(value) for value in values])
    return product(values[0], values[1].T)


def _gram(values: Values, attributes: Attributes) -> Any:
    """Half of the products are computed and mirrored: numpy calls BLAS's syrk where both sides are one array."""
    return product(values[0].T, values[0])


def _sum_of_products(values: Values, attributes: Attributes) -> float:
    A, B = values
    if is_csr(A) or is_csr(B):
        return float((A.multiply(B) if is_csr(A) else B.multiply(A)).sum())
    if A.flags.f_contiguous and B.flags.f_contiguous:
        A, B = A.T, B.T
    return float(np.vdot(A, B))


def _sum_of_squares(values: Values, attributes: Attributes) -> float:
    A = values[0]
    cells = A.data if is_csr(A) else np.ascontiguousarray(A).reshape(-1)
    return float(np.dot(cells, cells))


def _sampled(values: Values, attributes: Attributes) -> Any:
    W, U, V = values
    W = W if is_csr(W) else sparse.csr_array(W)
    cells = _product_at(W, U, V)
    return sparse.csr_array((cells * W.data, W.indices, W.indptr), shape=W.shape)


def _sampled_loss(values: Values, attributes: Attributes) -> float:
    W, X, U, V = values
    W = W if is_csr(W) else sparse.csr_array(W)
    gap = _product_at(W, U, V)
    gap -= cells_at(X, W)
    return float(np.dot(W.data * gap, gap))


def _product_at(W: Any, U: Any, V: Any) -> Any:
    """The cells of ``U %*% V`` where the CSR `W` has entries."""
    from braidwater.dml.rewrites.sampled import sampled_product  # numba takes longer to import than most scripts to run

    return sampled_product(W.indptr, W.indices, dense(U), dense(V))


def cells_at(X: Any, pattern: Any) -> Any:
    """The cells of `X` (dense or CSR) where the CSR `pattern` has entries, ``(nnz,)`` in its order."""
    if is_csr(X) and X.nnz == pattern.nnz and _same(X, pattern):
        return X.data
    rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
    return dense(X[rows, pattern.indices]).reshape(-1)


def _same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one.indptr, other.indptr) and np.array_equal(one.indices, other.indices))


FUSED: Mapping[str, Fused] = {
    fused.name: fused
    for fused in (
        Fused("tmatmul", "t(A) %*% B; A is read as it lies", _left_transposed_facts, _left_transposed),
        Fused("matmult", "A %*% t(B); B is read as it lies", _right_transposed_facts, _right_transposed),
        Fused("tsmm", "t(X) %*% X; half of the products", _gram_facts, _gram),
        Fused("sumprod", "sum(A * B)", _scalar_facts, _sum_of_products),
        Fused("sumsquares", "sum(A ^ 2)", _scalar_facts, _sum_of_squares),
        Fused("sddmm", "W * (U %*% V), only where W is not zero", _first_facts, _sampled),
        Fused("wsloss", "sum(W * (X - U %*% V) ^ 2), only where W is not zero", _scalar_facts, _sampled_loss),
    )
}
"""The operators that rewrites make, by name."""
