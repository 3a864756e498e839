"""Products of a tile of columns with several models (or centres), four columns and four models at a time, compiled by numba.

Sixteen products share their loads. What belongs to four models lies in one array, `TILE_ROWS` apart: the compiler uses vectors
only where it can tell that what is written is not read, and for more than a handful of arrays it does not try. Importing this
module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator, assignment"

from __future__ import annotations

from typing import Any

from numba import njit

TILE_ROWS = 512
_FAST = {"contract", "reassoc", "nsz"}
_T = TILE_ROWS


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_forward(a: Any, b: Any, c: Any, d: Any, W: Any, g: int, k: int, S: Any) -> None:
    """Add the products of four columns with four models, rows g and columns k on of W, to S ``(4 TILE_ROWS,)``."""
    p0, p1, p2, p3 = W[g, k], W[g, k + 1], W[g, k + 2], W[g, k + 3]
    q0, q1, q2, q3 = W[g + 1, k], W[g + 1, k + 1], W[g + 1, k + 2], W[g + 1, k + 3]
    r0, r1, r2, r3 = W[g + 2, k], W[g + 2, k + 1], W[g + 2, k + 2], W[g + 2, k + 3]
    s0, s1, s2, s3 = W[g + 3, k], W[g + 3, k + 1], W[g + 3, k + 2], W[g + 3, k + 3]
    for i in range(a.shape[0]):
        x, y, z, u = a[i], b[i], c[i], d[i]
        S[i] += (x * p0 + y * p1) + (z * p2 + u * p3)
        S[_T + i] += (x * q0 + y * q1) + (z * q2 + u * q3)
        S[2 * _T + i] += (x * r0 + y * r1) + (z * r2 + u * r3)
        S[3 * _T + i] += (x * s0 + y * s1) + (z * s2 + u * s3)


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_backward(a: Any, b: Any, c: Any, d: Any, S: Any, P: Any, g: int, k: int) -> None:
    """Add the products of four columns with the four rows of S, ``(4 TILE_ROWS,)``, to rows g and columns k on of P."""
    zero = S.dtype.type(0)
    p0 = p1 = p2 = p3 = q0 = q1 = q2 = q3 = zero
    r0 = r1 = r2 = r3 = s0 = s1 = s2 = s3 = zero
    for i in range(a.shape[0]):
        x, y, z, u = a[i], b[i], c[i], d[i]
        p, q, r, s = S[i], S[_T + i], S[2 * _T + i], S[3 * _T + i]
        p0 += p * x
        p1 += p * y
        p2 += p * z
        p3 += p * u
        q0 += q * x
        q1 += q * y
        q2 += q * z
        q3 += q * u
        r0 += r * x
        r1 += r * y
        r2 += r * z
        r3 += r * u
        s0 += s * x
        s1 += s * y
        s2 += s * z
        s3 += s * u
    P[g, k] += p0
    P[g, k + 1] += p1
    P[g, k + 2] += p2
    P[g, k + 3] += p3
    P[g + 1, k] += q0
    P[g + 1, k + 1] += q1
    P[g + 1, k + 2] += q2
    P[g + 1, k + 3] += q3
    P[g + 2, k] += r0
    P[g + 2, k + 1] += r1
    P[g + 2, k + 2] += r2
    P[g + 2, k + 3] += r3
    P[g + 3, k] += s0
    P[g + 3, k + 1] += s1
    P[g + 3, k + 2] += s2
    P[g + 3, k + 3] += s3
