"""Products of columns with each other, compiled by numba.

For a few dozen columns BLAS spends most of its time on packing, and builds without AVX-512 lose another half; sixteen sums at a
time in registers take half as long. Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator, assignment"

from __future__ import annotations

from typing import Any

from llvmlite.binding import get_host_cpu_features
from numba import njit

_FAST = {"contract", "reassoc", "nsz"}
# Sixteen sums fit into the 32 registers of AVX-512 and into nothing smaller: elsewhere BLAS is faster
COLUMNS = 128 if get_host_cpu_features().get("avx512f") else 0


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _one(a: Any, b: Any) -> Any:
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _sixteen(a: Any, b: Any, c: Any, d: Any, p: Any, q: Any, r: Any, s: Any, P: Any, j: int, k: int) -> None:
    ap = aq = ar = as_ = bp = bq = br = bs = 0.0
    cp = cq = cr = cs = dp = dq = dr = ds = 0.0
    for i in range(a.shape[0]):
        x, y, z, w = p[i], q[i], r[i], s[i]
        ap += a[i] * x
        aq += a[i] * y
        ar += a[i] * z
        as_ += a[i] * w
        bp += b[i] * x
        bq += b[i] * y
        br += b[i] * z
        bs += b[i] * w
        cp += c[i] * x
        cq += c[i] * y
        cr += c[i] * z
        cs += c[i] * w
        dp += d[i] * x
        dq += d[i] * y
        dr += d[i] * z
        ds += d[i] * w
    P[j, k] += ap
    P[j, k + 1] += aq
    P[j, k + 2] += ar
    P[j, k + 3] += as_
    P[j + 1, k] += bp
    P[j + 1, k + 1] += bq
    P[j + 1, k + 2] += br
    P[j + 1, k + 3] += bs
    P[j + 2, k] += cp
    P[j + 2, k + 1] += cq
    P[j + 2, k + 2] += cr
    P[j + 2, k + 3] += cs
    P[j + 3, k] += dp
    P[j + 3, k + 1] += dq
    P[j + 3, k + 2] += dr
    P[j + 3, k + 3] += ds


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_products(A: Any, B: Any, P: Any) -> None:
    """Add ``A @ B'`` to P, for A and B ``(columns, rows)`` whose product is symmetric (float64, C-contiguous)."""
    n = A.shape[0]
    whole = n // 4 * 4
    for j in range(0, whole, 4):
        for k in range(0, j + 4, 4):
            _sixteen(A[j], A[j + 1], A[j + 2], A[j + 3], B[k], B[k + 1], B[k + 2], B[k + 3], P, j, k)
    for j in range(whole, n):
        for k in range(j + 1):
            P[j, k] += _one(A[j], B[k])
    for j in range(n):
        for k in range(j + 1):
            P[k, j] = P[j, k]
