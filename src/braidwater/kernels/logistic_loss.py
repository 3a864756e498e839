"""Logistic and multinomial losses with their residuals, for many models at once, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from braidwater.kernels.scratch import scratch

Array = NDArray[Any]


def logistic_loss(z: Array, y: Array, weights: Array | None) -> tuple[Array, Array]:
    """Log-loss of K models on a tile; z becomes the residuals.

    z ``(K, rows)`` holds linear predictors, y ``(rows,)`` labels 0 or 1 of the type of z, weights ``(rows,)`` or None.
    Returns the weighted loss of each model and how many rows with weight are on the wrong side (``(2 y - 1) z <= 0``),
    float64 both.
    """
    # t = z for class 0 and -z for class 1: the loss is log(1 + e^t), the residual the sign of t times 1 / (1 + e^-t)
    sign = 1 - (y + y)
    z *= sign
    positive = z >= 0
    wrong = np.count_nonzero(positive if weights is None else positive & (weights > 0), axis=1).astype(np.float64)
    small = scratch("small", z.shape, z.dtype)
    loss = scratch("loss", z.shape, z.dtype)
    np.abs(z, out=small)
    np.negative(small, out=small)
    np.exp(small, out=small)
    np.log1p(small, out=loss)
    np.maximum(z, 0, out=z)
    loss += z
    # summed in its own type by numpy's pairwise sum, which is exact enough for a tile
    total = (loss.sum(axis=1) if weights is None else loss @ weights).astype(np.float64)
    # 1 / (1 + e) for t >= 0 and e / (1 + e) below: neither overflows nor cancels
    np.add(small, 1, out=loss)
    np.copyto(small, 1, where=positive)
    np.divide(small, loss, out=z)
    z *= sign if weights is None else sign * weights
    return total, wrong


def softmax_loss(z: Array, codes: Array, weights: Array | None) -> tuple[Array, Array]:
    """Multinomial log-loss of K models on a tile; z becomes the residuals.

    z ``(K, classes, rows)`` holds linear predictors, codes ``(rows,)`` the class of each row (intp). Returns what
    `logistic_loss` does; a row is on the wrong side unless its own class has the largest predictor alone.
    """
    models, _, rows = z.shape
    every = np.arange(rows)
    z -= z.max(axis=1, keepdims=True)
    chosen = z[:, codes, every]
    wrong = np.empty(models)
    for k in range(models):
        ties = np.count_nonzero(z[k] == 0, axis=0)
        missed = (chosen[k] < 0) | (ties > 1)
        wrong[k] = np.count_nonzero(missed if weights is None else missed & (weights > 0))
    np.exp(z, out=z)
    total = z.sum(axis=1)
    z /= total[:, None]
    losses = np.log(total) - chosen
    value = losses.sum(axis=1, dtype=np.float64) if weights is None else (losses @ weights).astype(np.float64)
    z[:, codes, every] -= 1
    if weights is not None:
        z *= weights
    return value, wrong
