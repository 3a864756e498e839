"""Least squares of all groups of rows at a time, from the products of their columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braidwater.blocks.base import Array

# An eigenvalue of the correlations below this share of the largest is rounding: there is a column that others add up to
RANK_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Solutions:
    """Least squares of every group: `coef` ``(groups, n)`` in the order of the variables, `inverse` ``(groups, n, n)`` of their
    products, the squares that they explain, those in `total`, and condition numbers, all ``(groups,)``."""

    coef: Array
    inverse: Array
    explained: Array
    total: Array
    condition: Array


def least_squares(rows: Array, mean: Array, products: Array, constant: tuple[int, float] | None) -> Solutions:
    """Coefficients from `rows` ``(groups,)``, means ``(groups, width + 1)`` and centred `products` of columns, the label last.

    `constant` is the place and value of a variable that is always the same. With it the others are centred, so that nothing
    cancels. Where a variable is a sum of others, it is the shortest solution, by the pseudo-inverse of the products about
    zero, as MADlib has it; the condition number is then infinite.
    """
    width = mean.shape[1] - 1
    raw = products + rows[:, None, None] * (mean[:, :, None] * mean[:, None, :])
    place, value = constant or (width, 0.0)
    count = width + (constant is not None)
    order = np.array([j for j in range(count) if constant is None or j != place], np.intp)
    inner = (slice(None), order[:, None], order)
    full, right = np.empty((len(rows), count, count)), np.empty((len(rows), count))
    full[inner], right[:, order] = raw[:, :width, :width], raw[:, :width, width]
    if constant:
        full[:, place, order] = full[:, order, place] = value * rows[:, None] * mean[:, :width]
        full[:, place, place], right[:, place] = rows * value**2, value * rows * mean[:, width]
    values = np.linalg.eigvalsh(full)
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = np.where(values[:, 0] > 0, np.sqrt(values[:, -1] / values[:, 0]), np.inf)
    centred = products if constant else raw
    scaled, size, regular = _correlations(rows, mean[:, :width], centred[:, :width, :width], count)
    slopes_inverse = np.linalg.inv(scaled) / (size[:, :, None] * size[:, None, :])
    slopes = np.einsum("gij,gj->gi", slopes_inverse, centred[:, :width, width])
    coef, inverse = np.empty_like(right), np.empty_like(full)
    coef[:, order], inverse[inner] = slopes, slopes_inverse
    offset = rows * mean[:, width] ** 2
    explained = np.einsum("gi,gi->g", slopes, centred[:, :width, width])
    if constant:
        toward = np.einsum("gij,gj->gi", slopes_inverse, mean[:, :width])
        coef[:, place] = (mean[:, width] - np.einsum("gi,gi->g", slopes, mean[:, :width])) / value
        inverse[:, place, order] = inverse[:, order, place] = -toward / value
        inverse[:, place, place] = (1 / rows + np.einsum("gi,gi->g", mean[:, :width], toward)) / value**2
    else:
        explained -= offset
    for group in np.flatnonzero(~regular):
        coef[group], inverse[group] = _shortest(full[group], right[group])
        explained[group], condition[group] = right[group] @ coef[group] - offset[group], np.inf
    return Solutions(coef, inverse, explained, products[:, width, width], condition)


def _correlations(rows: Array, mean: Array, products: Array, count: int) -> tuple[Array, Array, Array]:
    """Products scaled to ones on the diagonal, what they were divided by, and which have an inverse; others are the identity."""
    size = np.sqrt(np.diagonal(products, axis1=1, axis2=2))
    regular = (rows >= count) & np.all(size > 1e-14 * np.abs(mean) * np.sqrt(rows)[:, None], axis=1)
    size = np.where(regular[:, None], size, 1.0)
    scaled = np.where(regular[:, None, None], products / (size[:, :, None] * size[:, None, :]), np.eye(size.shape[1]))
    if size.shape[1]:
        regular = regular & (np.linalg.eigvalsh(scaled)[:, 0] > RANK_TOLERANCE)
    scaled[~regular] = np.eye(size.shape[1])
    return scaled, size, regular


def _shortest(products: Array, right: Array) -> tuple[Array, Array]:
    """The shortest solution of the normal equations, and the pseudo-inverse."""
    values, vectors = np.linalg.eigh(products)
    good = values > RANK_TOLERANCE * values[-1]
    inverse = (vectors[:, good] / values[good]) @ vectors[:, good].T
    return inverse @ right, inverse
