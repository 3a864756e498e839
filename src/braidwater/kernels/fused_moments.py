"""Sums, sums of squares and products with a label in one reading, compiled by numba. Importing this module imports numba."""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from numba import njit

_FAST = {"contract", "reassoc", "nsz"}


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_moments(X: Any, shift: Any, t: Any, sums: Any, squares: Any, cross: Any) -> None:
    """Add every column of X ``(columns, rows)`` less its `shift`, the squares of that and its products with t, if there is a
    t ``(rows,)``, to `sums`, `squares` and `cross` (float64)."""
    for j in range(X.shape[0]):
        column = X[j]
        s = shift[j]
        a = 0.0
        b = 0.0
        c = 0.0
        for i in range(column.shape[0]):
            x = column[i] - s
            a += x
            b += x * x
            if t is not None:
                c += x * t[i]
        sums[j] += a
        squares[j] += b
        cross[j] += c
