"""Averaged stochastic steps through the mini-batches of a block in one reading of the rows, compiled by numba.

A mini-batch stays in the second-level cache while it is read twice: linear predictor and residual, gradient. Arithmetic inside a
mini-batch is in the type of the scratch that is handed in; gradients, steps and averages are float64.

Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator, assignment, name-defined, no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from braidwater.kernels.fused_logistic import add_gradient, add_predictor, log_loss

_FAST = {"contract", "reassoc", "nsz"}


@njit(cache=True, error_model="numpy")
def take_step(
    gradient: Any, residual: float, weight: float, rate: float, size: float, center: Any, scale: Any, inverse: Any,
    penalty: Any, weights: Any, raw: Any,
) -> None:  # fmt: skip
    """One step: `weights` (of standardised columns, intercept last) and `raw` (the same for the raw columns) are changed.

    `gradient` ``(width,)`` and `residual` are sums over the raw columns of a mini-batch whose rows weigh `weight`; `size` is what
    a whole mini-batch weighs, `inverse` the inverse of the curvature, `penalty` times half the squared weights the penalty.
    """
    width = len(center)
    slope = np.empty(width + 1)
    for j in range(width):
        slope[j] = ((gradient[j] - center[j] * residual) / scale[j] / weight) + penalty[j] * weights[j]
    slope[width] = residual / weight
    step = inverse @ slope
    squared = 0.0
    for j in range(width + 1):
        squared += step[j] * slope[j]
    if not squared < np.inf:
        weights[:] = np.nan  # a step that was not taken must show
    rate *= min(weight / size, 1.0)
    # a step that moves the predictors by more than one standard deviation is one off a curvature that does not hold
    # here
    if rate * rate * squared > 1.0:
        rate = 1.0 / np.sqrt(squared)
    shift = 0.0
    for j in range(width + 1):
        weights[j] -= rate * step[j]
    for j in range(width):
        raw[j] = weights[j] / scale[j]
        shift += raw[j] * center[j]
    raw[width] = weights[width] - shift


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def averaged_sgd_pass(
    X: Any, y: Any, q: Any, begin: int, batch: int, done: float, first_rate: float, power: float, size: float, center: Any,
    scale: Any, inverse: Any, penalty: Any, weights: Any, raw: Any, total: Any, ones: Any, z: Any, r: Any,
) -> Any:  # fmt: skip
    """Steps through the rows of X ``(columns, rows)`` from row `begin` on; returns weight, loss and mini-batches gone by.

    y ``(rows,)`` uint8; q ``(rows,)`` row weights, or nothing where every row counts once. The step after `done` mini-batches is
    ``min(first_rate, done ** -power)``. `weights`, `raw` and `total`, the sum of `raw` over the rows, are changed. `ones`, z and
    r are scratch of `batch` numbers of the type of the arithmetic, `ones` holding 1. The loss of a mini-batch is that before its
    step.
    """
    n = X.shape[1]
    width = X.shape[0]
    gradient = np.zeros(width)
    cast = np.empty(width, z.dtype)
    seen = 0.0
    loss = 0.0
    for s in range(begin, n, batch):
        e = min(n, s + batch)
        m = e - s
        z[:m] = raw[width]
        for j in range(width):
            cast[j] = raw[j]
            gradient[j] = 0.0
        weight = float(m)
        if len(q):
            weight = 0.0
            for i in range(m):
                ones[i] = q[s + i]
                weight += q[s + i]
            if not weight > 0:
                continue
        add_predictor(X, cast, z, s, e)
        part, _, residual = log_loss(z[:m], y[s:e], ones[:m], r[:m])
        add_gradient(X, r, gradient, s, e)
        done += weight / size
        rate = min(first_rate, done**-power)
        take_step(gradient, residual, weight, rate, size, center, scale, inverse, penalty, weights, raw)
        for j in range(width + 1):
            total[j] += weight * raw[j]
        seen += weight
        loss += part
    return seen, loss, done
