"""Products of columns with each other by group, compiled by numba.

Columns are turned to rows in the order of the groups: what is added to stays in the first-level cache, and runs of any length
are whole vectors. Importing this module imports numba; what it compiles is kept in numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator, assignment"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from braidwater.kernels.fused_products import _sixteen

LANES = 8  # rows are padded to a multiple of it: the inner loop is then whole vectors
AT_A_TIME = 4  # rows: sums are read and written once for all of them
TAKEN = 64  # rows that are taken before they are multiplied
STRIP = 1024  # rows that are dealt four columns at a time
_FAST = {"contract", "reassoc", "nsz"}


@njit(nogil=True, cache=True, error_model="numpy")
def deal(X: Any, begin: int, places: Any, at: int, R: Any) -> None:
    """Write the rows ``X[:, begin:begin + len(places)]`` to ``R[places, at:at + columns]``."""
    columns = X.shape[0]
    for first in range(0, places.shape[0], STRIP):
        q = places[first : first + STRIP]
        s = begin + first
        e = s + q.shape[0]
        j = 0
        while j + 4 <= columns:
            _deal_four(X[j][s:e], X[j + 1][s:e], X[j + 2][s:e], X[j + 3][s:e], q, np.uintp(at + j), R)
            j += 4
        while j < columns:
            _deal_one(X[j][s:e], q, np.uintp(at + j), R)
            j += 1


@njit(nogil=True, cache=True, error_model="numpy")
def _deal_four(a: Any, b: Any, c: Any, d: Any, places: Any, at: Any, R: Any) -> None:
    for i in range(places.shape[0]):
        row = R[np.uintp(places[i])]  # of unsigned numbers nobody asks whether they count from the end
        row[at], row[at + np.uintp(1)], row[at + np.uintp(2)], row[at + np.uintp(3)] = a[i], b[i], c[i], d[i]


@njit(nogil=True, cache=True, error_model="numpy")
def _deal_one(a: Any, places: Any, at: Any, R: Any) -> None:
    for i in range(places.shape[0]):
        R[np.uintp(places[i]), at] = a[i]


@njit(nogil=True, cache=True, error_model="numpy")
def order_by_group(codes: Any, lowest: int, bounds: Any, places: Any) -> None:
    """Where each row lies when those of a group lie together as they come: g's at ``bounds[g - lowest]:bounds[g - lowest + 1]``.

    `bounds` starts as zeros.
    """
    for i in range(codes.shape[0]):
        bounds[codes[i] - lowest + 1] += 1
    for g in range(bounds.shape[0] - 1):
        bounds[g + 1] += bounds[g]
    free = bounds[:-1].copy()
    for i in range(codes.shape[0]):
        g = codes[i] - lowest
        places[i] = free[g]
        free[g] += 1


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def group_sums(R: Any, begins: Any, ends: Any, weighted: bool, weight: Any, mean: Any, P: Any) -> None:
    """Weights, means and centred products of the rows ``R[begins[g]:ends[g]]``.

    R ``(rows, padded)`` has one place behind the columns of P ``(groups, columns, columns)``, then the weights if `weighted`.
    """
    columns, padded = P.shape[1], R.shape[1]
    X, S = np.empty((TAKEN, padded)), np.empty((1, columns + 1, padded))
    shift = np.zeros((1, padded))
    for g in range(begins.shape[0]):
        for k in range(columns):
            shift[0, k] = R[begins[g], k]
        S[:, :, :] = 0.0
        heavy = 0.0 if weighted else float(ends[g] - begins[g])
        for first in range(begins[g], ends[g], TAKEN):
            count = min(TAKEN, ends[g] - first)
            _take(R, first, count, shift[0], columns, weighted, X)
            if weighted:
                for r in range(count):
                    heavy += X[r, columns + 1]
                    X[r, :] *= np.sqrt(X[r, columns + 1])
            _add_products(X, count, S[0])
        S[0, columns, columns] = heavy  # the squares of roots are not quite the weights
        center(S, shift, weight[g : g + 1], mean[g : g + 1], P[g : g + 1])


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _take(R: Any, first: int, count: int, shift: Any, columns: int, weighted: bool, X: Any) -> None:
    """`count` rows of R from `first` on, less `shift`, with a one behind the columns and zeros behind the weight."""
    for r in range(count):
        for k in range(X.shape[1]):
            X[r, k] = R[first + r, k] - shift[k]
        X[r, columns] = 1.0
        X[r, columns + 1 + weighted :] = 0.0


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _add_products(X: Any, count: int, S: Any) -> None:
    """Add the products of the first `count` rows of X to S ``(columns, padded)``; rows behind them are overwritten."""
    for r in range(count, -(-count // AT_A_TIME) * AT_A_TIME):
        X[r, :] = 0.0
    for r in range(0, count, AT_A_TIME):
        for j in range(S.shape[0]):
            p, q, s, t = X[r, j], X[r + 1, j], X[r + 2, j], X[r + 3, j]
            # all of S, though it is symmetric: an inner loop whose length changes takes longer
            for k in range(X.shape[1]):
                S[j, k] += (p * X[r, k] + q * X[r + 1, k]) + (s * X[r + 2, k] + t * X[r + 3, k])


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_rows(R: Any, codes: Any, lowest: int, weighted: bool, shift: Any, seen: Any, S: Any) -> None:
    """Add every row of R, less its group's `shift`, and the products of it to its group's S ``(groups, columns + 1, padded)``.

    For rows in any order, and groups so few that S stays in the second-level cache. R is as for `group_sums`, and scratch
    afterwards. `shift` ``(groups, padded)`` becomes the first row of a group, `seen` counts rows.
    """
    columns = S.shape[1] - 1
    for i in range(R.shape[0]):
        g = codes[i] - lowest
        x, s = R[i], shift[g]
        if seen[g] == 0:
            for k in range(columns):
                s[k] = x[k]
        seen[g] += 1
        weight = x[columns + 1] if weighted else 1.0
        for k in range(columns):
            x[k] -= s[k]
        x[columns] = 1.0
        x[columns + 1 + weighted :] = 0.0
        for j in range(columns + 1):
            value = weight * x[j]
            for k in range(x.shape[0]):
                S[g, j, k] += value * x[k]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_columns(X: Any, codes: Any, lowest: int, weights: Any, shift: Any, seen: Any, S: Any, D: Any) -> None:
    """`add_rows` for a few groups: columns of a tile ``(columns, rows)`` are dealt to runs, sixteen products summed at a time.

    Only the lower triangle of S ``(groups, n, n)`` counts, where n is ``columns + 1``, rounded up to a multiple of four. D ``(n,
    rows)`` is scratch; `weights` is empty where every row counts once.
    """
    columns, rows = X.shape
    bounds, places = np.zeros(S.shape[0] + 1, np.int64), np.empty(rows, np.int64)
    order_by_group(codes, lowest, bounds, places)
    for j in range(columns):
        _scatter(X[j], places, D[j])
    D[columns, :] = 1.0
    D[columns + 1 :, :] = 0.0
    roots = np.empty(weights.shape[0])
    _scatter(np.sqrt(weights), places[: weights.shape[0]], roots)
    for g in range(S.shape[0]):
        begin, end = bounds[g], bounds[g + 1]
        if begin == end:
            continue
        for j in range(columns):
            column = D[j][begin:end]
            if seen[g] == 0:
                shift[g, j] = column[0]
            level = shift[g, j]
            for i in range(column.shape[0]):
                column[i] -= level
        seen[g] += end - begin
        if weights.shape[0]:
            root = roots[begin:end]
            for j in range(columns + 1):
                column = D[j][begin:end]
                for i in range(column.shape[0]):
                    column[i] *= root[i]
        _add_run(D, begin, end, S[g])


@njit(nogil=True, cache=True, error_model="numpy")
def _scatter(x: Any, places: Any, out: Any) -> None:
    for i in range(places.shape[0]):
        out[np.uintp(places[i])] = x[i]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def _add_run(D: Any, begin: int, end: int, S: Any) -> None:
    for j in range(0, D.shape[0], 4):
        a, b, c, d = D[j][begin:end], D[j + 1][begin:end], D[j + 2][begin:end], D[j + 3][begin:end]
        for k in range(0, j + 4, 4):
            _sixteen(
                a, b, c, d, D[k][begin:end], D[k + 1][begin:end], D[k + 2][begin:end], D[k + 3][begin:end], S, j, k
            )


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def center(S: Any, shift: Any, weight: Any, mean: Any, P: Any) -> None:
    """Weights, means and centred products of groups from sums of rows less `shift`, and of their products."""
    columns = P.shape[1]
    for g in range(P.shape[0]):
        heavy = S[g, columns, columns]
        share = 1.0 / heavy if heavy > 0.0 else 0.0
        weight[g] = heavy
        for j in range(columns):
            gap = S[g, columns, j] * share
            mean[g, j] = shift[g, j] + gap
            for k in range(columns):
                P[g, j, k] = S[g, j, k] - gap * S[g, columns, k]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_stack(
    weight: Any, mean: Any, products: Any, places: Any, chosen: Any, weight2: Any, mean2: Any, products2: Any
) -> None:
    """Add the groups `chosen` of the second stack to those at `places` of the first (Chan, Golub and LeVeque 1983)."""
    n = mean.shape[1]
    for number in range(places.shape[0]):
        g, i = places[number], chosen[number]
        total = weight[g] + weight2[i]
        if weight2[i] <= 0.0:
            continue
        share = weight[g] * weight2[i] / total
        for j in range(n):
            gap = share * (mean2[i, j] - mean[g, j])
            for k in range(n):
                products[g, j, k] += products2[i, j, k] + gap * (mean2[i, k] - mean[g, k])
        for j in range(n):
            mean[g, j] += (mean2[i, j] - mean[g, j]) * (weight2[i] / total)
        weight[g] = total
