"""Newton's method for a smooth function plus absolute values."""

from __future__ import annotations

import numpy as np

from braidwater.blocks.base import Array
from braidwater.estimators.optimisers.base import NOISE, Evaluation, Optimiser, Optimum

SWEEPS = 1000
HALVINGS = 10


def proximal_newton(
    start: Array,
    *,
    penalty: Array,
    tolerance: float = 1e-6,
    max_steps: int = 50,
    known: Evaluation | None = None,
) -> Optimiser:
    """Minimise ``f(x) + sum(penalty |x|)`` from values, gradients and Hessians of f.

    Each step minimises the quadratic model plus the absolute values by coordinate descent on the ``n x n`` Hessian,
    without looking at the data (as glmnet does: Friedman, Hastie and Tibshirani 2010; Lee, Sun and Saunders 2014 for
    the line search). Stops when the smallest subgradient is at most `tolerance`. The value of the optimum is that of f
    alone.
    """
    point = np.asarray(start, np.float64)
    here, steps = (known, 0) if known is not None else ((yield point), 1)
    while steps < max_steps and _distance(point, here.gradient, penalty) > tolerance:
        assert here.hessian is not None
        target = coordinate_descent(here.hessian, here.gradient, point, penalty, tolerance)
        direction = target - point
        before = here.value + float(penalty @ np.abs(point))
        promised = float(here.gradient @ direction + penalty @ (np.abs(target) - np.abs(point)))
        length = 1.0
        for _ in range(HALVINGS):
            there = yield point + length * direction
            steps += 1
            after = there.value + float(penalty @ np.abs(point + length * direction))
            if there.is_finite and after <= before + 1e-4 * length * promised + NOISE * max(abs(before), 1e-3):
                break
            length /= 2
        else:
            break
        # exactly the target where the whole step is taken: its zeros are zeros
        point, here = (target if length == 1.0 else point + length * direction), there
    converged = _distance(point, here.gradient, penalty) <= tolerance
    return Optimum(point, here.value, here.gradient, steps, converged, here.hessian)


def coordinate_descent(hessian: Array, gradient: Array, point: Array, penalty: Array, tolerance: float) -> Array:
    """The minimum of ``gradient'(x - point) + (x - point)' hessian (x - point) / 2 + sum(penalty |x|)``, by
    coordinates.

    Sweeps over all coordinates alternate with sweeps over those that are not zero, until none moves its gradient by
    more than a thousandth of the tolerance.
    """
    x = point.copy()
    slope = gradient.copy()
    diagonal = np.maximum(np.diag(hessian), 1e-300)
    every = np.flatnonzero(np.diag(hessian) > 1e-14 * max(float(np.max(np.diag(hessian), initial=0)), 1e-300))
    active = every
    for sweep in range(SWEEPS):
        largest = 0.0
        for j in active:
            old = x[j]
            middle = old - slope[j] / diagonal[j]
            reach = penalty[j] / diagonal[j]
            new = np.sign(middle) * max(abs(middle) - reach, 0.0)
            if new != old:
                x[j] = new
                slope += hessian[:, j] * (new - old)
                largest = max(largest, abs(new - old) * diagonal[j])
        if largest <= 1e-3 * tolerance:
            if len(active) == len(every):
                return x
            active = every
        elif sweep:
            active = every[x[every] != 0]
    return x


def _distance(point: Array, gradient: Array, penalty: Array) -> float:
    """The largest part of the smallest subgradient."""
    if len(point) == 0:
        return 0.0
    at_zero = np.maximum(np.abs(gradient) - penalty, 0)
    elsewhere = np.abs(gradient + penalty * np.sign(point))
    return float(np.max(np.where(point == 0, at_zero, elsewhere)))
