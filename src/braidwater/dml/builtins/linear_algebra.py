"""Systems of equations and decompositions."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.scipy_on_demand import linalg
from braidwater.errors import DMLShapeError, DMLValueError


@builtin("solve(A: matrix, b: matrix)", "x with A %*% x = b; the least squares where A has more rows than columns.")
def solve(caller: Caller, A: Any, b: Any) -> Any:
    return caller.node("solve", A, b)


@builtin("inv(X: matrix)", "Inverse. solve(A, b) is more exact and cheaper than inv(A) %*% b.", "inverse")
def inv(caller: Caller, X: Any) -> Any:
    return caller.node("inv", X)


def _square(caller: Caller, X: Any) -> Any:
    array = caller.array(X)
    if array.shape[0] != array.shape[1]:
        raise DMLShapeError(
            f"{caller.name} needs a square matrix, and this one is {array.shape[0]} x {array.shape[1]}."
        )
    if not np.isfinite(array).all():
        raise DMLValueError(f"{caller.name} cannot be taken of a matrix with NaN or Inf.")
    return array


@builtin("det(X: matrix)", "Determinant.")
def det(caller: Caller, X: Any) -> float:
    return float(np.linalg.det(_square(caller, X)))


@builtin(
    "eigen(X: matrix)",
    "[values, vectors]: eigenvalues ascending as a column, vectors in columns (their signs are arbitrary).",
)
def eigen(caller: Caller, X: Any) -> tuple[Any, Any]:
    array = _square(caller, X)
    scale = np.abs(array).max(initial=0.0)
    if np.abs(array - array.T).max(initial=0.0) <= 1e-9 * scale:
        values, vectors = np.linalg.eigh((array + array.T) / 2)
        return values.reshape(-1, 1), vectors
    found, columns = np.linalg.eig(array)
    if np.abs(found.imag).max(initial=0.0) > 1e-12 * scale:
        raise DMLValueError("The matrix is not symmetric and has complex eigenvalues.")
    order = np.argsort(found.real)
    return found.real[order].reshape(-1, 1), columns.real[:, order]


@builtin("svd(X: matrix)", "[U, S, V] with X = U %*% S %*% t(V); S is a diagonal matrix, singular values descending.")
def svd(caller: Caller, X: Any) -> tuple[Any, Any, Any]:
    left, values, right = np.linalg.svd(caller.array(X), full_matrices=False)
    return left, np.diag(values), np.ascontiguousarray(right.T)


@builtin("qr(X: matrix)", "[H, R]: the Householder vectors of the QR decomposition, each scaled by its factor, and R.")
def qr(caller: Caller, X: Any) -> tuple[Any, Any]:
    array = caller.array(X)
    packed, factors = np.linalg.qr(array, mode="raw")
    lower = np.tril(packed.T, -1)[:, : len(factors)]
    np.fill_diagonal(lower, 1.0)
    reflectors = np.zeros(array.shape)
    reflectors[:, : len(factors)] = lower * factors
    return reflectors, np.triu(packed.T)


@builtin("lu(X: matrix)", "[P, L, U] with P %*% X = L %*% U.")
def lu(caller: Caller, X: Any) -> tuple[Any, Any, Any]:
    places, lower, upper = linalg.lu(_square(caller, X))
    return np.ascontiguousarray(places.T), lower, upper


@builtin("cholesky(X: matrix)", "The lower triangular L with X = L %*% t(L) of a symmetric positive definite matrix.")
def cholesky(caller: Caller, X: Any) -> Any:
    array = _square(caller, X)
    try:
        return np.linalg.cholesky(array)
    except np.linalg.LinAlgError:
        raise DMLValueError("The matrix is not positive definite.") from None


@builtin("sqrtMatrixJava(X: matrix, strategy: string = 'COMMON')", "The matrix square root: S with S %*% S = X.")
def square_root(caller: Caller, X: Any, strategy: str) -> Any:
    found = linalg.sqrtm(_square(caller, X))
    if np.abs(np.imag(found)).max(initial=0.0) > 1e-9:
        raise DMLValueError("The matrix has no real square root.")
    return np.ascontiguousarray(np.real(found))
