"""Iteratively reweighted least squares, counted as MADlib counts it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from braidwater.aggregates import Aggregate, Iteration, LogisticHessian
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.errors import LabelError, NumericalError, OptionError
from braidwater.estimators.base import TableEstimator, Target
from braidwater.kernels import choose_kernel
from braidwater.kernels.choice import KernelName
from braidwater.planner.base import Work


@dataclass(frozen=True)
class Found:
    """Where the iteration ended: `points` ``(columns, variables)``, and of the step before it the log-likelihood and the products
    ``X'AX`` ``(columns * variables,)`` squared, column by column. The intercept is the last variable, where there is one."""

    points: Array
    log_likelihood: float
    products: Array
    iterations: int
    rows: int


@dataclass(frozen=True)
class Irls(Iteration[Found]):
    """Newton's method from zero; a pass is an iteration.

    It ends when the log-likelihood of two iterations differs by less than `tolerance` (0: never), or after `max_iter`. As MADlib
    has it, log-likelihood and standard errors are those of the point before the last step. Unlike there, a step that makes the
    likelihood smaller is halved. With more than two classes the weights of the class number `reference` are 0.
    """

    design: Design
    classes: int
    intercept: bool
    max_iter: int
    tolerance: float
    reference: int = 0
    kernel: KernelName = "blas"

    def passes(self) -> Generator[Aggregate[Any, Any], Any, Found]:
        columns = 1 if self.classes == 2 else self.classes
        width = self.design.width + 1
        free = np.ones((columns, width), bool)
        free[:, -1] = self.intercept
        if columns > 1:
            free[self.reference] = False
        chosen = np.flatnonzero(free)
        points, before, step = np.zeros((columns, width)), np.inf, np.zeros(len(chosen))
        for number in range(1, self.max_iter + 1):
            found = yield LogisticHessian(self.design, points[None], kernel=self.kernel)
            loss = float(found.loss[0])
            worse = not np.isfinite(loss) or loss > before + 1e-9 * max(abs(before), 1.0)
            if number > 1 and worse and np.abs(step).max() > 1e-8:
                step = step / 2
                points[free] -= step
                continue
            products = found.hessian[0][np.ix_(chosen, chosen)]
            if not np.isfinite(loss) or not np.isfinite(products).all():
                raise NumericalError(
                    "The likelihood is not finite: the variables are too large for exp(). Standardise them."
                )
            step = -_solve(products, found.gradient[0].reshape(-1)[chosen])
            points[free] += step
            if abs(loss - before) < self.tolerance:
                break
            before = loss
        return Found(points, -loss, products, number, found.rows)


class IrlsRegression(TableEstimator):
    """An estimator around `Irls`, so that `fit_groups` runs it for all groups in the same passes."""

    target: ClassVar[Target] = "class"
    kind = "irls"

    def __init__(
        self, max_iter: int = 20, tolerance: float = 1e-4, fit_intercept: bool = True, reference: int | None = None
    ) -> None:
        self.max_iter = max_iter
        self.tolerance = tolerance
        self.fit_intercept = fit_intercept
        self.reference = reference

    def fit(self, X: Any, y: Any = None, *, features: Any = None, label: str | None = None, engine: Any = None) -> Self:
        """Train on a table."""
        training = self._open(
            X, y, features=features, label=label, exclude=(), sample_weight=None, offset=None, engine=engine
        )
        assert training.classes is not None
        classes = training.classes.tolist()
        if len(classes) < 2:
            raise LabelError(f"The dependent variable is {classes[0]!r} in every row; there is nothing to learn.")
        reference = 0
        if self.reference is not None:
            if self.reference not in classes:
                raise OptionError(
                    "ref_category", self.reference, f"one of the categories {', '.join(map(str, classes))}"
                )
            reference = classes.index(self.reference)
        kernel = choose_kernel(training.rows, "auto")
        # two categories have one column of weights, those of the second against the first
        irls = Irls(training.design, len(classes), self.fit_intercept, self.max_iter, self.tolerance, reference, kernel)
        found: Found = self._run(training, irls, passes=min(self.max_iter, 7))
        self.classes_ = training.classes
        self.points_, self.products_ = found.points, found.products
        self.log_likelihood_, self.n_iter_, self.n_rows_ = found.log_likelihood, found.iterations, found.rows
        return self

    def work(self, table: Any, encoding: Any) -> Work:
        """Six or seven passes for the Hessian."""
        width, classes = encoding.design.width + 1, len(encoding.classes or ())
        columns = 1 if classes <= 2 else classes
        return Work(
            name=self.kind, shape="aggregate", passes=min(self.max_iter, 7),
            flops_per_row=float(2 * columns**2 * width**2), row_bytes=encoding.block_schema.row_bytes,
            read_columns=tuple(encoding.columns), state_bytes=8 * (columns * width) ** 2,
            kernel="fused" if columns == 1 and choose_kernel(len(table), "auto") == "fused" else "blas",
            working_bytes=3 * 8 * 4096 * (width + 3 * columns),
        )  # fmt: skip


def inverse_of(products: Array) -> tuple[Array, float]:
    """The (pseudo-)inverse of a positive semi-definite matrix, and the ratio of its largest to its smallest eigenvalue."""
    values = np.linalg.eigvalsh(products)
    condition = float(values[-1] / values[0]) if values[0] > 0 else float("inf")
    size = np.sqrt(np.maximum(np.diag(products), 0))
    if np.all(size > 0):
        scaled = products / np.outer(size, size)
        if np.linalg.eigvalsh(scaled)[0] > 1e-13:
            return np.linalg.inv(scaled) / np.outer(size, size), condition
    kept, vectors = np.linalg.eigh(products)
    good = kept > 1e-12 * max(kept[-1], 1e-300)
    return (vectors[:, good] / kept[good]) @ vectors[:, good].T, float("inf")


def _solve(products: Array, gradient: Array) -> Array:
    found: Array = inverse_of(products)[0] @ gradient
    return found
