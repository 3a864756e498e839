"""Training of logistic models with many penalties in one sequence of passes."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from braidwater.aggregates import (
    Aggregate,
    Both,
    Gram,
    GramResult,
    Iteration,
    LogisticGradient,
    LogisticHessian,
    Moments,
)
from braidwater.aggregates.linear_map import Precision
from braidwater.aggregates.moments import MomentsResult, is_constant
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.errors import LabelError, NumericalError
from braidwater.estimators.logistic_inference import Inference, examine
from braidwater.estimators.logistic_problem import Coordinates, Problem, origin_of
from braidwater.estimators.optimisers import Evaluation, Optimum, lockstep
from braidwater.events import Metric, emit
from braidwater.kernels.choice import KernelName

# Up to so many weights the first pass computes all products of columns: the solvers then know how columns go together
# and need 5-20 passes on any data, where a diagonal guess needs 40-140 on strongly correlated columns.
PRODUCTS_UP_TO = 400
# Rows whose products are enough for a guess: it is off by sqrt(columns / rows) in every direction, a few percent
SAMPLE_ROWS = 2**17


@dataclass(frozen=True)
class Solution:
    """A fitted model in the user's coordinates: `coef` ``(columns, width)``, `intercept` ``(columns,)``, and how it got
    there.

    `loss` is the sum of the weighted log-losses (without penalty), `null_loss` that of the model without features.
    """

    coef: Array
    intercept: Array
    loss: float
    null_loss: float
    weight: float
    rows: int
    converged: bool
    passes: int
    gradient_size: float
    inference: Inference | None
    constant: tuple[int, ...]


@dataclass(frozen=True)
class Start:
    """What the first pass found: moments in solving coordinates, and the model without features with its derivatives.

    `weights` ``(columns, width + 1)`` is that model, `loss` its mean loss, `gradient` of the same shape; `hessian` is
    the flat Hessian, or its diagonal where there are no products of columns.
    """

    rows: int
    weight: float
    coordinates: Coordinates
    constant: Array
    weights: Array
    loss: float
    gradient: Array
    hessian: Array


@dataclass(frozen=True)
class LogisticPath(Iteration[list[Solution]]):
    """One model for each of `alphas`, all evaluated by the same passes.

    Minimises ``sum(w loss) / sum(w) + alpha ((1 - l1_ratio) / 2 |b|^2 + l1_ratio |b|_1)`` with b the coefficients of
    the user's columns (of standardised ones, if `standardize`), the intercept free. The first pass computes moments,
    from which follow value, gradient and Hessian at the model without features, so that the second pass is already at
    the first step's end.
    """

    design: Design
    classes: int
    alphas: tuple[float, ...]
    l1_ratio: float = 0.0
    fit_intercept: bool = True
    solver: str = "lbfgs"
    tolerance: float = 1e-6
    max_passes: int = 100
    kernel: KernelName = "blas"
    standardize: bool = False
    precision: Precision = "auto"
    rows: int = 0

    @property
    def columns(self) -> int:
        """Columns of weights of a model: one for two classes, else one for each class."""
        return 1 if self.classes == 2 else self.classes

    def passes(self) -> Generator[Aggregate[Any, Any], Any, list[Solution]]:
        start = self._start(*(yield from self._first()))
        design = self.design.standardised(start.coordinates.center, start.coordinates.scale)
        problems = self._problems(start)
        optima, null_loss = yield from self._solve(design, start, problems)
        solutions = []
        for number, alpha in enumerate(self.alphas):
            problem, optimum = problems[number], optima[number]
            inference = None
            loss = optimum.value - 0.5 * float(problem.ridge[problem.free] @ optimum.point**2)
            if alpha == 0:
                inference = yield from examine(design, problem, optimum, start.coordinates, start.weight, self.kernel)
                optimum, loss = inference.optimum, inference.loss
            solutions.append(self._solution(start, problem, optimum, loss, null_loss, inference))
        return solutions

    @property
    def _with_hessian(self) -> bool:
        return self.solver == "newton" or self.l1_ratio > 0

    def _first(self) -> Generator[Aggregate[Any, Any], Any, tuple[MomentsResult, GramResult | None]]:
        """The first pass: moments, and products of columns, of a sample of rows where they are but a guess."""
        moments = Moments(self.design, self.classes, kernel=self.kernel)
        if self.columns * (self.design.width + 1) > PRODUCTS_UP_TO:
            return (yield moments), None
        every = 1 if self._with_hessian else max(1, self.rows // SAMPLE_ROWS)
        products = Gram(self.design, self.classes, kernel=self.kernel, every=every)
        if every > 1:
            found = yield Both(moments, products)
            return cast(tuple[MomentsResult, GramResult], found)
        first = yield products
        return first.moments, first

    def _start(self, first: MomentsResult, products: GramResult | None) -> Start:
        """The model without features and its derivatives, from the moments."""
        width, c = self.design.width, self.columns
        mean, target, variance, cross = first.mean, first.target_mean, first.variance, first.cross_products
        shares = np.array([1 - target[0], target[0]]) if c == 1 else target
        self._check_classes(shares, first.weight)
        constant = is_constant(mean, variance)
        center = mean if self.fit_intercept else origin_of(self.design)
        spread = variance if self.fit_intercept else variance + (mean - center) ** 2
        if not self.fit_intercept:
            constant = spread == 0
        scale = np.where(constant, 1.0, np.sqrt(np.maximum(spread, 0)))
        left = (mean - center) / scale
        weights = np.zeros((c, width + 1))
        p = (shares if self.fit_intercept else np.full(self.classes, 1 / self.classes))[-c:]
        if self.fit_intercept:
            safe = np.clip(shares, 1e-12, None)
            weights[:, -1] = np.log(safe[1] / safe[0]) if c == 1 else np.log(safe) - np.log(safe).mean()
        loss = float(-(shares @ np.log(np.clip(shares, 1e-300, None)))) if self.fit_intercept else np.log(self.classes)
        gradient = np.empty((c, width + 1))
        gradient[:, -1] = p - target
        gradient[:, :-1] = np.outer(p, left) - (cross / scale[:, None] / first.weight).T - np.outer(target, left)
        mixing = np.array([[p[0] * (1 - p[0])]]) if c == 1 else np.diag(p) - np.outer(p, p)
        hessian: Array
        if products is not None:
            size = np.sqrt(variance) / scale
            second = np.empty((width + 1, width + 1))
            second[:-1, :-1] = products.correlations * np.outer(size, size) + np.outer(left, left)
            second[-1, :-1] = second[:-1, -1] = left
            second[-1, -1] = 1.0
            hessian = np.kron(mixing, second)
        else:
            hessian = np.kron(np.diag(mixing), np.append(variance / scale**2 + left**2, 1.0))
        coordinates = Coordinates.of(self.design, center, scale)
        return Start(first.rows, first.weight, coordinates, constant, weights, loss, gradient, hessian)

    def _check_classes(self, shares: Array, weight: float) -> None:
        present = int(np.sum(shares > 0))
        if weight <= 0 or present < 2:
            raise LabelError(
                f"Label {self.design.label!r} has {present if weight > 0 else 0} class with weight; "
                "a classifier needs at least 2 classes."
            )

    def _problems(self, start: Start) -> list[Problem]:
        width, c = self.design.width, self.columns
        free = np.ones((c, width + 1), bool)
        free[:, :-1] = ~start.constant
        free[:, -1] = self.fit_intercept
        factor = np.ones(width) if self.standardize else np.abs(start.coordinates.ratio)
        ridge, lasso = np.zeros((c, width + 1)), np.zeros((c, width + 1))
        ridge[:, :-1], lasso[:, :-1] = factor**2, factor
        return [
            Problem(
                free.reshape(-1),
                (alpha * (1 - self.l1_ratio) * ridge).reshape(-1),
                (alpha * self.l1_ratio * lasso).reshape(-1),
                (c, width + 1),
            )
            for alpha in self.alphas
        ]

    def _solve(
        self, design: Design, start: Start, problems: list[Problem]
    ) -> Generator[Aggregate[Any, Any], Any, tuple[dict[int, Optimum], float]]:
        """All problems in lockstep; with offsets also the model without features, which then has no formula."""
        offset = design.offset is not None
        everything = dict(enumerate(problems))
        if offset:
            nothing = np.zeros_like(problems[0].ridge)
            only = np.zeros(problems[0].shape, bool)
            only[:, -1] = self.fit_intercept
            everything[-1] = Problem(only.reshape(-1), nothing, nothing, problems[0].shape)
        with_hessian = self._with_hessian
        optimisers = {}
        for number, problem in everything.items():
            point = start.weights.reshape(-1)[problem.free]
            full = start.hessian.ndim == 2
            known = None
            if not offset and (full or not with_hessian):
                known = problem.evaluation(point, start.loss, start.gradient, start.hessian if full else None)
            guess = problem.restricted(start.hessian) if full else (start.hessian + problem.ridge)[problem.free]
            optimisers[number] = problem.optimiser(
                self.solver, point, guess, known, self.tolerance, self.max_passes - 1
            )
        optima = yield from self._passes(design, everything, lockstep(optimisers), with_hessian)
        null = optima.pop(-1).value if offset else start.loss
        return optima, null

    def _passes(
        self,
        design: Design,
        problems: Mapping[int, Problem],
        rounds: Generator[dict[int, Array], Mapping[int, Evaluation], dict[int, Optimum]],
        with_hessian: bool,
    ) -> Generator[Aggregate[Any, Any], Any, dict[int, Optimum]]:
        step = 0
        try:
            points = next(rounds)
            while True:
                numbers = list(points)
                weights = np.stack([problems[k].full(points[k]) for k in numbers])
                found = yield (
                    LogisticHessian(design, weights, kernel=self.kernel)
                    if with_hessian
                    else LogisticGradient(design, weights, kernel=self.kernel, precision=self.precision)
                )
                step += 1
                evaluations = {}
                for place, k in enumerate(numbers):
                    hessian = found.hessian[place] / found.weight if with_hessian else None
                    evaluations[k] = problems[k].evaluation(
                        points[k], found.loss[place] / found.weight, found.gradient[place] / found.weight, hessian
                    )
                self._announce(evaluations, step)
                points = rounds.send(evaluations)
        except StopIteration as stop:
            return cast(dict[int, Optimum], stop.value)

    def _announce(self, evaluations: Mapping[int, Evaluation], step: int) -> None:
        values = [e.value for e in evaluations.values()]
        if not any(e.is_finite for e in evaluations.values()):
            raise NumericalError(
                f"The loss is {values[0]} in step {step}: a feature or a weight is so large that sums overflow. "
                "Standardise or cap the largest columns."
            )
        emit(Metric(name="loss", value=float(np.mean(values)), step=step))

    def _solution(
        self,
        start: Start,
        problem: Problem,
        optimum: Optimum,
        loss: float,
        null_loss: float,
        inference: Inference | None,
    ) -> Solution:
        weights = problem.full(optimum.point) @ start.coordinates.back.T
        if self.columns > 1:
            # adding the same numbers to every class changes no probability: of all equally good weights take those with
            # sum 0
            shared = slice(None) if inference is not None else slice(-1, None)
            weights[:, shared] -= weights[:, shared].mean(axis=0)
        return Solution(
            weights[:, :-1],
            weights[:, -1],
            loss * start.weight,
            null_loss * start.weight,
            start.weight,
            start.rows,
            optimum.converged,
            optimum.steps + 1 + (inference.passes if inference is not None else 0),
            float(np.max(np.abs(optimum.gradient), initial=0.0)),
            inference,
            tuple(np.flatnonzero(start.constant).tolist()),
        )
