"""How sure the coefficients of a logistic model are, and whether they exist at all."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from braidwater.aggregates import Aggregate, LogisticHessian
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.estimators.logistic_problem import Coordinates, Problem
from braidwater.estimators.optimisers import Optimum
from braidwater.estimators.optimisers.newton import RANK_TOLERANCE, solve
from braidwater.kernels.choice import KernelName

# Steps of Newton's method towards an optimum that exists shrink quadratically: after so many they are rounding. Towards
# one at infinity each is as long as the last (the curvature there falls as fast as the slope).
EXTRA_STEPS = 5
STILL = 1e-5  # of a coefficient: after a step this small the Hessian before it is that of the optimum, to five digits


@dataclass(frozen=True)
class Inference:
    """What the Hessian at the optimum says.

    `covariance` is that of the user's coefficients: ``(width + 1, width + 1)`` for two classes, intercept last; for
    more classes that of the differences to the first class, ``((C - 1) (width + 1),)`` squared, class by class.
    `aliased` and `separating` are columns of the design (`width` stands for the intercept); `separated` is "complete"
    when a rule without error was found.
    """

    optimum: Optimum
    loss: float
    covariance: Array
    rank: int
    aliased: tuple[int, ...]
    separating: tuple[int, ...]
    separated: str | None
    passes: int


def examine(
    design: Design, problem: Problem, optimum: Optimum, coordinates: Coordinates, weight: float, kernel: KernelName
) -> Generator[Aggregate[Any, Any], Any, Inference]:
    """One pass for the Hessian in float64, a last step of Newton's method, and the covariance.

    When that last step is not small, up to `EXTRA_STEPS` more passes tell a slow optimum from a separated one.
    """
    point, moving = optimum.point, np.zeros(0, bool)
    loss, wrong, hessian = optimum.value, 1.0, np.zeros((0, 0))
    for passes in range(1, EXTRA_STEPS + 1):  # noqa: B007
        found = yield LogisticHessian(design, problem.full(point)[None], kernel=kernel)
        loss, wrong = float(found.loss[0] / found.weight), float(found.wrong[0])
        evaluation = problem.evaluation(point, loss, found.gradient[0] / found.weight, found.hessian[0] / found.weight)
        assert evaluation.hessian is not None
        hessian = evaluation.hessian
        step = -solve(hessian, evaluation.gradient)
        moving = np.abs(step) > STILL * np.abs(point) + 1e-6
        if not np.any(moving) or wrong == 0:
            break
        point = point + step
    separated = None
    if wrong == 0 and design.offset is None:
        separated = "complete"
    elif np.any(moving):
        separated = "quasi-complete"
    else:
        point = point + step
        loss += float(evaluation.gradient @ step + 0.5 * step @ hessian @ step)
    separating: tuple[int, ...] = ()
    if separated:
        separating = _largest(problem, step if np.any(moving) else point)
    covariance, rank, aliased = _covariance(problem, hessian * weight, coordinates)
    # the size of the gradient before the last step is an upper bound of that after it
    final = replace(optimum, point=point, converged=optimum.converged and separated is None)
    return Inference(final, loss, covariance, rank, aliased, separating, separated, passes)


def _largest(problem: Problem, step: Array) -> tuple[int, ...]:
    """The columns of the design along which a step goes farthest."""
    sizes = np.abs(problem.full(step)).max(axis=0)
    features = sizes[:-1]
    if not len(features) or features.max() == 0:
        return (len(features),)
    return tuple(np.flatnonzero(features >= 0.3 * features.max()).tolist())


def _covariance(problem: Problem, information: Array, coordinates: Coordinates) -> tuple[Array, int, tuple[int, ...]]:
    """The inverse of the information in the user's coordinates, its rank, and the columns that have no say of their own."""
    columns, width = problem.shape
    kept = np.flatnonzero(problem.free)
    if columns > 1:
        # more than two classes: fix the weights of the first at 0, as only differences to it can be known
        inside = kept >= width
        information, kept = information[np.ix_(inside, inside)], kept[inside] - width
    inverse, rank, missing = _pseudo_inverse(information)
    size = max(columns - 1, 1) * width
    full = np.zeros((size, size))
    full[np.ix_(kept, kept)] = inverse
    back = np.kron(np.eye(max(columns - 1, 1)), coordinates.back)
    covariance = back @ full @ back.T
    aliased = sorted({int(j) for j in kept[missing] % width})
    never = ~problem.free.reshape(problem.shape)[0]
    aliased = sorted({*aliased, *np.flatnonzero(never[:-1]).tolist()})
    # NaN, not a number that looks like knowledge, where the data cannot tell a coefficient
    for j in aliased:
        for begin in range(0, size, width):
            covariance[begin + j, :] = covariance[:, begin + j] = np.nan
    return covariance, rank, tuple(aliased)


def _pseudo_inverse(matrix: Array) -> tuple[Array, int, Array]:
    """Inverse on the range of a symmetric matrix, its rank, and which coordinates have a part outside of the range."""
    if not len(matrix):
        return matrix, 0, np.zeros(0, bool)
    size = np.sqrt(np.maximum(np.diag(matrix), 0))
    size[size == 0] = 1.0
    values, vectors = np.linalg.eigh(matrix / np.outer(size, size))
    kept = values > RANK_TOLERANCE * max(values[-1], 0)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T / np.outer(size, size)
    outside = np.abs(vectors[:, ~kept]).max(axis=1, initial=0.0) > 1e-5
    return inverse, int(kept.sum()), outside
