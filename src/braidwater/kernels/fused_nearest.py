"""A step of Lloyd's algorithm in one reading of the rows, compiled by numba.

A tile of `TILE_ROWS` rows stays in the second-level cache while it is read once for every centre's scores and once for every
centre's sums, four centres and four columns at a time (`four_by_four`).

Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator, assignment"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from braidwater.kernels.four_by_four import TILE_ROWS, add_backward, add_forward

CENTERS = 64  # scored at a time: their scores take as much of the cache as the rows
_FAST = {"contract", "reassoc", "nsz"}
_T = TILE_ROWS


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _closer(S: Any, best: Any, label: Any, v: Any, one: Any) -> None:
    """Where one of four scores is below `best` it takes its place, and `label` its number, counted from v."""
    w = v + one  # `one` is of the type of v: the integer would turn float32 into float64
    x = w + one
    y = x + one
    for i in range(best.shape[0]):
        b, number = best[i], label[i]
        p, q, r, s = S[i], S[_T + i], S[2 * _T + i], S[3 * _T + i]
        number = v if p < b else number
        b = p if p < b else b
        number = w if q < b else number
        b = q if q < b else b
        number = x if r < b else number
        b = r if r < b else b
        number = y if s < b else number
        b = s if s < b else b
        best[i] = b
        label[i] = number


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _members(label: Any, q: Any, v: Any, one: Any, S: Any, weight: Any) -> None:
    """The weights q of the rows with the four labels from v on to S, 0 for other rows; their sums are added to `weight`."""
    w = v + one
    x = w + one
    y = x + one
    zero = v - v
    a = b = c = d = zero
    for i in range(label.shape[0]):
        number, heavy = label[i], q[i]
        m = heavy if number == v else zero
        n = heavy if number == w else zero
        o = heavy if number == x else zero
        p = heavy if number == y else zero
        S[i], S[_T + i], S[2 * _T + i], S[3 * _T + i] = m, n, o, p
        a += m
        b += n
        c += o
        d += p
    weight[0] += a
    weight[1] += b
    weight[2] += c
    weight[3] += d


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _nearest_of_tile(X: Any, s: int, e: int, W: Any, half: Any, S: Any, zero: Any, best: Any, label: Any) -> None:
    """The lowest score of each row of a tile to `best`, and whose it is to `label`."""
    m = e - s
    best[:] = np.inf
    label[:] = 0
    for first in range(0, W.shape[0], CENTERS):
        last = min(first + CENTERS, W.shape[0])
        for g in range(first, last):
            S[(g - first) * _T : (g - first) * _T + m] = half[g]
        for k in range(0, W.shape[1], 4):
            a = X[k][s:e]
            b = X[k + 1][s:e] if k + 1 < X.shape[0] else zero[:m]
            c = X[k + 2][s:e] if k + 2 < X.shape[0] else zero[:m]
            d = X[k + 3][s:e] if k + 3 < X.shape[0] else zero[:m]
            for g in range(first, last, 4):
                add_forward(a, b, c, d, W, g, k, S[(g - first) * _T : (g - first + 4) * _T])
        for g in range(first, last, 4):
            _closer(S[(g - first) * _T : (g - first + 4) * _T], best[:m], label[:m], X.dtype.type(g), X.dtype.type(1))


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _sums_of_tile(
    X: Any, s: int, e: int, rows: Any, S: Any, zero: Any, label: Any, weight: Any, sums: Any, with_sums: bool
) -> None:
    """Add the rows of a tile, weighted by `rows`, to the sums of their centres."""
    m = e - s
    for first in range(0, sums.shape[0], CENTERS):
        last = min(first + CENTERS, sums.shape[0])
        for g in range(first, last, 4):
            part = S[(g - first) * _T : (g - first + 4) * _T]
            _members(label[:m], rows, X.dtype.type(g), X.dtype.type(1), part, weight[g : g + 4])
        if not with_sums:
            continue
        for k in range(0, sums.shape[1], 4):
            a = X[k][s:e]
            b = X[k + 1][s:e] if k + 1 < X.shape[0] else zero[:m]
            c = X[k + 2][s:e] if k + 2 < X.shape[0] else zero[:m]
            d = X[k + 3][s:e] if k + 3 < X.shape[0] else zero[:m]
            for g in range(first, last, 4):
                add_backward(a, b, c, d, S[(g - first) * _T : (g - first + 4) * _T], sums, g, k)


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def nearest_pass(
    X: Any, q: Any, negative: Any, half: Any, weight: Any, sums: Any, labels: Any, scores: Any, with_sums: bool
) -> None:
    """Add up the rows of X ``(columns, rows)`` by nearest centre.

    q ``(rows,)`` holds row weights, or nothing where every row counts once. `negative` ``(k, columns)`` are the centres times -1,
    `half` ``(k,)`` half their squared lengths, all of the type of X and padded to multiples of four with zeros and infinities.
    `weight` ``(k,)`` and `sums` ``(k, columns)``, padded too, are float64. `labels` ``(rows,)`` int32 and `scores` ``(rows,)``
    receive the nearest centre and half the squared distance less that from the origin, unless they are empty. Without `with_sums`
    only weights are summed.
    """
    n = X.shape[1]
    S = np.zeros(min(CENTERS, negative.shape[0]) * _T, X.dtype)
    zero = np.zeros(_T, X.dtype)
    best = np.empty(_T, X.dtype)
    label = np.empty(_T, X.dtype)
    ones = np.ones(_T, X.dtype)
    for s in range(0, n, _T):
        e = min(n, s + _T)
        m = e - s
        _nearest_of_tile(X, s, e, negative, half, S, zero, best, label)
        if len(labels):
            for i in range(m):
                labels[s + i] = np.int32(label[i])
        if len(scores):
            for i in range(m):
                scores[s + i] = best[i]
        if len(weight):
            _sums_of_tile(X, s, e, q[s:e] if len(q) else ones[:m], S, zero, label, weight, sums, with_sums)
