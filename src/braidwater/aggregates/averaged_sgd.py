"""One pass of averaged stochastic gradient descent for a logistic model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.class_counts import class_codes
from braidwater.aggregates.linear_map import LinearMap, Precision
from braidwater.aggregates.sgd_start import Prior, Sample, Surface, start_from
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design, NumberTerm
from braidwater.errors import NumericalError
from braidwater.kernels import scratch
from braidwater.kernels.choice import KernelName
from braidwater.kernels.logistic_loss import logistic_loss

BATCH = 1024
START_ROWS = 8192  # learnt from exactly, by Newton's method, before the first step
FRESH_ROWS = 1024  # of every block, from which the curvature is brought up to date
# Moulines and Bach (2011): any power between 1/2 and 1 will do. On plain, steep, correlated and rare labels (2M rows of 30
# columns) 2/3 leaves at most 1e-6 of excess loss, 1/2 up to six times and 3/4 twice as much
POWER = 2 / 3


@dataclass
class SgdState:
    """Where a worker is. `point` and `total` are weights ``(width + 1,)`` of the raw columns, the intercept last.

    `total` sums the points that were passed, weighted by the rows behind each. `loss` sums the losses of rows before they
    were learnt from (those of the start: after), `positive` the weights of the second class, `between` the squares of that
    over `pieces` of 1024 rows, each divided by its weight. `batches` counts mini-batches. Rows wait in `sample` until there
    are enough for a start; `surface` is None until then.
    """

    rows: int
    weight: float
    positive: float
    between: float
    pieces: int
    loss: float
    batches: float
    point: Array
    total: Array
    sample: Sample
    surface: Surface | None


@dataclass(frozen=True)
class SgdResult:
    """What a pass of averaged SGD learnt.

    `weights` ``(width + 1,)`` are the averaged weights of the raw columns, the intercept last. `rows` counts rows, `weight`
    sums their weights, `positive` that of the second class. `sorted` is the share of the label's variance that the place of a
    row explains: 0 where rows come in no particular order. `loss` is the mean log-loss of the rows, each before it was learnt
    from. `state` is where the next pass goes on.
    """

    weights: Array
    rows: int
    weight: float
    positive: float
    sorted: float
    loss: float
    state: SgdState


class AveragedSgd(Aggregate[SgdState, SgdResult]):
    """Stochastic Newton steps over mini-batches of 1024 rows in their order, and the average of where they lead.

    The first 8192 rows of a worker are fitted by Newton's method. Every later mini-batch of mean gradient g moves the weights
    by ``-t^(-2/3) H^-1 g``, where t counts mini-batches and H is the mean curvature at the weights of the time, over those
    first rows and 1024 of every later block. As H measures the columns, the step needs no tuning, and depends neither on
    their units nor on how they go together (Bercu, Godichon and Portier 2020; Boyer and Godichon-Baggioni 2023; here in
    mini-batches). The result is the mean of the weights over all rows (Polyak and Juditsky 1992), which to first order is the
    optimum itself. On heavy-tailed columns the step is at most ``b / (R + b - 1)`` for mini-batches of b rows (Jain et al.
    2018), R being the fourth moment over the second.

    Not exact: workers average what each learnt from its own rows, weighted by them. Rows should come in no particular order.

    Without an intercept the linear predictor is 0 where the columns are at the centre of `design` (at 0 if it has none).
    `penalty` ``(width,)`` times half the squared coefficients of the raw columns is added to the mean loss. `after` is the
    result of the pass before, `precision` as in `LinearMap`. Cost at 30 float32 columns: 15-20 ns a row compiled
    (``kernel="fused"``, features of one floating type), three times that in numpy; memory for the width squared.
    """

    exact = False
    what = "averaged SGD"

    def __init__(
        self,
        design: Design,
        *,
        fit_intercept: bool = True,
        penalty: Array | None = None,
        after: SgdResult | None = None,
        kernel: KernelName = "blas",
        precision: Precision = "auto",
    ) -> None:
        self.design = design.raw()
        strength = np.zeros(design.width) if penalty is None else np.asarray(penalty, np.float64)
        origin = np.zeros(design.width) if design.center is None else design.center
        self.prior = Prior(strength, origin, fit_intercept)
        self.after = after
        self.kernel = kernel
        self.precision = precision

    def initialize(self) -> SgdState:
        width = self.design.width
        fresh = SgdState(
            0, 0.0, 0.0, 0.0, 0, 0.0, 0.0, np.zeros(width + 1), np.zeros(width + 1), Sample.empty(width), surface=None
        )
        if self.after is None:
            return fresh
        before = self.after.state
        # from the last weights, not from their average: what keeps the average of a pass from the optimum is, to first
        # order, how far the pass ends from where it began
        return replace(fresh, point=before.point.copy(), batches=before.batches, surface=before.surface)

    def transition(self, state: SgdState, block: Block) -> SgdState:
        begin = 0
        if state.surface is None:
            begin = min(block.rows, max(START_ROWS - state.sample.rows, 0))
            state.sample = state.sample.and_then(Sample.of(self.design, block, slice(0, begin)))
            if state.sample.rows >= START_ROWS:
                self._start(state)
        elif block.rows:
            fresh = Sample.of(self.design, block, slice(0, min(block.rows, FRESH_ROWS)))
            state.surface = state.surface.and_then(fresh, state.point)
        if begin < block.rows:
            self._steps(state, block, begin)
        return state

    def merge(self, state: SgdState, other: SgdState) -> SgdState:
        if other.surface is None and state.surface is None:
            state.sample = state.sample.and_then(other.sample)
            return state
        if other.surface is None:
            other = self._started(other)
        elif state.surface is None:
            state = self._started(state)
        weight = state.weight + other.weight
        if other.weight > 0:
            share = other.weight / weight
            state.point = state.point + share * (other.point - state.point) if share < 1 else other.point.copy()
            state.total = state.total + other.total
            state.surface = other.surface if state.surface is None or state.weight == 0 else state.surface
        state.rows += other.rows
        state.weight = weight
        state.positive += other.positive
        state.between += other.between
        state.pieces += other.pieces
        state.loss += other.loss
        state.batches = max(state.batches, other.batches)
        return state

    def final(self, state: SgdState) -> SgdResult:
        if state.surface is None:
            state = self._started(state)
        weights = state.total / state.weight if state.weight else state.point.copy()
        if not np.all(np.isfinite(weights)):
            raise NumericalError(
                "The weights are not finite: a feature or a row weight is so large that sums overflow. Standardise or cap it."
            )
        mean = state.loss / state.weight if state.weight else float("nan")
        return SgdResult(weights, state.rows, state.weight, state.positive, _order(state), mean, state)

    def _started(self, state: SgdState) -> SgdState:
        """A copy of a state whose rows were waiting, with those rows learnt."""
        copy = replace(state)
        self._start(copy)
        return copy

    def _start(self, state: SgdState) -> None:
        sample = state.sample
        state.sample = Sample.empty(self.design.width)
        weight = float(sample.weights.sum())
        if not weight > 0:  # such rows teach nothing; wait for others
            state.rows += sample.rows
            return
        state.point, loss, state.surface = start_from(sample, self.prior)
        state.rows += sample.rows
        state.weight += weight
        _count(state, sample.labels, sample.weights)
        state.loss += weight * loss
        state.total = state.total + weight * state.point
        state.batches += sample.rows / BATCH

    def _steps(self, state: SgdState, block: Block, begin: int) -> None:
        surface = state.surface
        if surface is None:
            return
        term = self.design.terms[0] if len(self.design.terms) == 1 else None
        stored = self.design.weights(block)
        state.rows += block.rows - begin
        _count(state, self.design.labels(block)[begin:] > 0, None if stored is None else stored[begin:])
        matrix = block.matrix(term.columns) if isinstance(term, NumberTerm) else None
        fused = matrix is not None and matrix.dtype in (np.float32, np.float64) and self.design.offset is None
        run = _compiled if self.kernel == "fused" and fused else _plain
        run(self, state, surface, block, begin)

    def linear_map(self, surface: Surface, raw: Array) -> LinearMap:
        """The linear predictors of `raw` weights; knows which columns are too far from zero for float32."""
        design = self.design.standardised(surface.center, surface.scale)
        return LinearMap(design, (raw[:-1] * surface.scale)[:, None], raw[-1:], self.precision)


def _count(state: SgdState, labels: Array, weights: Array | None) -> None:
    """Take note of the labels of rows in the second class, piece by piece."""
    edges = np.arange(0, len(labels), BATCH)
    positive = np.add.reduceat(labels if weights is None else labels * weights, edges, dtype=np.float64)
    if weights is None:
        heavy = np.minimum(len(labels) - edges, BATCH).astype(np.float64)
    else:
        heavy = np.add.reduceat(weights, edges, dtype=np.float64)
    kept = heavy > 0
    state.positive += float(positive.sum())
    state.between += float(np.sum(positive[kept] ** 2 / heavy[kept]))
    state.pieces += int(np.count_nonzero(kept))


def _order(state: SgdState) -> float:
    """The share of the label's variance between pieces, less what chance makes of it."""
    if not 0 < state.positive < state.weight:
        return 0.0
    mean = state.positive / state.weight
    explained = (state.between / state.weight - mean**2) / (mean * (1 - mean))
    return max(float(explained - state.pieces / max(state.rows, 1)), 0.0)


def _compiled(sgd: AveragedSgd, state: SgdState, surface: Surface, block: Block, begin: int) -> None:
    from braidwater.kernels.averaged_sgd import averaged_sgd_pass

    term = sgd.design.terms[0]
    assert isinstance(term, NumberTerm)
    dtype: Any = sgd.linear_map(surface, state.point).compute_dtype(block)
    stored = sgd.design.weights(block)
    labels = sgd.design.labels(block)
    work = [scratch(name, (BATCH,), dtype) for name in ("ones", "predictors", "residuals")]
    work[0][...] = 1
    weight, loss, state.batches = averaged_sgd_pass(
        block.matrix(term.columns),
        labels if labels.dtype == np.uint8 else labels.astype(np.uint8),
        np.zeros(0) if stored is None else stored.astype(np.float64, copy=False),
        begin,
        BATCH,
        state.batches,
        surface.first_rate(BATCH),
        POWER,
        BATCH * surface.unit,
        surface.center,
        surface.scale,
        surface.inverse(sgd.prior),
        surface.penalty(sgd.prior),
        surface.standardised(state.point),
        state.point,
        state.total,
        *work,
    )
    state.weight += weight
    state.loss += loss


def _plain(sgd: AveragedSgd, state: SgdState, surface: Surface, block: Block, begin: int) -> None:
    """The same steps in numpy, for features of any kind."""
    design = sgd.design
    inverse, penalty = surface.inverse(sgd.prior), surface.penalty(sgd.prior)
    weights, size = surface.standardised(state.point), BATCH * surface.unit
    linear = sgd.linear_map(surface, state.point)
    dtype: Any = linear.compute_dtype(block)
    stored, offsets = design.weights(block), design.offsets(block)
    for start in range(begin, block.rows, BATCH):
        tile = slice(start, min(start + BATCH, block.rows))
        q = None if stored is None else stored[tile].astype(dtype)
        weight = float(tile.stop - start if q is None else q.sum(dtype=np.float64))
        if not weight > 0:
            continue
        z = scratch("predictors", (1, tile.stop - start), dtype)
        linear.forward(block, tile, z, state.point[:-1, None], state.point[-1:])
        if offsets is not None:
            z += offsets[tile].astype(dtype)
        loss, _ = logistic_loss(z, class_codes(design, block, tile, 2).astype(dtype), q)
        gradient = np.zeros((design.width, 1))
        linear.adjoint(block, tile, z, gradient)
        state.batches += weight / size
        rate = min(surface.first_rate(BATCH), state.batches**-POWER)
        slope = surface.slope(gradient[:, 0], float(z.sum(dtype=np.float64))) / weight
        slope[:-1] += penalty * weights[:-1]
        step = inverse @ slope
        # as in the compiled form: no step moves the predictors by more than one standard deviation, none fails in silence
        squared = float(step @ slope)
        rate *= min(weight / size, 1.0)
        weights -= (min(rate, max(squared, 1e-300) ** -0.5) if squared < np.inf else np.nan) * step
        state.point = surface.raw(weights)
        state.total += weight * state.point
        state.weight += weight
        state.loss += float(loss[0])
