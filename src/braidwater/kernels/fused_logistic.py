"""The logistic loss and its gradient in one reading of the rows, compiled by numba.

A tile of `TILE_ROWS` rows stays in the second-level cache while it is read twice: linear predictor, loss and residual,
gradient. Columns are taken four at a time as contiguous one-dimensional views (two-dimensional slices take five times
as long). Arithmetic inside a tile is in the type of the weights that are handed in (float32 or float64, over columns of
either, which are converted one by one); tiles are added up in float64.

Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator, assignment"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from braidwater.kernels.exp_log import exp32, exp64, log1p32, log1p64

TILE_ROWS = 2048
_FAST = {"contract", "reassoc", "nsz"}


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_predictor(X: Any, w: Any, z: Any, s: int, e: int) -> None:
    """Add ``w @ X[:, s:e]`` to ``z[: e - s]``; X is ``(columns, rows)``, C-contiguous."""
    k = X.shape[0]
    zz = z[: e - s]
    number = z.dtype.type
    j = 0
    while j + 4 <= k:
        a, b, c, d = X[j][s:e], X[j + 1][s:e], X[j + 2][s:e], X[j + 3][s:e]
        w0, w1, w2, w3 = w[j], w[j + 1], w[j + 2], w[j + 3]
        for i in range(e - s):
            zz[i] += (number(a[i]) * w0 + number(b[i]) * w1) + (number(c[i]) * w2 + number(d[i]) * w3)
        j += 4
    while j < k:
        a = X[j][s:e]
        w0 = w[j]
        for i in range(e - s):
            zz[i] += number(a[i]) * w0
        j += 1


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_gradient(X: Any, r: Any, g: Any, s: int, e: int) -> None:
    """Add ``X[:, s:e] @ r[: e - s]``, summed in the type of r, to g (float64)."""
    k = X.shape[0]
    rr = r[: e - s]
    number = r.dtype.type
    zero = number(0)
    j = 0
    while j + 4 <= k:
        a, b, c, d = X[j][s:e], X[j + 1][s:e], X[j + 2][s:e], X[j + 3][s:e]
        g0 = zero
        g1 = zero
        g2 = zero
        g3 = zero
        for i in range(e - s):
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
        a = X[j][s:e]
        g0 = zero
        for i in range(e - s):
            g0 += number(a[i]) * rr[i]
        g[j] += g0
        j += 1


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def loss32(z: Any, y: Any, r: Any) -> Any:
    """Log-loss of the linear predictors z (float32) for labels y in {0, 1}; residuals ``p - y`` to r.

    Returns the sum of the losses and the number of rows on the wrong side, ``(2 y - 1) z <= 0`` (a count, as a minimum
    of floats keeps the compiler from using vectors).
    """
    total = np.float32(0)
    wrong = np.float32(0)
    one = np.float32(1)
    for i in range(z.shape[0]):
        x = z[i]
        label = y[i]
        small = exp32(-abs(x))
        inverse = one / (one + small)
        r[i] = (inverse if x >= 0 else small * inverse) - label
        total += max(x, np.float32(0)) + log1p32(small) - label * x
        wrong += one if (label + label - one) * x <= 0 else np.float32(0)
    return np.float64(total), np.float64(wrong)


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def loss64(z: Any, y: Any, r: Any) -> Any:
    """As `loss32`, in float64."""
    total = 0.0
    wrong = 0.0
    for i in range(z.shape[0]):
        x = z[i]
        label = y[i]
        small = exp64(-abs(x))
        inverse = 1.0 / (1.0 + small)
        r[i] = (inverse if x >= 0 else small * inverse) - label
        total += max(x, 0.0) + log1p64(small) - label * x
        wrong += 1.0 if (label + label - 1.0) * x <= 0 else 0.0
    return total, wrong


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def weighted_loss32(z: Any, y: Any, q: Any, r: Any) -> Any:
    """As `loss32` with row weights q; rows without weight are not counted."""
    total = np.float32(0)
    wrong = np.float32(0)
    one = np.float32(1)
    for i in range(z.shape[0]):
        x = z[i]
        label = y[i]
        small = exp32(-abs(x))
        inverse = one / (one + small)
        r[i] = q[i] * ((inverse if x >= 0 else small * inverse) - label)
        total += q[i] * (max(x, np.float32(0)) + log1p32(small) - label * x)
        wrong += one if q[i] * (label + label - one) * x <= 0 and q[i] > 0 else np.float32(0)
    return np.float64(total), np.float64(wrong)


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def weighted_loss64(z: Any, y: Any, q: Any, r: Any) -> Any:
    """As `weighted_loss32`, in float64."""
    total = 0.0
    wrong = 0.0
    for i in range(z.shape[0]):
        x = z[i]
        label = y[i]
        small = exp64(-abs(x))
        inverse = 1.0 / (1.0 + small)
        r[i] = q[i] * ((inverse if x >= 0 else small * inverse) - label)
        total += q[i] * (max(x, 0.0) + log1p64(small) - label * x)
        wrong += 1.0 if q[i] * (label + label - 1.0) * x <= 0 and q[i] > 0 else 0.0
    return total, wrong


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def losses32(z: Any, y: Any, r: Any, loss: Any, wrong: Any) -> None:
    """`loss32` of every row of z ``(models, rows)``, which becomes the residuals; r is scratch ``(rows,)``.

    Not in place: the compiler uses vectors only where what is read and what is written lie apart.
    """
    for k in range(z.shape[0]):
        row = z[k]
        loss[k], wrong[k] = loss32(row, y, r)
        for i in range(row.shape[0]):
            row[i] = r[i]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def weighted_losses32(z: Any, y: Any, q: Any, r: Any, loss: Any, wrong: Any) -> None:
    """As `losses32` with row weights q."""
    for k in range(z.shape[0]):
        row = z[k]
        loss[k], wrong[k] = weighted_loss32(row, y, q, r)
        for i in range(row.shape[0]):
            row[i] = r[i]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def losses64(z: Any, y: Any, r: Any, loss: Any, wrong: Any) -> None:
    """`loss64` of every row of z ``(models, rows)``, which becomes the residuals; r is scratch ``(rows,)``.

    Not in place: the compiler uses vectors only where what is read and what is written lie apart.
    """
    for k in range(z.shape[0]):
        row = z[k]
        loss[k], wrong[k] = loss64(row, y, r)
        for i in range(row.shape[0]):
            row[i] = r[i]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def weighted_losses64(z: Any, y: Any, q: Any, r: Any, loss: Any, wrong: Any) -> None:
    """As `losses64` with row weights q."""
    for k in range(z.shape[0]):
        row = z[k]
        loss[k], wrong[k] = weighted_loss64(row, y, q, r)
        for i in range(row.shape[0]):
            row[i] = r[i]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def logistic_pass32(X: Any, y: Any, w: Any, bias: Any, z: Any, r: Any, g: Any) -> Any:
    """Loss, rows on the wrong side and sum of residuals of a block with one float32 group; the gradient is added to g
    (float64).

    X ``(columns, rows)``, y ``(rows,)`` uint8 or float, w ``(columns,)`` float32, z and r scratch of `TILE_ROWS`.
    """
    n = X.shape[1]
    labels = np.empty(TILE_ROWS, np.float32)
    total = 0.0
    residual = 0.0
    wrong = 0.0
    for s in range(0, n, TILE_ROWS):
        e = min(n, s + TILE_ROWS)
        m = e - s
        for i in range(m):
            z[i] = bias
            labels[i] = y[s + i]
        add_predictor(X, w, z, s, e)
        loss, missed = loss32(z[:m], labels[:m], r[:m])
        total += loss
        wrong += missed
        part = np.float32(0)
        for i in range(m):
            part += r[i]
        residual += part
        add_gradient(X, r, g, s, e)
    return total, wrong, residual


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def logistic_pass64(X: Any, y: Any, w: Any, bias: Any, z: Any, r: Any, g: Any) -> Any:
    """As `logistic_pass32` with float64 arithmetic over columns of float32 or float64."""
    n = X.shape[1]
    labels = np.empty(TILE_ROWS, np.float64)
    total = 0.0
    residual = 0.0
    wrong = 0.0
    for s in range(0, n, TILE_ROWS):
        e = min(n, s + TILE_ROWS)
        m = e - s
        for i in range(m):
            z[i] = bias
            labels[i] = y[s + i]
        add_predictor(X, w, z, s, e)
        loss, missed = loss64(z[:m], labels[:m], r[:m])
        total += loss
        wrong += missed
        part = 0.0
        for i in range(m):
            part += r[i]
        residual += part
        add_gradient(X, r, g, s, e)
    return total, wrong, residual
