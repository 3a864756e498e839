"""A step of Lloyd's algorithm in one reading of the rows, compiled by numba.

A tile of `TILE_ROWS` rows stays in the second-level cache while it is read once for every centre's scores and once for every
centre's sums. Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator, assignment"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from braidwater.kernels.fused_logistic import add_gradient, add_predictor

TILE_ROWS = 1024
_FAST = {"contract", "reassoc", "nsz"}


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def closer(score: Any, best: Any, label: Any, j: Any) -> None:
    """Where `score` is below `best` it takes its place, and `label` becomes j (a number of the type of the scores)."""
    for i in range(score.shape[0]):
        less = score[i] < best[i]
        label[i] = j if less else label[i]
        best[i] = score[i] if less else best[i]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def members_of(label: Any, j: Any, q: Any, member: Any) -> Any:
    """The weights q of the rows with label j to `member`, 0 for the others; returns their sum."""
    total = q.dtype.type(0)
    zero = q.dtype.type(0)
    for i in range(label.shape[0]):
        value = q[i] if label[i] == j else zero
        member[i] = value
        total += value
    return total


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def nearest_pass(X: Any, q: Any, negative: Any, half: Any, weight: Any, sums: Any) -> None:
    """Add up the rows of X ``(columns, rows)`` by nearest centre.

    q ``(rows,)`` holds row weights, or nothing where every row counts once. `negative` ``(k, columns)`` are the centres times -1,
    `half` ``(k,)`` half their squared lengths, all of the type of X. `weight` ``(k,)`` and `sums` ``(k, columns)`` float64.
    """
    n = X.shape[1]
    k = negative.shape[0]
    score = np.empty(TILE_ROWS, X.dtype)
    best = np.empty(TILE_ROWS, X.dtype)
    label = np.empty(TILE_ROWS, X.dtype)
    member = np.empty(TILE_ROWS, X.dtype)
    ones = np.ones(TILE_ROWS, X.dtype)
    for s in range(0, n, TILE_ROWS):
        e = min(n, s + TILE_ROWS)
        m = e - s
        best[:m] = np.inf
        for j in range(k):
            score[:m] = half[j]
            add_predictor(X, negative[j], score, s, e)
            closer(score[:m], best[:m], label[:m], X.dtype.type(j))
        for j in range(k):
            rows = q[s:e] if len(q) else ones[:m]
            total = members_of(label[:m], X.dtype.type(j), rows, member[:m])
            if total > 0:
                weight[j] += total
                add_gradient(X, member, sums[j], s, e)
