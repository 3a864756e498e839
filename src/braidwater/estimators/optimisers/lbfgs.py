"""Limited-memory BFGS."""

from __future__ import annotations

from collections import deque

import numpy as np

from braidwater.blocks.base import Array
from braidwater.estimators.optimisers.base import Evaluation, Optimiser, Optimum, is_stationary
from braidwater.estimators.optimisers.curvature import Curvature
from braidwater.estimators.optimisers.line_search import line_search


def lbfgs(
    start: Array,
    *,
    curvature: Array,
    tolerance: float = 1e-6,
    max_steps: int = 200,
    memory: int = 10,
    known: Evaluation | None = None,
) -> Optimiser:
    """Minimise a smooth function from values and gradients (Nocedal 1980; Liu and Nocedal 1989).

    `curvature` is a guess at the Hessian, its diagonal ``(n,)`` or all of it ``(n, n)``: with a good one the first step
    is nearly right, and correlated columns take no more steps than others. `known` is the evaluation at `start` if
    somebody has it already. Stops when no part of the gradient is larger than `tolerance`, after `max_steps`
    evaluations, or when rounding leaves no step downhill.
    """
    point = np.asarray(start, np.float64)
    here, steps = (known, 0) if known is not None else ((yield point), 1)
    guess = Curvature(curvature)
    pairs: deque[tuple[Array, Array]] = deque(maxlen=memory)
    while steps < max_steps and not is_stationary(here.gradient, tolerance):
        direction = -_apply(pairs, guess, here.gradient)
        if direction @ here.gradient >= 0:
            pairs.clear()
            direction = -guess.solve(here.gradient)
        search = line_search(point, direction, here, looks=min(12, max_steps - steps))
        try:
            look = next(search)
            while True:
                steps += 1
                look = search.send((yield look))
        except StopIteration as stop:
            outcome = stop.value
        if outcome is None:
            if not pairs:
                break
            pairs.clear()  # what was learnt of the curvature misleads: once more from the diagonal
            continue
        length, there = outcome
        change, turn = length * direction, there.gradient - here.gradient
        if change @ turn > 1e-12 * np.sqrt((change @ change) * (turn @ turn)):
            pairs.append((change, turn))
        point, here = point + change, there
    return Optimum(point, here.value, here.gradient, steps, is_stationary(here.gradient, tolerance))


def _apply(pairs: deque[tuple[Array, Array]], guess: Curvature, gradient: Array) -> Array:
    """The two-loop recursion: the inverse Hessian, as far as it is known, times the gradient."""
    q = gradient.copy()
    shares = []
    for change, turn in reversed(pairs):
        share = (change @ q) / (change @ turn)
        shares.append(share)
        q -= share * turn
    if pairs:
        change, turn = pairs[-1]
        q *= (change @ turn) / (turn @ guess.solve(turn))
    q = guess.solve(q)
    for (change, turn), share in zip(pairs, reversed(shares), strict=True):
        q += (share - (turn @ q) / (change @ turn)) * change
    return q
