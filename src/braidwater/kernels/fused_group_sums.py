"""Products of columns with each other by group, over rows in any order, compiled by numba.

A row goes to its group's own matrix at once. Rows that come group by group, or few groups, keep the matrices in the first
caches; rows of thousands of groups in no order miss them. Importing this module imports numba; what it compiles is kept in
numba's cache on disk.
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from numba import njit

LANES = 8  # columns are padded to a multiple of it: the inner loop is then whole vectors
_FAST = {"contract", "reassoc", "nsz"}


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_rows(X: Any, codes: Any, weights: Any, shift: Any, seen: Any, P: Any) -> None:
    """Add ``w (x - shift[g]) (x - shift[g])'`` of every row to its group's P.

    X ``(rows, padded)`` is scratch afterwards, P is ``(groups, columns, padded)``. `shift` ``(groups, padded)`` becomes the
    first row of a group, but for its last column, which is that of ones; `seen` counts rows. `weights` ``(rows,)`` is empty
    where every row counts once.
    """
    columns, padded = P.shape[1], P.shape[2]
    for i in range(X.shape[0]):
        g = codes[i]
        x = X[i]
        s = shift[g]
        if seen[g] == 0:
            for k in range(columns - 1):
                s[k] = x[k]
        seen[g] += 1
        for k in range(padded):
            x[k] -= s[k]
        weight = weights[i] if len(weights) else 1.0
        for j in range(columns):
            row = P[g, j]
            value = weight * x[j]
            for k in range(padded):
                row[k] += value * x[k]


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def center(P: Any, shift: Any, places: Any, weight: Any, mean: Any, products: Any) -> None:
    """Weights, means and centred products of the groups at `places`, from what `add_rows` made."""
    n = products.shape[1]
    for i in range(places.shape[0]):
        g = places[i]
        heavy = P[g, n, n]
        weight[i] = heavy
        share = 1.0 / heavy if heavy > 0 else 0.0
        for j in range(n):
            mean[i, j] = shift[g, j] + P[g, n, j] * share
            for k in range(n):
                products[i, j, k] = P[g, j, k] - P[g, n, j] * P[g, n, k] * share


@njit(fastmath=_FAST, nogil=True, cache=True, error_model="numpy")
def add_stack(weight: Any, mean: Any, products: Any, places: Any, weight2: Any, mean2: Any, products2: Any) -> None:
    """Add groups with `weight2`, `mean2` and `products2` to those at `places` (Chan, Golub and LeVeque 1983)."""
    n = mean.shape[1]
    for i in range(places.shape[0]):
        g = places[i]
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
