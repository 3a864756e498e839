"""Training of a logistic model by one pass (or a few) of averaged stochastic gradient descent."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from braidwater.aggregates import Aggregate, AveragedSgd, Iteration, SgdResult
from braidwater.aggregates.linear_map import Precision
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.errors import ConvergenceWarning, LabelError, UnsupportedError
from braidwater.events import Metric, emit
from braidwater.kernels.choice import KernelName

WIDTH_UP_TO = 512  # a step is a product with a matrix of the width squared: here 2 MB, as much work as the rows

SORTED_UP_TO = 0.05  # of the label's variance, by the order of the rows, before a warning


@dataclass(frozen=True)
class SgdSolution:
    """A fitted model in the user's coordinates: `coef` ``(1, width)``, `intercept` ``(1,)``, and how it got there.

    `loss` is the mean log-loss of the rows in the last pass, each before that pass learnt from it; `null_loss` that of the best
    model without features, None where there are offsets.
    """

    coef: Array
    intercept: Array
    loss: float
    null_loss: float | None
    weight: float
    rows: int
    passes: int


@dataclass(frozen=True)
class LogisticSgd(Iteration[SgdSolution]):
    """Passes of `AveragedSgd`, each from where the one before ended; with a ridge penalty `alpha` on the user's coefficients."""

    design: Design
    alpha: float = 0.0
    epochs: int = 1
    fit_intercept: bool = True
    kernel: KernelName = "blas"
    precision: Precision = "auto"

    def passes(self) -> Generator[Aggregate[Any, Any], Any, SgdSolution]:
        width = self.design.width
        user_scale = np.ones(width) if self.design.scale is None else self.design.scale
        user_center = np.zeros(width) if self.design.center is None else self.design.center
        found: SgdResult | None = None
        for epoch in range(self.epochs):
            found = yield AveragedSgd(
                self.design,
                fit_intercept=self.fit_intercept,
                # coefficients of the user's columns are those of the raw ones times the user's scale
                penalty=self.alpha * user_scale**2,
                after=found,
                kernel=self.kernel,
                precision=self.precision,
            )
            emit(Metric(name="loss", value=found.loss, step=epoch + 1))
        assert found is not None
        null_loss = self._null_loss(found)
        self._warn(found)
        raw = found.weights
        intercept = raw[-1] + raw[:-1] @ user_center if self.fit_intercept else 0.0
        coef, intercepts = (raw[:-1] * user_scale)[None], np.array([intercept])
        return SgdSolution(coef, intercepts, found.loss, null_loss, found.weight, found.rows, self.epochs)

    def _null_loss(self, found: SgdResult) -> float | None:
        share = found.positive / found.weight if found.weight > 0 else 0.0
        if not 0 < share < 1:
            present = int(found.weight > 0)
            raise LabelError(
                f"Label {self.design.label!r} has {present} class with weight; a classifier needs at least 2 classes."
            )
        if self.design.offset is not None:
            return None
        if not self.fit_intercept:
            return float(np.log(2))
        return float(-share * np.log(share) - (1 - share) * np.log1p(-share))

    def _warn(self, found: SgdResult) -> None:
        if found.sorted > SORTED_UP_TO:
            warnings.warn(
                f"The rows are sorted: their order explains {found.sorted:.0%} of the label's variance, and averaged "
                "SGD takes them in that order. Shuffle them, or use solver='lbfgs'.",
                ConvergenceWarning,
                stacklevel=2,
            )


def refuse_unsupported(width: int, classes: int, *, l1: bool, standardize: bool) -> None:
    """Raise `UnsupportedError` for what averaged SGD cannot do, with the solver that can."""
    if classes > 2:
        raise UnsupportedError(
            "Only binary classification is supported by solver='sgd'. The type of the target is multiclass "
            f"({classes} classes); use solver='lbfgs'."
        )
    if l1:
        raise UnsupportedError(
            "solver='sgd' has no absolute values in the penalty; use solver='auto', or set l1_ratio=0."
        )
    if standardize:
        raise UnsupportedError(
            "solver='sgd' does not know the spread of the columns before its pass, so that it cannot penalise standardised "
            "coefficients; use solver='lbfgs', or standardise in the encoding."
        )
    if width > WIDTH_UP_TO:
        raise UnsupportedError(
            f"solver='sgd' keeps a matrix of the columns squared, which pays up to {WIDTH_UP_TO} columns; there are {width}. "
            "Use solver='lbfgs'."
        )
