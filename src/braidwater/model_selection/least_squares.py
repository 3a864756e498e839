"""Least squares for thousands of groups at a time, from their products of columns: what `LeastSquares` does, in stacks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from braidwater.aggregates.gram_stack import GramStack
from braidwater.aggregates.moments import is_constant
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.engines.local.threads import map_in_order
from braidwater.estimators.linear_regression import RANK_TOLERANCE
from braidwater.estimators.logistic_problem import origin_of
from braidwater.kernels.choice import KernelName

SHARE = 512  # groups that a thread solves at a time: their matrices stay in the second-level cache
# the sum of the inflations of variance up to which a sweep is as exact as eigenvalues are (eleven digits)
REGULAR = 1e5


@dataclass(frozen=True)
class GroupSolver:
    """The models of all groups of a stack. Where there is a penalty there are no standard errors."""

    gram: GramStack
    design: Design
    alpha: float
    fit_intercept: bool
    kernel: KernelName = "blas"

    def solve(self, workers: int = 1) -> dict[str, Array]:
        """The fitted attributes of a `LinearRegression` for every group by name, ``(groups, ...)``, but those of `details`.

        Columns that cannot be told apart in a group have the smallest coefficients and no standard errors (NaN), as in a
        single fit. Cost: some 2 µs a group and thread at 10 columns, growing with their cube; 10 µs where columns are nearly
        sums of each other.
        """

        def solve(begin: int) -> dict[str, Array]:
            return self._part(np.arange(begin, min(begin + SHARE, len(self.gram))))._solved()

        # shares of one size, however many threads there are: results do not depend on those
        found = list(map_in_order(iter(range(0, max(len(self.gram), 1), SHARE)), solve, workers))
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def details(self, codes: Array) -> dict[str, Array]:
        """What costs more than the models, and few look at: condition numbers, and covariances of the coefficients."""
        part = self._part(np.searchsorted(self.gram.codes, codes))
        found = {"condition_number_": part._conditions()}
        if self.alpha == 0:
            found["covariance_"] = part._covariance()
        return found

    def _part(self, places: Array) -> GroupSolver:
        return replace(self, gram=self.gram.part(places))

    def _solved(self) -> dict[str, Array]:
        gram, width, equations = self.gram, self.gram.width, self._equations()
        scale, solved = equations.scale, equations.solved
        level = np.zeros(len(gram))
        if self.fit_intercept:
            level = gram.mean[:, width] - np.sum((gram.mean[:, :width] - equations.center) / scale * solved, axis=1)
        rank = equations.rank + int(self.fit_intercept)
        found = _figures(equations.residual, equations.total, gram.rows, rank, self.fit_intercept)
        found |= {
            "coef_": equations.ratio * solved,
            "intercept_": level + np.sum(equations.turn * solved, axis=1),
            "n_rows_": gram.rows.astype(np.int64),
            "rank_": rank,
        }
        if self.alpha == 0:
            spread = found["residual_variance_"] / equations.weight
            own = np.diagonal(equations.inverse, axis1=1, axis2=2) * equations.ratio**2
            crossed = np.einsum("gi,gij,gj->g", equations.turn, equations.inverse, equations.turn)
            with np.errstate(invalid="ignore"):
                errors = np.sqrt(own * spread[:, None])
                found["intercept_standard_error_"] = np.sqrt((crossed + int(self.fit_intercept)) * spread)
            found["standard_errors_"] = np.where(equations.unknown, np.nan, errors)
        return found

    def _equations(self) -> _Equations:
        """The normal equations of the columns that vary, scaled to correlations and divided by the weight, and solved."""
        gram, width = self.gram, self.gram.width
        weight = np.maximum(gram.weight, 1e-300)
        mean, products = gram.mean[:, :width], gram.products
        center = mean
        if not self.fit_intercept:
            origin = origin_of(self.design)
            center = np.broadcast_to(origin, mean.shape)
            gap = gram.mean - np.append(origin, np.zeros(gram.mean.shape[1] - width))
            products = products + weight[:, None, None] * gap[:, :, None] * gap[:, None, :]
        spread = np.diagonal(products, axis1=1, axis2=2)[:, :width] / weight[:, None]
        free = ~is_constant(mean, spread) if self.fit_intercept else spread > 0
        scale = np.where(free, np.sqrt(np.maximum(spread, 0)), 1.0)
        user_scale = np.ones(width) if self.design.scale is None else self.design.scale
        user_center = np.zeros(width) if self.design.center is None else self.design.center
        ratio = user_scale / scale
        size = np.where(free, 1 / scale, 0.0)
        matrix = products[:, :width, :width] * (size / weight[:, None])[:, :, None] * size[:, None, :]
        diagonal = np.arange(width)
        matrix[:, diagonal, diagonal] += self.alpha * ratio**2 * free
        right = products[:, :width, width] * size / weight[:, None]
        inverse, rank, outside = _inverses(matrix, self.kernel)
        solved = np.einsum("gij,gj->gi", inverse, right)
        total = products[:, width, width]
        explained = 2 * right - np.einsum("gij,gj->gi", matrix, solved) + self.alpha * ratio**2 * solved
        residual = np.maximum(total - weight * np.sum(solved * explained, axis=1), 0.0)
        turn = (user_center - center) / scale  # what a solved coefficient adds to the user's intercept
        return _Equations(weight, center, scale, ratio, turn, inverse, rank, outside | ~free, solved, residual, total)

    def _covariance(self) -> Array:
        """Covariances of coefficients and intercept ``(groups, width + 1, width + 1)``."""
        count, width, equations = len(self.gram), self.gram.width, self._equations()
        bread = np.zeros((count, width + 1, width + 1))
        bread[:, :width, :width] = equations.inverse
        bread[:, -1, -1] = float(self.fit_intercept)
        back = np.zeros_like(bread)
        back[:, range(width), range(width)] = equations.ratio
        back[:, -1, :-1] = equations.turn
        back[:, -1, -1] = 1.0
        rank = equations.rank + int(self.fit_intercept)
        figures = _figures(equations.residual, equations.total, self.gram.rows, rank, self.fit_intercept)
        spread = figures["residual_variance_"] / equations.weight
        covariance: Array = back @ (bread * spread[:, None, None]) @ back.swapaxes(1, 2)
        unknown = np.append(equations.unknown, np.zeros((count, 1), bool), axis=1)
        covariance[unknown[:, :, None] | unknown[:, None, :]] = np.nan
        return covariance

    def _conditions(self) -> Array:
        """Condition numbers of the user's columns, the intercept among them."""
        gram, width, weight = self.gram, self.gram.width, self.gram.weight
        scale = np.ones(width) if self.design.scale is None else self.design.scale
        center = np.zeros(width) if self.design.center is None else self.design.center
        shifted = (gram.mean[:, :width] - center) / scale
        full = np.empty((len(gram), width + 1, width + 1))
        features = gram.products[:, :width, :width] / np.outer(scale, scale)
        full[:, :-1, :-1] = features + weight[:, None, None] * shifted[:, :, None] * shifted[:, None, :]
        full[:, -1, :-1] = full[:, :-1, -1] = weight[:, None] * shifted
        full[:, -1, -1] = weight
        values = np.linalg.eigvalsh(full if self.fit_intercept else full[:, :-1, :-1])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(values[:, 0] > 0, np.sqrt(values[:, -1] / values[:, 0]), np.inf)


@dataclass(frozen=True)
class _Equations:
    """`solved` coefficients ``(groups, width)`` of columns ``(raw - center) / scale``, and what they leave; `unknown` columns
    have a part that others make as well."""

    weight: Array
    center: Array
    scale: Array
    ratio: Array
    turn: Array
    inverse: Array
    rank: Array
    unknown: Array
    solved: Array
    residual: Array
    total: Array


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


def _inverses(matrices: Array, kernel: KernelName) -> tuple[Array, Array, Array]:
    """Inverses on the range of matrices of correlations, ranks, and which columns have a part outside of the range."""
    count, width = matrices.shape[:2]
    inverse, rank = swept(matrices, kernel), np.full(count, width)
    outside = np.zeros((count, width), bool)
    inflation = np.diagonal(inverse, axis1=1, axis2=2)
    # 1 over the sum of the inflations is at most the smallest eigenvalue; what was divided by nothing fails as well
    regular = (inflation > 0).all(axis=1) & (inflation.sum(axis=1) < REGULAR) & np.isfinite(inverse).all(axis=(1, 2))
    if not regular.all():
        inverse[~regular], rank[~regular], outside[~regular] = _pseudo_inverses(matrices[~regular])
    return inverse, rank, outside


def swept(matrices: Array, kernel: KernelName = "blas") -> Array:
    """Inverses of a stack of matrices ``(groups, n, n)`` that are positive definite, nonsense of others, by sweeps.

    Goodnight (1979), "A tutorial on the SWEEP operator". In numpy a step is taken for all groups at once: an eighth of the
    time of LAPACK on a stack of small matrices, which it solves one by one; compiled, a third of that.
    """
    if kernel == "fused":
        from braidwater.kernels.fused_small_matrices import sweep_each

        inverse = np.empty(matrices.shape)
        sweep_each(matrices, inverse)
        return inverse
    swept = np.array(np.moveaxis(matrices, 0, -1), order="C")  # a copy, whatever the shape
    change = np.empty_like(swept)
    with np.errstate(all="ignore"):
        for k in range(len(swept)):
            pivot, column = swept[k, k].copy(), swept[:, k].copy()
            row = swept[k] / pivot
            swept -= np.multiply(column[:, None], row, out=change)
            swept[:, k], swept[k] = column / pivot, row
            swept[k, k] = -1 / pivot
    found: Array = np.ascontiguousarray(np.moveaxis(-swept, -1, 0))
    return found


def _pseudo_inverses(matrices: Array) -> tuple[Array, Array, Array]:
    """`_inverses` by eigenvalues, whatever the matrices."""
    values, vectors = np.linalg.eigh(matrices)
    kept = values > RANK_TOLERANCE * values[:, -1:]
    inverse = (vectors * np.where(kept, 1 / np.where(kept, values, 1.0), 0.0)[:, None, :]) @ vectors.swapaxes(1, 2)
    outside = np.max(np.abs(vectors) * ~kept[:, None, :], axis=2, initial=0.0) > 1e-5
    return inverse, kept.sum(axis=1), outside
