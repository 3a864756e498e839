"""Log-loss, gradient and curvature of a logistic model for each group of rows, compiled by numba.

Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from braidwater.kernels.exp_log import exp_below, log1p_unit

_FAST = {"contract", "reassoc", "nsz"}


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def logistic_groups(
    X: Any,
    y: Any,
    q: Any,
    begins: Any,
    counts: Any,
    center: Any,
    scale: Any,
    points: Any,
    weight: Any,
    loss: Any,
    wrong: Any,
    gradient: Any,
) -> None:
    """Evaluate the model of every group on its rows; X becomes the standardised columns times the root of the curvature.

    X ``(columns, rows)`` float64 holds the ones last; the rows of group g are ``begins[g]`` and on. `center`, `scale`, `points`
    and `gradient` are ``(groups, columns)``. q ``(rows,)`` holds row weights, or nothing where every row counts once.
    """
    k = X.shape[0]
    n = X.shape[1]
    z, r = np.empty(n), np.empty(n)
    for g in range(begins.shape[0]):
        s = begins[g]
        e = s + counts[g]
        zz, rr, labels = z[s:e], r[s:e], y[s:e]
        zz[:] = 0.0
        for j in range(k):
            x = X[j][s:e]
            middle, size, w = center[g, j], 1.0 / scale[g, j], points[g, j]
            for i in range(x.shape[0]):
                x[i] = (x[i] - middle) * size
                zz[i] += w * x[i]
        total = lost = heavy = 0.0
        for i in range(zz.shape[0]):
            t = zz[i]
            share = q[s + i] if len(q) else 1.0
            small = exp_below(-abs(t))
            inverse = 1.0 / (1.0 + small)
            rr[i] = share * ((inverse if t >= 0.0 else small * inverse) - labels[i])
            zz[i] = np.sqrt(share * small) * inverse
            total += share * (max(t, 0.0) + log1p_unit(small) - labels[i] * t)
            lost += 1.0 if (2.0 * labels[i] - 1.0) * t <= 0.0 and share > 0.0 else 0.0
            heavy += share
        weight[g], loss[g], wrong[g] = heavy, total, lost
        for j in range(k):
            x = X[j][s:e]
            slope = 0.0
            for i in range(x.shape[0]):
                slope += x[i] * rr[i]
                x[i] *= zz[i]
            gradient[g, j] = slope
