"""Products of columns with each other, group by group, compiled by numba.

Groups of a few hundred rows are too short for BLAS, which would spend its time on packing; importing this module imports numba.
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from numba import njit

_FAST = {"contract", "reassoc", "nsz"}


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def group_products(A: Any, begins: Any, counts: Any, P: Any) -> None:
    """``P[g] = A[:, rows of g] @ A[:, rows of g]'`` for A ``(columns, rows)`` float64; rows of g are ``begins[g]`` and on."""
    n = A.shape[0]
    for g in range(begins.shape[0]):
        s = begins[g]
        e = s + counts[g]
        for j in range(n):
            a = A[j][s:e]
            k = 0
            while k + 3 < j + 1:  # four at a time share the loads of a
                b, c, d, f = A[k][s:e], A[k + 1][s:e], A[k + 2][s:e], A[k + 3][s:e]
                p = q = r = t = 0.0
                for i in range(a.shape[0]):
                    x = a[i]
                    p += x * b[i]
                    q += x * c[i]
                    r += x * d[i]
                    t += x * f[i]
                P[g, j, k] = p
                P[g, j, k + 1] = q
                P[g, j, k + 2] = r
                P[g, j, k + 3] = t
                k += 4
            while k <= j:
                b = A[k][s:e]
                p = 0.0
                for i in range(a.shape[0]):
                    p += a[i] * b[i]
                P[g, j, k] = p
                k += 1
        for j in range(n):
            for k in range(j):
                P[g, k, j] = P[g, j, k]
