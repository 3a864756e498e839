"""Logistic losses and gradients of many models in one reading of the rows, compiled by numba.

A tile stays in the second-level cache while it is multiplied with all models, and while their residuals are multiplied with it.
At 30 columns 8 models take 25 ns a row and 32 take 88, where calls of BLAS for every tile take 40 and 131.

Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator, assignment"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from braidwater.kernels.four_by_four import TILE_ROWS, add_backward, add_forward
from braidwater.kernels.fused_logistic import log_loss
from braidwater.kernels.prefetch import prefetch

_FAST = {"contract", "reassoc", "nsz"}
_T = TILE_ROWS


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def logistic_path_pass(
    X: Any, y: Any, W: Any, biases: Any, Z: Any, R: Any, G: Any, loss: Any, wrong: Any, residual: Any
) -> None:
    """Add losses, rows on the wrong side, sums of residuals and gradients of every model over a block to the last four.

    X ``(columns, rows)``, y ``(rows,)`` uint8. W ``(models, columns)`` and G, float64, of the same shape are padded to multiples
    of four; `biases`, `loss`, `wrong` and `residual` ``(models,)`` are not. Z and R are scratch of ``len(W) TILE_ROWS`` numbers
    of the type of W, which is that of the arithmetic inside a tile.
    """
    columns, n = X.shape
    models = len(biases)
    zero = np.zeros(_T, X.dtype)
    R[:] = 0
    for s in range(0, n, _T):
        e = min(n, s + _T)
        m = e - s
        for g in range(models):
            Z[g * _T : g * _T + m] = biases[g]
        for g in range(0, len(W), 4):
            for k in range(0, columns, 4):
                a, b, c, d = _four(X, k, s, e, zero)
                add_forward(a, b, c, d, W, g, k, Z[g * _T : (g + 4) * _T])
        for g in range(models):
            here = slice(g * _T, g * _T + m)
            part = log_loss(Z[here], y[s:e], None, R[here])
            loss[g] += part[0]
            wrong[g] += part[1]
            residual[g] += part[2]
        for g in range(0, len(W), 4):
            for k in range(0, columns, 4):
                a, b, c, d = _four(X, k, s, e, zero)
                prefetch(X, k, min(k + 4, columns), e + g * m // len(W), e + (g + 4) * m // len(W))
                add_backward(a, b, c, d, R[g * _T : (g + 4) * _T], G, g, k)


@njit(inline="always")
def _four(X: Any, k: int, s: int, e: int, zero: Any) -> Any:
    """Rows s to e of four columns from k on; zeros for those that are not there."""
    a = X[k][s:e]
    b = X[k + 1][s:e] if k + 1 < X.shape[0] else zero[: e - s]
    c = X[k + 2][s:e] if k + 2 < X.shape[0] else zero[: e - s]
    d = X[k + 3][s:e] if k + 3 < X.shape[0] else zero[: e - s]
    return a, b, c, d
