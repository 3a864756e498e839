"""Log-loss and gradient of many logistic models in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.class_counts import class_codes
from braidwater.aggregates.linear_map import LinearMap, Precision
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design
from braidwater.kernels import scratch
from braidwater.kernels.choice import KernelName
from braidwater.kernels.logistic_loss import logistic_loss, softmax_loss

TILE_BYTES = 1 << 20  # of columns and predictors: with residuals and scratch they stay in the second-level cache


def tile_rows(width: int, models: int) -> int:
    """Rows of a tile with so many columns and models: from 512, below which calls cost more than work, to 4096.

    For a single model eight times as many, in 4 MB: products with a vector are no quicker in the second-level cache, and calls
    are most of the rest (a third less in all at 30 columns).
    """
    size, most = (4 * TILE_BYTES, 32_768) if models == 1 else (TILE_BYTES, 4096)
    return int(np.clip(size // (4 * (width + 2 * models)) // 512 * 512, 512, most))


@dataclass
class LossState:
    """Sums over rows: loss ``(K,)``, rows on the wrong side ``(K,)``, residuals ``(K C,)``, raw gradient ``(width, K C)``."""

    weight: float
    loss: Array
    wrong: Array
    residual: Array
    gradient: Array


@dataclass(frozen=True)
class LossResult:
    """Sums over rows for K models of C columns of weights each (C is 1 for two classes).

    `weight` sums the row weights, `loss` ``(K,)`` the weighted log-losses. `gradient` ``(K, C, width + 1)`` is the
    derivative of `loss` by the standardised weights, the intercept last. `wrong` ``(K,)`` counts rows whose class is
    not the likeliest.
    """

    weight: float
    loss: Array
    gradient: Array
    wrong: Array


class LogisticGradient(Aggregate[LossState, LossResult]):
    """Log-loss and its gradient at K points: one scan serves K models.

    `points` ``(K, C, width + 1)``, float64: weights for the standardised columns of `design`, the intercept last; C is
    1 for two classes (codes 0 and 1), else the number of classes. `kernel` ``"fused"`` runs compiled code for two
    classes (6-8 ns a row at 30 float32 columns for one model, 3 for each of many), ``"blas"`` numpy (22), with the same
    result to rounding. `precision` is that of the arithmetic inside a tile, see `LinearMap`; tiles are added up in float64.
    """

    what = "gradient"

    def __init__(
        self, design: Design, points: Array, *, kernel: KernelName = "blas", precision: Precision = "auto"
    ) -> None:
        self.design = design
        self.points = np.asarray(points, np.float64)
        self.kernel = kernel
        self.precision = precision

    @property
    def linear_map(self) -> LinearMap:
        models, columns, width = self.points.shape
        flat = self.points.reshape(models * columns, width)
        return LinearMap(self.design, flat[:, :-1].T, flat[:, -1], self.precision)

    def initialize(self) -> LossState:
        models, columns, _ = self.points.shape
        flat = models * columns
        return LossState(0.0, np.zeros(models), np.zeros(models), np.zeros(flat), np.zeros((self.design.width, flat)))

    def transition(self, state: LossState, block: Block) -> LossState:
        if block.rows == 0:
            return state
        linear = self.linear_map
        if self.kernel == "fused" and self.points.shape[1] == 1:
            from braidwater.aggregates.fused_gradient import fused_transition

            found = fused_transition(linear, state, block)
            if found is not None:
                return found
        raw, intercepts = linear.raw_weights(), linear.raw_intercepts()
        dtype = linear.compute_dtype(block)
        for tile in block.slices(tile_rows(self.design.width, linear.models)):
            self._tile(state, linear, block, tile, dtype, raw, intercepts)
        return state

    def _tile(
        self, state: LossState, linear: LinearMap, block: Block, tile: slice, dtype: Any, raw: Array, intercepts: Array
    ) -> None:
        models, columns, _ = self.points.shape
        count = tile.stop - tile.start
        z = scratch("predictors", (models * columns, count), dtype)
        linear.forward(block, tile, z, raw, intercepts)
        offsets = self.design.offsets(block)
        if offsets is not None:
            # the offset is for the first of the classes' columns: a multinomial model refuses offsets before it comes
            # here
            z += offsets[tile].astype(dtype)
        stored = self.design.weights(block)
        weights = None if stored is None else stored[tile].astype(dtype)
        if columns == 1:
            labels = self.design.labels(block)[tile].astype(dtype)
            if self.kernel == "fused":
                from braidwater.aggregates.fused_gradient import fused_losses

                loss, wrong = fused_losses(z, labels, weights)
            else:
                loss, wrong = logistic_loss(z, labels, weights)
        else:
            codes = class_codes(self.design, block, tile, columns)
            loss, wrong = softmax_loss(z.reshape(models, columns, count), codes, weights)
        state.weight += count if weights is None else float(weights.sum(dtype=np.float64))
        state.loss += loss
        state.wrong += wrong
        state.residual += z.sum(axis=1)
        linear.adjoint(block, tile, z, state.gradient)

    def merge(self, state: LossState, other: LossState) -> LossState:
        state.weight += other.weight
        state.loss += other.loss
        state.wrong += other.wrong
        state.residual += other.residual
        state.gradient += other.gradient
        return state

    def final(self, state: LossState) -> LossResult:
        models, columns, width = self.points.shape
        gradient = np.empty((models * columns, width))
        gradient[:, :-1] = self.linear_map.standardised_gradient(state.gradient, state.residual).T
        gradient[:, -1] = state.residual
        return LossResult(state.weight, state.loss.copy(), gradient.reshape(models, columns, width), state.wrong.copy())
