"""Least squares for thousands of groups at a time, from their products of columns: what `LeastSquares` does, in stacks."""

from __future__ import annotations

import numpy as np

from braidwater.aggregates.grouped_gram import GramStack
from braidwater.aggregates.moments import is_constant
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.engines.local.threads import map_in_order
from braidwater.estimators.linear_regression import RANK_TOLERANCE
from braidwater.estimators.logistic_problem import origin_of

SHARE = 512  # groups that a thread solves at a time: their matrices stay in the second-level cache


def solve_groups(
    gram: GramStack, design: Design, alpha: float, fit_intercept: bool, workers: int = 1
) -> dict[str, Array]:
    """The fitted attributes of a `LinearRegression` for every group of a stack, by name, ``(groups, ...)``.

    Columns that cannot be told apart in a group have the smallest coefficients and no standard errors (NaN), as in a single
    fit; with a penalty there are no standard errors at all. Cost: two eigenvalue problems of the columns a group.
    """

    def solve(begin: int) -> dict[str, Array]:
        return _solved(gram.part(np.arange(begin, min(begin + SHARE, len(gram)))), design, alpha, fit_intercept)

    # shares of one size, however many threads there are: results do not depend on those
    found = list(map_in_order(iter(range(0, max(len(gram), 1), SHARE)), solve, workers))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _solved(gram: GramStack, design: Design, alpha: float, fit_intercept: bool) -> dict[str, Array]:
    width = gram.width
    count = len(gram)
    weight = np.maximum(gram.weight, 1e-300)[:, None]
    mean, products = gram.mean[:, :width], gram.products
    center = mean
    if not fit_intercept:
        center = np.broadcast_to(origin_of(design), mean.shape)
        gap = gram.mean - np.append(origin_of(design), np.zeros(gram.mean.shape[1] - width))
        products = products + weight[:, :, None] * gap[:, :, None] * gap[:, None, :]
    features, cross, total = products[:, :width, :width], products[:, :width, width], products[:, width, width]
    spread = np.diagonal(features, axis1=1, axis2=2) / weight
    free = ~is_constant(mean, spread) if fit_intercept else spread > 0
    scale = np.where(free, np.sqrt(np.maximum(spread, 0)), 1.0)
    user_scale = np.ones(width) if design.scale is None else design.scale
    user_center = np.zeros(width) if design.center is None else design.center
    ratio = user_scale / scale
    matrix = features / scale[:, :, None] / scale[:, None, :] / weight[:, :, None]
    matrix *= free[:, :, None] & free[:, None, :]
    diagonal = np.arange(width)
    matrix[:, diagonal, diagonal] += alpha * ratio**2 * free
    inverse, rank, outside = _pseudo_inverses(matrix)
    solved = np.einsum("gij,gj->gi", inverse, np.where(free, cross / scale / weight, 0.0))
    level = gram.mean[:, width] - np.sum((mean - center) / scale * solved, axis=1) if fit_intercept else np.zeros(count)
    coef = ratio * solved
    turn = (user_center - center) / scale  # what a solved coefficient adds to the user's intercept
    intercept = level + np.sum(turn * solved, axis=1)
    slopes = solved / scale
    residual = total - 2 * np.sum(slopes * cross, axis=1) + np.einsum("gi,gij,gj->g", slopes, features, slopes)
    rank = rank + int(fit_intercept)
    found = _figures(np.maximum(residual, 0.0), total, gram.rows, rank, fit_intercept)
    found |= {"coef_": coef, "intercept_": intercept, "n_rows_": gram.rows.astype(np.int64), "rank_": rank}
    found["condition_number_"] = _conditions(gram, user_center, user_scale, fit_intercept)
    if alpha == 0:
        bread = np.zeros((count, width + 1, width + 1))
        bread[:, :width, :width] = inverse / weight[:, :, None]
        bread[:, -1, -1] = (1 / weight[:, 0]) if fit_intercept else 0.0
        back = np.zeros_like(bread)
        back[:, diagonal, diagonal] = ratio
        back[:, -1, :-1] = turn
        back[:, -1, -1] = 1.0
        covariance = back @ (bread * found["residual_variance_"][:, None, None]) @ back.swapaxes(1, 2)
        unknown = np.append(outside | ~free, np.zeros((count, 1), bool), axis=1)
        covariance[unknown[:, :, None] | unknown[:, None, :]] = np.nan
        with np.errstate(invalid="ignore"):
            errors = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        found |= {"covariance_": covariance, "standard_errors_": errors[:, :-1]}
        found["intercept_standard_error_"] = errors[:, -1]
    return found


def _figures(residual: Array, total: Array, rows: Array, rank: Array, fit_intercept: bool) -> dict[str, Array]:
    degrees = rows - rank
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.where(degrees > 0, residual / degrees, np.nan)
        r2 = np.where(total > 0, 1 - residual / total, np.nan)
        adjusted = np.where(degrees > 0, 1 - (1 - r2) * (rows - int(fit_intercept)) / degrees, np.nan)
    return {
        "degrees_of_freedom_": degrees.astype(np.int64),
        "residual_variance_": variance,
        "r2_": r2,
        "adjusted_r2_": adjusted,
    }


def _pseudo_inverses(matrices: Array) -> tuple[Array, Array, Array]:
    """Inverses on the range of matrices of correlations, ranks, and which columns have a part outside of the range."""
    if not matrices.size:
        return matrices, np.zeros(len(matrices), np.int64), np.zeros(matrices.shape[:2], bool)
    values, vectors = np.linalg.eigh(matrices)
    kept = values > RANK_TOLERANCE * values[:, -1:]
    inverse = (vectors * np.where(kept, 1 / np.where(kept, values, 1.0), 0.0)[:, None, :]) @ vectors.swapaxes(1, 2)
    outside = np.max(np.abs(vectors) * ~kept[:, None, :], axis=2, initial=0.0) > 1e-5
    return inverse, kept.sum(axis=1), outside


def _conditions(gram: GramStack, center: Array, scale: Array, fit_intercept: bool) -> Array:
    """Condition numbers of the user's columns, the intercept among them."""
    width, weight = gram.width, gram.weight
    shifted = (gram.mean[:, :width] - center) / scale
    full = np.empty((len(gram), width + 1, width + 1))
    features = gram.products[:, :width, :width] / np.outer(scale, scale)
    full[:, :-1, :-1] = features + weight[:, None, None] * shifted[:, :, None] * shifted[:, None, :]
    full[:, -1, :-1] = full[:, :-1, -1] = weight[:, None] * shifted
    full[:, -1, -1] = weight
    values = np.linalg.eigvalsh(full if fit_intercept else full[:, :-1, :-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values[:, 0] > 0, np.sqrt(values[:, -1] / values[:, 0]), np.inf)
