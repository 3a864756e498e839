"""A logistic model with one penalty, in the coordinates in which it is solved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.estimators.optimisers import (
    Evaluation,
    Optimiser,
    conjugate_gradient,
    lbfgs,
    newton,
    proximal_newton,
)


@dataclass(frozen=True)
class Coordinates:
    """Columns are centred and divided by their standard deviation for solving; this leads back to those of the user.

    `center` and `scale` ``(width,)`` are of the raw columns; `user_center` and `user_scale` those that the encoding
    already takes off (0 and 1 where it does not standardise).
    """

    center: Array
    scale: Array
    user_center: Array
    user_scale: Array

    @staticmethod
    def of(design: Design, center: Array, scale: Array) -> Coordinates:
        width = design.width
        zero, one = np.zeros(width), np.ones(width)
        return Coordinates(
            center,
            scale,
            zero if design.center is None else design.center,
            one if design.scale is None else design.scale,
        )

    @property
    def ratio(self) -> Array:
        """What a coefficient of a standardised column is times to be one of the user's column, ``(width,)``."""
        return self.user_scale / self.scale

    @property
    def back(self) -> Array:
        """The matrix ``(width + 1, width + 1)`` that turns solved coefficients, intercept last, into those of the user."""
        width = len(self.center)
        matrix = np.zeros((width + 1, width + 1))
        matrix[range(width), range(width)] = self.ratio
        matrix[-1, :-1] = (self.user_center - self.center) / self.scale
        matrix[-1, -1] = 1.0
        return matrix


def origin_of(design: Design) -> Array:
    """The point that a model without intercept goes through, in raw columns ``(width,)``: where the user's columns are 0."""
    return np.zeros(design.width) if design.center is None else design.center


@dataclass(frozen=True)
class Problem:
    """Minimise ``mean loss + sum(ridge v^2) / 2 + sum(lasso |v|)`` over the free ones of the weights v.

    All arrays are flat, of ``columns (width + 1)`` numbers, the intercept of each column of weights last.
    """

    free: Array
    ridge: Array
    lasso: Array
    shape: tuple[int, int]

    def full(self, point: Array) -> Array:
        """All weights ``(columns, width + 1)`` from the free ones; the others are 0."""
        weights = np.zeros(self.free.shape)
        weights[self.free] = point
        return weights.reshape(self.shape)

    def evaluation(self, point: Array, loss: float, gradient: Array, hessian: Array | None) -> Evaluation:
        """The objective without its absolute values at free weights `point`, from the mean loss and its derivatives by all."""
        ridge = self.ridge[self.free]
        value = loss + 0.5 * float(ridge @ point**2)
        slope = gradient.reshape(-1)[self.free] + ridge * point
        if hessian is None:
            return Evaluation(value, slope)
        return Evaluation(value, slope, self.restricted(hessian))

    def restricted(self, hessian: Array) -> Array:
        """The Hessian of the objective by the free weights, from that of the mean loss by all."""
        kept = np.flatnonzero(self.free)
        part: Array = hessian[np.ix_(kept, kept)].copy()
        part[range(len(kept)), range(len(kept))] += self.ridge[kept]
        return part

    def optimiser(
        self, solver: str, start: Array, curvature: Array, known: Evaluation | None, tolerance: float, max_steps: int
    ) -> Optimiser:
        """The optimiser that `solver` names, from free weights `start`."""
        if np.any(self.lasso):
            penalty = self.lasso[self.free]
            return proximal_newton(start, penalty=penalty, tolerance=tolerance, max_steps=max_steps, known=known)
        if solver == "newton":
            return newton(start, tolerance=tolerance, max_steps=max_steps, known=known)
        run = conjugate_gradient if solver == "cg" else lbfgs
        if known is not None:
            known = Evaluation(known.value, known.gradient)
        return run(start, curvature=curvature, tolerance=tolerance, max_steps=max_steps, known=known)
