"""Newton's method, which for a generalised linear model is iteratively reweighted least squares."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve

from braidwater.blocks.base import Array
from braidwater.estimators.optimisers.base import NOISE, Evaluation, Optimiser, Optimum, is_stationary

HALVINGS = 10
# Eigenvalues below this share of the largest are rounding: along those directions there is nothing to be learnt
RANK_TOLERANCE = 1e-11


def newton(start: Array, *, tolerance: float = 1e-6, max_steps: int = 50, known: Evaluation | None = None) -> Optimiser:
    """Minimise a smooth convex function from values, gradients and Hessians.

    A step that makes the value worse is halved. Where the Hessian has no inverse, the shortest step that solves the
    equations is taken. Stops when no part of the gradient is larger than `tolerance`, or after `max_steps` evaluations.
    """
    point = np.asarray(start, np.float64)
    here, steps = (known, 0) if known is not None else ((yield point), 1)
    while steps < max_steps and not is_stationary(here.gradient, tolerance):
        assert here.hessian is not None
        direction = -solve(here.hessian, here.gradient)
        length = 1.0
        worst = here.value + NOISE * max(abs(here.value), 1e-3)
        for _ in range(HALVINGS):
            there = yield point + length * direction
            steps += 1
            if there.is_finite and there.value <= worst:
                break
            length /= 2
        else:
            break
        point, here = point + length * direction, there
    return Optimum(point, here.value, here.gradient, steps, is_stationary(here.gradient, tolerance), here.hessian)


def solve(hessian: Array, gradient: Array) -> Array:
    """The shortest solution of ``hessian x = gradient``, for a symmetric matrix without negative eigenvalues."""
    if len(gradient) == 0:
        return gradient.copy()
    size = np.sqrt(np.maximum(np.diag(hessian), 0))
    size[size == 0] = 1.0
    scaled = hessian / np.outer(size, size)
    factor = _cholesky(scaled)
    if factor is not None:
        return np.asarray(cho_solve((factor, True), gradient / size) / size)
    values, vectors = np.linalg.eigh(scaled)
    kept = values > RANK_TOLERANCE * max(values[-1], 0)
    part = (vectors[:, kept].T @ (gradient / size)) / values[kept]
    solution: Array = (vectors[:, kept] @ part) / size
    return solution


def _cholesky(matrix: Array) -> Array | None:
    """The lower Cholesky factor of a matrix with ones on its diagonal; None where it is not clearly positive definite."""
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return None
    # a pivot is what a column has left after those before it: down here it may be rounding, and eigenvalues have to
    # tell
    return factor if float(np.min(np.diag(factor))) > 1e-4 else None
