"""Optimisers as generators: they yield a point and are sent the value and the gradient there.

Who runs them decides what a look at a function costs; `lockstep` runs many at a time, so that one pass over a table
answers all of them.
"""

from braidwater.estimators.optimisers.base import Evaluation, Optimiser, Optimum
from braidwater.estimators.optimisers.conjugate_gradient import conjugate_gradient
from braidwater.estimators.optimisers.lbfgs import lbfgs
from braidwater.estimators.optimisers.lockstep import lockstep
from braidwater.estimators.optimisers.newton import newton
from braidwater.estimators.optimisers.proximal_newton import proximal_newton

__all__ = [
    "Evaluation",
    "Optimiser",
    "Optimum",
    "conjugate_gradient",
    "lbfgs",
    "lockstep",
    "newton",
    "proximal_newton",
]
