"""What an optimiser asks, what it is told, and what it ends with."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from braidwater.blocks.base import Array

# The value of a loss summed in float32 tiles wobbles in the eighth digit: a step that makes it worse by less is no step
# uphill.
NOISE = 1e-8


@dataclass(frozen=True)
class Evaluation:
    """A function at a point: value, gradient ``(n,)`` and, where it was asked for, the Hessian ``(n, n)``."""

    value: float
    gradient: Array
    hessian: Array | None = None

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.value) and np.all(np.isfinite(self.gradient)))


@dataclass(frozen=True)
class Optimum:
    """Where an optimiser stopped, and why: `converged` when the gradient became small; `steps` counts its evaluations."""

    point: Array
    value: float
    gradient: Array
    steps: int
    converged: bool
    hessian: Array | None = None


Optimiser = Generator[Array, Evaluation, Optimum]


def is_stationary(gradient: Array, tolerance: float) -> bool:
    """Whether no part of the gradient is larger than the tolerance."""
    return len(gradient) == 0 or float(np.max(np.abs(gradient))) <= tolerance
