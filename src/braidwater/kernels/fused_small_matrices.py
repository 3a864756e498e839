"""Systems of a few equations by the thousand, compiled by numba.

Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_FAST = {"contract", "reassoc", "nsz"}


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def solve_each(matrices: Any, vectors: Any, ridge: float, found: Any) -> None:
    """Write ``matrix^-1 vector`` of every pair to `found` ``(groups, n)``, for positive definite matrices ``(groups, n, n)``.

    They are scaled to ones on the diagonal, and `ridge` is added there. Gaussian elimination without an exchange of rows, which
    such matrices do not need, in memory for one of them: nothing as large as the stack is made.
    """
    n = matrices.shape[1]
    A, size = np.empty((n, n)), np.empty(n)
    for g in range(matrices.shape[0]):
        b = found[g]
        for k in range(n):
            diagonal = matrices[g, k, k]
            size[k] = 1.0 / np.sqrt(diagonal) if diagonal > 0.0 else 1.0
        for k in range(n):
            row, own = A[k], matrices[g, k]
            for j in range(n):
                row[j] = own[j] * size[k] * size[j]
            row[k] += ridge
            b[k] = vectors[g, k] * size[k]
        _eliminate(A, b)
        for k in range(n):
            b[k] *= size[k]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _eliminate(A: Any, b: Any) -> None:
    """Replace b by ``A^-1 b``; A is overwritten."""
    n = b.shape[0]
    for k in range(n):
        row, pivot = A[k], 1.0 / A[k, k]
        for i in range(k + 1, n):
            factor, other = A[i, k] * pivot, A[i]
            for j in range(k, n):
                other[j] -= factor * row[j]
            b[i] -= factor * b[k]
    for k in range(n - 1, -1, -1):
        row, left = A[k], b[k]
        for j in range(k + 1, n):
            left -= row[j] * b[j]
        b[k] = left / row[k]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def sweep_each(matrices: Any, found: Any) -> None:
    """Write the inverse of every positive definite matrix ``(groups, n, n)`` to `found`, by sweeps (Goodnight 1979)."""
    n = matrices.shape[1]
    row = np.empty(n)
    for g in range(matrices.shape[0]):
        A = found[g]
        A[:, :] = matrices[g]
        for k in range(n):
            inverse = 1.0 / A[k, k]
            for j in range(n):
                row[j] = A[k, j] * inverse
            for i in range(n):
                own, factor = A[i], A[i, k]
                if i != k:
                    for j in range(n):
                        own[j] -= factor * row[j]
                    own[k] = -factor * inverse
            A[k, :] = row
            A[k, k] = inverse
