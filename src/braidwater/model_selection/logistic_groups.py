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
from braidwater.aggregates.grouped_gram import GramStack, GroupedGram
from braidwater.aggregates.grouped_logistic import GroupedLogistic, GroupLosses
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.encoding.groups import GROUP
from braidwater.estimators.logistic_inference import EXTRA_STEPS, STILL
from braidwater.estimators.logistic_problem import origin_of
from braidwater.estimators.optimisers.base import NOISE
from braidwater.estimators.optimisers.newton import HALVINGS
from braidwater.kernels.choice import KernelName

APART = 1e-8  # correlations whose smallest eigenvalue is below it are looked at by a single fit


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
        start = _Start.of(gram.part(np.isin(gram.codes, self.codes)), self)
        points, found, steps, good = yield from self._newton(start)
        loss = found.loss - 0.5 * np.sum(start.ridge * points**2, axis=1)
        if self.ridge == 0:
            found, steps, good = yield from self._examine(start, points, found, steps, good)
            loss = found.loss
        attributes = self._attributes(start, points, loss, steps + 1, found.hessian)
        return start.gram.codes[good], {name: values[good] for name, values in attributes.items()}

    def _examine(
        self, start: _Start, points: Array, found: GroupLosses, steps: Array, waiting: Array
    ) -> Generator[Aggregate[Any, Any], Any, tuple[GroupLosses, Array, Array]]:
        """A last step of Newton's method, and the Hessian before it; more of them where it is not small (see `examine`)."""
        good = np.zeros(len(points), bool)
        for _ in range(EXTRA_STEPS):
            there = yield from self._look(start, points, waiting)
            steps = steps + waiting
            step = -_solve(there.hessian, there.gradient)
            step[~waiting | (there.wrong == 0)] = 0.0
            small = np.all(np.abs(step) <= STILL * np.abs(points) + 1e-6, axis=1)
            settled = waiting & (there.wrong > 0) & small
            there.loss[:] += np.sum(there.gradient * step, axis=1)
            there.loss[:] += 0.5 * np.einsum("gi,gij,gj->g", step, there.hessian, step)
            found = _chosen(settled, there, found)
            points += step
            good |= settled
            waiting = waiting & (there.wrong > 0) & ~small
            if not waiting.any():
                break
        return found, steps, good

    def _newton(self, start: _Start) -> Generator[Aggregate[Any, Any], Any, tuple[Array, GroupLosses, Array, Array]]:
        """Points, mean losses with penalty and derivatives there, evaluations made, and who has converged."""
        points, here = start.points.copy(), start.here
        steps = np.zeros(len(points), np.int64)
        stuck = ~start.regular
        while True:
            moving = ~stuck & (np.abs(here.gradient).max(axis=1) > self.tolerance) & (steps < self.max_passes - 1)
            if not moving.any():
                return points, here, steps, ~stuck & (np.abs(here.gradient).max(axis=1) <= self.tolerance)
            direction = np.zeros_like(points)
            direction[moving] = -_solve(here.hessian[moving], here.gradient[moving])
            length = np.ones(len(points))
            worst = here.loss + NOISE * np.maximum(np.abs(here.loss), 1e-3)
            trying = moving.copy()
            for _ in range(HALVINGS):
                there = yield from self._look(start, points + length[:, None] * direction, trying)
                steps += trying
                better = trying & np.isfinite(there.loss) & (there.loss <= worst)
                better &= np.isfinite(there.gradient).all(axis=1)
                points[better] += length[better, None] * direction[better]
                here = _chosen(better, there, here)
                trying &= ~better
                length[trying] /= 2
                if not trying.any():
                    break
            stuck |= trying

    def _look(self, start: _Start, points: Array, chosen: Array) -> Generator[Aggregate[Any, Any], Any, GroupLosses]:
        """Mean losses with penalty and derivatives of the chosen groups at their points; one pass."""
        codes, width = start.gram.codes, self.design.width

        def spread(values: Array) -> Array:
            full = np.ones((self.groups, values.shape[1]))
            full[codes] = values
            return full

        active = np.zeros(self.groups, bool)
        active[codes[chosen]] = True
        found: GroupLosses = yield GroupedLogistic(
            self.design, GROUP, spread(points), spread(start.center), spread(start.scale), active, kernel=self.kernel
        )
        size, count = width + 1, len(codes)
        loss, wrong = np.zeros(count), np.ones(count)
        gradient, hessian = np.zeros((count, size)), np.tile(np.eye(size), (count, 1, 1))
        weight = found.weight
        loss[chosen], wrong[chosen] = found.loss / weight, found.wrong
        gradient[chosen] = found.gradient / weight[:, None]
        hessian[chosen] = found.hessian / weight[:, None, None]
        return _penalised(
            GroupLosses(codes, start.gram.weight, loss, wrong, gradient, hessian), points, start.ridge, self
        )

    def _attributes(self, start: _Start, points: Array, loss: Array, passes: Array, hessian: Array) -> dict[str, Array]:
        """The fitted attributes of a `LogisticRegression`."""
        gram, width = start.gram, self.design.width
        weight = gram.weight
        back = np.zeros((len(points), width + 1, width + 1))
        back[:, range(width), range(width)] = start.ratio
        back[:, -1, :-1] = (start.user_center - start.center) / start.scale
        back[:, -1, -1] = 1.0
        weights = np.einsum("gij,gj->gi", back, points)
        rank = np.count_nonzero(weights[:, :-1], axis=1) + int(self.fit_intercept)
        found = {
            "coef_": weights[:, None, :-1],
            "intercept_": weights[:, -1:],
            "n_iter_": passes,
            "n_rows_": gram.rows.astype(np.int64),
            "converged_": np.ones(len(points), bool),
            "log_likelihood_": -loss * weight,
            "deviance_": 2 * loss * weight,
            "null_deviance_": 2 * start.here.loss * weight,
        }
        if self.ridge == 0:
            rank = np.full(len(points), width + int(self.fit_intercept))
            inner = slice(None) if self.fit_intercept else slice(0, width)
            inverse = np.zeros_like(hessian)
            inverse[:, inner, inner] = _inverse((hessian * weight[:, None, None])[:, inner, inner])
            covariance = back @ inverse @ back.swapaxes(1, 2)
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
        features = gram.products[:, :width, :width] / weight[:, None, None] / scale[:, :, None] / scale[:, None, :]
        second[:, :-1, :-1] = features + left[:, :, None] * left[:, None, :]
        second[:, -1, :-1] = second[:, :-1, -1] = left
        second[:, -1, -1] = 1.0
        loss = -(share * np.log(p) + (1 - share) * np.log1p(-p))
        hessian = second * (p * (1 - p))[:, None, None]
        here = GroupLosses(gram.codes, gram.weight, loss, np.ones(len(gram)), gradient, hessian)
        here = _penalised(here, points, ridge, wanted)
        lowest = np.linalg.eigvalsh(second)[:, 0] if width else np.ones(len(gram))
        regular = (spread > (1e-14 * np.abs(mean)) ** 2).all(axis=1) & (lowest > APART)
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


def _chosen(better: Array, there: GroupLosses, here: GroupLosses) -> GroupLosses:
    """What was found at the new points where they are better, else what was known."""
    return GroupLosses(
        here.codes,
        here.weight,
        np.where(better, there.loss, here.loss),
        np.where(better, there.wrong, here.wrong),
        np.where(better[:, None], there.gradient, here.gradient),
        np.where(better[:, None, None], there.hessian, here.hessian),
    )


def _scaled(matrices: Array) -> tuple[Array, Array]:
    size = np.sqrt(np.maximum(np.diagonal(matrices, axis1=1, axis2=2), 0))
    size = np.where(size > 0, size, 1.0)
    return matrices / size[:, :, None] / size[:, None, :], size


def _solve(matrices: Array, vectors: Array) -> Array:
    """``matrix^-1 vector`` for stacks of matrices that are positive definite, or as good as that."""
    scaled, size = _scaled(matrices)
    scaled[:, range(scaled.shape[1]), range(scaled.shape[1])] += 1e-14  # not singular in floating point
    found: Array = np.linalg.solve(scaled, (vectors / size)[:, :, None])[:, :, 0] / size
    return found


def _inverse(matrices: Array) -> Array:
    scaled, size = _scaled(matrices)
    found: Array = np.linalg.inv(scaled) / size[:, :, None] / size[:, None, :]
    return found
