"""Log-loss, gradient and Hessian of a logistic model for each group of rows, compiled by numba.

Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator, assignment"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from braidwater.kernels.exp_log import exp_below, log1p_unit
from braidwater.kernels.fused_products import _sixteen

TILE_ROWS = 512  # whose standardised columns stay in the first caches
LANES = 8
_FAST = {"contract", "reassoc", "nsz"}


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def logistic_groups(
    X: Any,
    y: Any,
    q: Any,
    begins: Any,
    ends: Any,
    center: Any,
    scale: Any,
    points: Any,
    weight: Any,
    loss: Any,
    wrong: Any,
    gradient: Any,
    hessian: Any,
) -> None:
    """Evaluate the model of every group on its rows, ``X[:, begins[g]:ends[g]]``.

    X is ``(columns, rows)``, of any floats; `center` and `scale` are ``(groups, columns)``, `points` and `gradient` ``(groups,
    columns + 1)`` with the intercept last, `hessian` ``(groups, columns + 1, columns + 1)``. y ``(rows,)`` is 0 or 1. q
    ``(rows,)`` holds row weights, or nothing where every row counts once.
    """
    k = X.shape[0]
    padded = (k + 4) // 4 * 4
    B, S = np.zeros((padded, TILE_ROWS)), np.empty((padded, padded))
    z, r = np.empty(TILE_ROWS), np.empty(TILE_ROWS)
    for g in range(begins.shape[0]):
        S[:, :] = 0.0
        gradient[g, :] = 0.0
        total = lost = heavy = 0.0
        for s in range(begins[g], ends[g], TILE_ROWS):
            n = min(TILE_ROWS, ends[g] - s)
            zz, rr, ones = z[:n], r[:n], B[k]
            zz[:] = points[g, k]
            for j in range(k):
                x, b = X[j][s : s + n], B[j]
                middle, size, w = center[g, j], 1.0 / scale[g, j], points[g, j]
                for i in range(n):
                    value = (x[i] - middle) * size
                    b[i] = value
                    zz[i] += w * value
            for i in range(n):
                t, label = zz[i], float(y[s + i])
                share = q[s + i] if len(q) else 1.0
                small = exp_below(-abs(t))
                inverse = 1.0 / (1.0 + small)
                rr[i] = share * ((inverse if t >= 0.0 else small * inverse) - label)
                zz[i] = np.sqrt(share * small) * inverse
                total += share * (max(t, 0.0) + log1p_unit(small) - label * t)
                lost += 1.0 if (2.0 * label - 1.0) * t <= 0.0 and share > 0.0 else 0.0
                heavy += share
            for j in range(k):
                b = B[j]
                slope = 0.0
                for i in range(n):
                    slope += b[i] * rr[i]
                    b[i] *= zz[i]
                gradient[g, j] += slope
            slope = 0.0
            for i in range(n):
                slope += rr[i]
                ones[i] = zz[i]
            gradient[g, k] += slope
            _add_products(B, n, S)
        weight[g], loss[g], wrong[g] = heavy, total, lost
        for j in range(k + 1):
            for i in range(j + 1):
                hessian[g, j, i] = hessian[g, i, j] = S[j, i]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _add_products(B: Any, rows: int, S: Any) -> None:
    """Add ``B[:, :rows] @ B[:, :rows]'`` to the lower triangle of S; what lies behind the rows is overwritten."""
    whole = -(-rows // LANES) * LANES  # sums are read and written once for sixteen products of whole vectors
    for j in range(B.shape[0]):
        for i in range(rows, whole):
            B[j, i] = 0.0
    C = B[:, :whole]
    for j in range(0, B.shape[0], 4):
        for k in range(0, j + 4, 4):
            _sixteen(C[j], C[j + 1], C[j + 2], C[j + 3], C[k], C[k + 1], C[k + 2], C[k + 3], S, j, k)
