"""The logistic loss and its gradient in one reading of the rows, compiled by numba.

A tile of `TILE_ROWS` rows stays in the second-level cache while it is read twice: linear predictor, loss and residual,
gradient. Either reading asks for half of the next tile, so that memory and arithmetic work at the same time.
Columns are taken four at a time as contiguous one-dimensional views (two-dimensional slices take five times as long).
Arithmetic inside a tile is in the type of the predictors z that are handed in (float32 or float64, over columns of either,
which are converted one by one); tiles are added up in float64.

Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator, assignment"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from braidwater.kernels.exp_log import exp_below, log1p_unit
from braidwater.kernels.prefetch import prefetch

TILE_ROWS = 512
STRIP_ROWS = 256  # between two requests: of more lines at a time than the processor keeps track of, some are waited for
_FAST = {"contract", "reassoc", "nsz"}


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_predictor(X: Any, w: Any, z: Any, s: int, e: int) -> None:
    """Add ``w @ X[:, s:e]`` to ``z[: e - s]``, and prefetch half of the rows behind; X is ``(columns, rows)``, C-contiguous."""
    k = X.shape[0]
    number = z.dtype.type
    j = 0
    while j + 4 <= k:
        w0, w1, w2, w3 = w[j], w[j + 1], w[j + 2], w[j + 3]
        for begin in range(s, e, STRIP_ROWS):
            end = min(begin + STRIP_ROWS, e)
            prefetch(X, j, j + 4, begin + e - s, (begin + end) // 2 + e - s)
            a, b, c, d = X[j][begin:end], X[j + 1][begin:end], X[j + 2][begin:end], X[j + 3][begin:end]
            zz = z[begin - s : end - s]
            for i in range(end - begin):
                zz[i] += (number(a[i]) * w0 + number(b[i]) * w1) + (number(c[i]) * w2 + number(d[i]) * w3)
        j += 4
    while j < k:
        a = X[j][s:e]
        zz = z[: e - s]
        w0 = w[j]
        for i in range(e - s):
            zz[i] += number(a[i]) * w0
        j += 1


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_gradient(X: Any, r: Any, g: Any, s: int, e: int) -> None:
    """Add ``X[:, s:e] @ r[: e - s]``, summed in the type of r, to g (float64), and prefetch the other half of the rows behind."""
    k = X.shape[0]
    number = r.dtype.type
    zero = number(0)
    j = 0
    while j + 4 <= k:
        g0 = g1 = g2 = g3 = zero
        for begin in range(s, e, STRIP_ROWS):
            end = min(begin + STRIP_ROWS, e)
            prefetch(X, j, j + 4, (begin + end) // 2 + e - s, end + e - s)
            a, b, c, d = X[j][begin:end], X[j + 1][begin:end], X[j + 2][begin:end], X[j + 3][begin:end]
            rr = r[begin - s : end - s]
            for i in range(end - begin):
                ri = rr[i]
                g0 += number(a[i]) * ri
                g1 += number(b[i]) * ri
                g2 += number(c[i]) * ri
                g3 += number(d[i]) * ri
        g[j] += g0
        g[j + 1] += g1
        g[j + 2] += g2
        g[j + 3] += g3
        j += 4
    while j < k:
        prefetch(X, j, j + 1, e, e + e - s)
        a = X[j][s:e]
        rr = r[: e - s]
        g0 = zero
        for i in range(e - s):
            g0 += number(a[i]) * rr[i]
        g[j] += g0
        j += 1


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def log_loss(z: Any, y: Any, q: Any, r: Any) -> Any:
    """Log-loss of the linear predictors z for labels y in {0, 1}; residuals ``q (p - y)`` to r, of the type of z.

    q holds row weights, None where every row counts once. Returns the weighted sum of the losses, the number of rows with
    weight on the wrong side, ``(2 y - 1) z <= 0`` (a count, as a minimum of floats keeps the compiler from using vectors),
    and the sum of the residuals.
    """
    number = z.dtype.type
    zero, one = number(0), number(1)
    total = wrong = residual = zero
    for i in range(z.shape[0]):
        x = z[i]
        label = number(y[i])
        weight = one
        if q is not None:
            weight = q[i]
        small = exp_below(-abs(x))
        inverse = one / (one + small)
        gap = weight * ((inverse if x >= zero else small * inverse) - label)
        r[i] = gap
        residual += gap
        total += weight * (max(x, zero) + log1p_unit(small) - label * x)
        wrong += one if (label + label - one) * x <= zero and weight > zero else zero
    return np.float64(total), np.float64(wrong), np.float64(residual)


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def log_losses(z: Any, y: Any, q: Any, r: Any, loss: Any, wrong: Any) -> None:
    """`log_loss` of every row of z ``(models, rows)``, which becomes the residuals; r is scratch ``(rows,)``.

    Not in place: the compiler uses vectors only where what is read and what is written lie apart.
    """
    for k in range(z.shape[0]):
        row = z[k]
        loss[k], wrong[k], _ = log_loss(row, y, q, r)
        for i in range(row.shape[0]):
            row[i] = r[i]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def logistic_pass(X: Any, y: Any, w: Any, bias: Any, z: Any, r: Any, g: Any) -> Any:
    """Loss, rows on the wrong side and sum of residuals of a block with one group of floats; the gradient is added to g.

    X ``(columns, rows)``, y ``(rows,)`` uint8, w ``(columns,)`` of the type of z, z and r scratch of `TILE_ROWS`, g float64.
    """
    n = X.shape[1]
    total = wrong = residual = 0.0
    for s in range(0, n, TILE_ROWS):
        e = min(n, s + TILE_ROWS)
        z[: e - s] = bias
        add_predictor(X, w, z, s, e)
        part = log_loss(z[: e - s], y[s:e], None, r[: e - s])
        total += part[0]
        wrong += part[1]
        residual += part[2]
        add_gradient(X, r, g, s, e)
    return total, wrong, residual
