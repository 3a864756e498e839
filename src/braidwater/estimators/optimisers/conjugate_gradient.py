"""Nonlinear conjugate gradient."""

from __future__ import annotations

import numpy as np

from braidwater.blocks.base import Array
from braidwater.estimators.optimisers.base import Evaluation, Optimiser, Optimum, is_stationary
from braidwater.estimators.optimisers.curvature import Curvature
from braidwater.estimators.optimisers.line_search import line_search


def conjugate_gradient(
    start: Array,
    *,
    curvature: Array,
    tolerance: float = 1e-6,
    max_steps: int = 500,
    known: Evaluation | None = None,
) -> Optimiser:
    """Minimise a smooth function from values and gradients with two vectors of memory.

    The direction of Hager and Zhang (2005), equation 1.3, preconditioned by `curvature` (a guess at the
    Hessian, its diagonal ``(n,)`` or all of it ``(n, n)``); it descends whatever the line search did. Stops as `lbfgs`
    does.
    """
    point = np.asarray(start, np.float64)
    here, steps = (known, 0) if known is not None else ((yield point), 1)
    guess = Curvature(curvature)
    direction = -guess.solve(here.gradient)
    step, fresh = 1.0, True
    while steps < max_steps and not is_stationary(here.gradient, tolerance):
        search = line_search(point, direction, here, step, looks=min(12, max_steps - steps))
        try:
            look = next(search)
            while True:
                steps += 1
                look = search.send((yield look))
        except StopIteration as stop:
            outcome = stop.value
        if outcome is None:
            if fresh:
                break
            direction, step, fresh = -guess.solve(here.gradient), 1.0, True
            continue
        length, there = outcome
        turn = there.gradient - here.gradient
        bent = direction @ turn
        gradient = guess.solve(there.gradient)
        point, old = point + length * direction, direction
        beta = 0.0
        if bent > 0:
            flat = guess.solve(turn)
            beta = float((flat - 2 * old * (turn @ flat) / bent) @ there.gradient / bent)
            least = -1 / (
                np.sqrt(old @ guess.times(old)) * min(0.01, np.sqrt(here.gradient @ guess.solve(here.gradient)))
            )
            beta = max(beta, float(least))
        direction, fresh = -gradient + beta * old, beta == 0.0
        # the minimum along the next direction, if the curvature along the last one still holds
        promised = -float(there.gradient @ direction)
        size = float(direction @ guess.times(direction))
        along = bent / length / float(old @ guess.times(old)) if bent > 0 else 1.0
        step = promised / (along * size) if promised > 0 and size > 0 else 1.0
        here = there
    return Optimum(point, here.value, here.gradient, steps, is_stationary(here.gradient, tolerance))
