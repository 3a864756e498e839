"""How far to go in a direction."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from braidwater.blocks.base import Array
from braidwater.estimators.optimisers.base import NOISE, Evaluation

SUFFICIENT = 1e-4  # of the decrease that the slope promises
FLATTER = 0.9  # of the slope is left at an accepted step
LOOKS = 12


def line_search(
    point: Array, direction: Array, here: Evaluation, step: float = 1.0, looks: int = LOOKS
) -> Generator[Array, Evaluation, tuple[float, Evaluation] | None]:
    """A step along a direction of descent that meets the Wolfe conditions, and the evaluation there; None if none is
    found.

    Every look is a pass over the data, so the first step that is good enough is taken. Bisection and secant steps
    inside a bracket (Nocedal and Wright 2006, section 3.5); near the optimum, where differences of values drown in
    rounding, a value that is not worse counts when the slope has turned flat (the approximate Wolfe condition of Hager
    and Zhang 2005).
    """
    slope = float(here.gradient @ direction)
    allowed = NOISE * max(abs(here.value), 1e-3)
    low, low_slope, high = 0.0, slope, np.inf
    best: tuple[float, Evaluation] | None = None
    for _ in range(looks):
        found = yield point + step * direction
        at = float(found.gradient @ direction) if found.is_finite else np.inf
        descends = found.is_finite and found.value <= here.value + SUFFICIENT * step * slope
        flat = found.is_finite and found.value <= here.value + allowed and abs(at) <= FLATTER * abs(slope)
        if (descends or flat) and at >= FLATTER * slope:
            return step, found
        if descends and at < 0:
            low, low_slope, best = step, at, (step, found)
        else:
            high = step
        step = _next_step(low, low_slope, high, step, at)
    return best


def _next_step(low: float, low_slope: float, high: float, step: float, at: float) -> float:
    """Where the line through two slopes is zero, kept well inside the bracket (or not too far outside, while it is open)."""
    if np.isinf(high):
        return float(np.clip(2 * low, low * 1.5, low * 10)) if at >= low_slope or low == 0 else 4 * low
    if np.isfinite(at) and at > low_slope and step == high:
        guess = low - low_slope * (high - low) / (at - low_slope)
        return float(np.clip(guess, low + 0.1 * (high - low), high - 0.1 * (high - low)))
    return low + (0.5 if np.isfinite(at) else 0.1) * (high - low)
