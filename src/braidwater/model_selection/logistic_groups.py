"""Logistic regression of two classes for thousands of groups at a time: Newton's method in stacks.

What `LogisticPath` does for one model, without a Python object for each: starts, steps, standard errors are arrays over the
groups. A group whose model needs a closer look (columns that cannot be told apart, classes that are separated, no convergence)
is left to the iteration of a single fit.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from braidwater.aggregates.base import Aggregate, Iteration
from braidwater.aggregates.gram_stack import GramStack
from braidwater.aggregates.grouped_gram import GroupedGram
from braidwater.aggregates.grouped_logistic import GroupedLogistic, GroupLosses
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.encoding.groups import GROUP
from braidwater.estimators.logistic_inference import EXTRA_STEPS, STILL
from braidwater.estimators.logistic_problem import origin_of
from braidwater.estimators.optimisers.base import NOISE
from braidwater.estimators.optimisers.newton import HALVINGS
from braidwater.kernels.choice import KernelName
from braidwater.model_selection.least_squares import swept

NOT_SINGULAR = 1e-14  # on the diagonal of matrices of correlations: then no pivot is 0 in floating point
APART = 1e-8  # correlations whose smallest eigenvalue may be below it are looked at by a single fit


@dataclass(frozen=True)
class StackedNewton(Iteration[tuple[Array, dict[str, Array]]]):
    """Fit the models of the groups in `codes`; those that came out well, and their fitted attributes ``(groups, ...)``.

    `groups` counts all codes; `ridge` is ``alpha (1 - l1_ratio)`` on the user's columns, on standardised ones if `standardize`.
    One pass for products of columns, one for each step of the slowest group, one for standard errors where there is no penalty.
    """

    design: Design
    codes: Array
    groups: int
    ridge: float
    fit_intercept: bool
    tolerance: float
    max_passes: int
    standardize: bool
    kernel: KernelName

    def passes(self) -> Generator[Aggregate[Any, Any], Any, tuple[Array, dict[str, Array]]]:
        gram: GramStack = yield GroupedGram(self.design, GROUP, 2, kernel=self.kernel)
        start = _Start.of(gram.part(_chosen(np.isin(gram.codes, self.codes))), self)
        points, found, steps, good = yield from self._newton(start)
        loss = found.loss - 0.5 * np.sum(start.ridge * points**2, axis=1)
        if self.ridge == 0:
            good = yield from self._examine(start, points, found, steps, good)
            loss = found.loss
        attributes = self._attributes(start, points, loss, steps + 1, found.hessian)
        kept = _chosen(good)
        return start.gram.codes[kept], {name: values[kept] for name, values in attributes.items()}

    def _examine(
        self, start: _Start, points: Array, found: GroupLosses, steps: Array, waiting: Array
    ) -> Generator[Aggregate[Any, Any], Any, Array]:
        """A last step of Newton's method, and the Hessian before it; more of them where it is not small (see `examine`).

        Changes `points`, `found` and `steps`; returns which groups have settled.
        """
        good, waiting = np.zeros(len(points), bool), np.flatnonzero(waiting)
        for _ in range(EXTRA_STEPS):
            if not len(waiting):
                break
            there = yield from self._look(start, points[waiting], waiting)
            steps[waiting] += 1
            step = -_solve(there.hessian, there.gradient, self.kernel)
            mixed = there.wrong > 0  # else the classes are apart, and a single fit looks into it
            small = np.all(np.abs(step) <= STILL * np.abs(points[waiting]) + 1e-6, axis=1)
            there.loss[:] += np.sum(there.gradient * step, axis=1)
            there.loss[:] += 0.5 * np.einsum("gi,gij,gj->g", step, there.hessian, step)
            _put(there, mixed & small, found, waiting)
            points[waiting[mixed]] += step[mixed]
            good[waiting[mixed & small]] = True
            waiting = waiting[mixed & ~small]
        return good

    def _newton(self, start: _Start) -> Generator[Aggregate[Any, Any], Any, tuple[Array, GroupLosses, Array, Array]]:
        """Points, mean losses with penalty and derivatives there, evaluations made, and who has converged."""
        points, here = start.points.copy(), start.here.copy()
        steps = np.zeros(len(points), np.int64)
        stuck = ~start.regular
        while True:
            steep = np.abs(here.gradient).max(axis=1) > self.tolerance
            moving = np.flatnonzero(~stuck & steep & (steps < self.max_passes - 1))
            if not len(moving):
                return points, here, steps, ~stuck & ~steep
            whole = slice(None) if len(moving) == len(points) else moving
            direction = -_solve(here.hessian[whole], here.gradient[whole], self.kernel)
            worst = here.loss[moving] + NOISE * np.maximum(np.abs(here.loss[moving]), 1e-3)
            for halving in range(HALVINGS):
                tried = points[moving] + 0.5**halving * direction
                there = yield from self._look(start, tried, moving)
                steps[moving] += 1
                better = np.isfinite(there.loss) & (there.loss <= worst) & np.isfinite(there.gradient).all(axis=1)
                points[moving[better]] = tried[better]
                _put(there, better, here, moving)
                moving, direction, worst = moving[~better], direction[~better], worst[~better]
                if not len(moving):
                    break
            stuck[moving] = True

    def _look(self, start: _Start, points: Array, chosen: Array) -> Generator[Aggregate[Any, Any], Any, GroupLosses]:
        """Mean losses with penalty and derivatives of the groups at the places `chosen` at their points; one pass."""
        codes = start.gram.codes[chosen]

        def spread(values: Array) -> Array:
            full = np.ones((self.groups, values.shape[1]))
            full[codes] = values
            return full

        active = np.zeros(self.groups, bool)
        active[codes] = True
        found: GroupLosses = yield GroupedLogistic(
            self.design, GROUP, spread(points), spread(start.center[chosen]), spread(start.scale[chosen]), active,
            kernel=self.kernel,
        )  # fmt: skip
        share = 1 / found.weight
        found.loss[:] *= share
        found.gradient[:] *= share[:, None]
        found.hessian[:] *= share[:, None, None]
        return _penalised(found, points, start.ridge[chosen], self)

    def _attributes(self, start: _Start, points: Array, loss: Array, passes: Array, hessian: Array) -> dict[str, Array]:
        """The fitted attributes of a `LogisticRegression`."""
        gram, width = start.gram, self.design.width
        weight = gram.weight
        coef = start.ratio * points[:, :-1]
        turn = np.ones_like(points)  # what each weight adds to the user's intercept
        turn[:, :-1] = (start.user_center - start.center) / start.scale
        rank = np.count_nonzero(coef, axis=1) + int(self.fit_intercept)
        found = {
            "coef_": coef[:, None],
            "intercept_": np.sum(turn * points, axis=1)[:, None],
            "n_iter_": passes,
            "n_rows_": gram.rows.astype(np.int64),
            "converged_": np.ones(len(points), bool),
            "log_likelihood_": -loss * weight,
            "deviance_": 2 * loss * weight,
            "null_deviance_": 2 * start.here.loss * weight,
        }
        if self.ridge == 0:
            rank = np.full(len(points), width + int(self.fit_intercept))
            inverse = _inverse(hessian, self.kernel)
            inverse /= weight[:, None, None]
            if not self.fit_intercept:
                inverse[:, -1, :] = inverse[:, :, -1] = 0.0
            covariance = _turned_back(inverse, start.ratio, turn)
            errors = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
            found |= {"covariance_": covariance, "standard_errors_": errors[:, None, :-1]}
            found["intercept_standard_error_"] = errors[:, -1:]
        found["aic_"] = found["deviance_"] + 2 * rank
        found["bic_"] = found["deviance_"] + rank * np.log(weight)
        return found


@dataclass(frozen=True)
class _Start:
    """The models without features: coordinates ``(groups, width)``, points and what is known there."""

    gram: GramStack
    center: Array
    scale: Array
    user_center: Array
    ratio: Array
    ridge: Array
    points: Array
    here: GroupLosses
    regular: Array

    @staticmethod
    def of(gram: GramStack, wanted: StackedNewton) -> _Start:
        design, width = wanted.design, gram.width
        weight = np.maximum(gram.weight, 1e-300)
        mean, share = gram.mean[:, :width], gram.mean[:, width]
        variance = np.diagonal(gram.products, axis1=1, axis2=2)[:, :width] / weight[:, None]
        center = mean if wanted.fit_intercept else np.broadcast_to(origin_of(design), mean.shape)
        spread = variance + (mean - center) ** 2
        scale = np.where(spread > 0, np.sqrt(spread), 1.0)
        left = (mean - center) / scale
        user_scale = np.ones(width) if design.scale is None else design.scale
        ratio = user_scale / scale
        ridge = np.zeros((len(gram), width + 1))
        ridge[:, :-1] = wanted.ridge * (1.0 if wanted.standardize else ratio**2)
        points = np.zeros((len(gram), width + 1))
        p = np.full(len(gram), 0.5)
        if wanted.fit_intercept:
            p = np.clip(share, 1e-12, 1 - 1e-12)
            points[:, -1] = np.log(p / (1 - p))
        gradient = np.empty_like(points)
        gradient[:, -1] = p - share
        cross = gram.products[:, :width, width] / scale / weight[:, None]
        gradient[:, :-1] = (p - share)[:, None] * left - cross
        second = np.empty((len(gram), width + 1, width + 1))
        features = gram.products[:, :width, :width] * (1 / (weight[:, None] * scale))[:, :, None]
        features *= (1 / scale)[:, None, :]
        features += left[:, :, None] * left[:, None, :]
        second[:, :-1, :-1] = features
        second[:, -1, :-1] = second[:, :-1, -1] = left
        second[:, -1, -1] = 1.0
        loss = -(share * np.log(p) + (1 - share) * np.log1p(-p))
        hessian = second * (p * (1 - p))[:, None, None]
        here = GroupLosses(gram.codes, gram.weight, loss, np.ones(len(gram)), gradient, hessian)
        here = _penalised(here, points, ridge, wanted)
        inflation = np.diagonal(swept(second, wanted.kernel), axis1=1, axis2=2)
        # the smallest eigenvalue is at least 1 over the sum of the inflations of variance
        regular = (inflation > 0).all(axis=1) & (inflation.sum(axis=1) < 1 / APART)
        regular &= (spread > (1e-14 * np.abs(mean)) ** 2).all(axis=1)
        regular &= (share > 0) & (share < 1) & (gram.weight > 0)
        user_center = np.zeros(width) if design.center is None else design.center
        return _Start(gram, center, scale, user_center, ratio, ridge, points, here, regular)


def _penalised(found: GroupLosses, points: Array, ridge: Array, wanted: StackedNewton) -> GroupLosses:
    """With the penalty added, and without an intercept where there is none."""
    diagonal = np.arange(points.shape[1])
    found.loss[:] += 0.5 * np.sum(ridge * points**2, axis=1)
    found.gradient[:] += ridge * points
    found.hessian[:, diagonal, diagonal] += ridge
    if not wanted.fit_intercept:
        found.gradient[:, -1] = 0.0
        found.hessian[:, -1, :] = found.hessian[:, :, -1] = 0.0
        found.hessian[:, -1, -1] = 1.0
    return found


def _put(there: GroupLosses, better: Array, here: GroupLosses, places: Array) -> None:
    """Put what was found at new points, where they are `better`, at the places of what was known."""
    chosen, taken = places[better], _chosen(better)
    for name in ("loss", "wrong", "gradient", "hessian"):
        getattr(here, name)[chosen] = getattr(there, name)[taken]


def _chosen(mask: Array) -> Array | slice:
    """`mask`, or a slice where it takes all: matrices of thousands of groups are then not copied."""
    return slice(None) if mask.all() else mask


def _scaled(matrices: Array) -> tuple[Array, Array]:
    """Matrices with ones on the diagonal, and what their rows and columns were multiplied by."""
    size = np.sqrt(np.maximum(np.diagonal(matrices, axis1=1, axis2=2), 0))
    size = 1 / np.where(size > 0, size, 1.0)
    scaled = matrices * size[:, :, None]
    scaled *= size[:, None, :]
    return scaled, size


def _solve(matrices: Array, vectors: Array, kernel: KernelName) -> Array:
    """``matrix^-1 vector`` for stacks of matrices that are positive definite, or as good as that."""
    if kernel == "fused":
        from braidwater.kernels.fused_small_matrices import solve_each

        steps = np.empty_like(vectors)
        solve_each(matrices, vectors, NOT_SINGULAR, steps)
        return steps
    scaled, size = _scaled(matrices)
    scaled[:, range(scaled.shape[1]), range(scaled.shape[1])] += NOT_SINGULAR
    found: Array = np.linalg.solve(scaled, (vectors * size)[:, :, None])[:, :, 0] * size
    return found


def _inverse(matrices: Array, kernel: KernelName) -> Array:
    scaled, size = _scaled(matrices)
    found = swept(scaled, kernel)
    found *= size[:, :, None]
    found *= size[:, None, :]
    return found


def _turned_back(covariance: Array, ratio: Array, turn: Array) -> Array:
    """Covariances of the user's coefficients, ``ratio`` times the solved ones, and of the intercept, ``turn`` times all."""
    found = np.empty_like(covariance)
    last = np.einsum("gi,gij->gj", turn, covariance)
    np.multiply(covariance[:, :-1, :-1], ratio[:, :, None], out=found[:, :-1, :-1])
    found[:, :-1, :-1] *= ratio[:, None, :]
    found[:, -1, :-1] = found[:, :-1, -1] = last[:, :-1] * ratio
    found[:, -1, -1] = np.einsum("gi,gi->g", last, turn)
    return found
