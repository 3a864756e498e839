"""Log-loss, gradient and Hessian of many logistic models in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.class_counts import class_codes
from braidwater.aggregates.columns import TILE_ROWS, Columns, weighted_products, weighted_sums
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design
from braidwater.kernels import scratch
from braidwater.kernels.choice import KernelName
from braidwater.kernels.logistic_loss import logistic_loss, softmax_loss


@dataclass
class HessianState:
    """Sums over rows in the computed order of columns.

    `hessian` ``(K, C, C, columns, columns)`` holds the blocks on and above the diagonal.
    """

    rows: int
    weight: float
    loss: Array
    wrong: Array
    gradient: Array
    hessian: Array


@dataclass(frozen=True)
class HessianResult:
    """Sums over rows for K models of C columns of weights each (C is 1 for two classes).

    As `LossResult`, and `hessian` ``(K, C (width + 1), C (width + 1))``, the second derivative of `loss` by the
    flattened standardised weights.
    """

    rows: int
    weight: float
    loss: Array
    gradient: Array
    hessian: Array
    wrong: Array


class LogisticHessian(Aggregate[HessianState, HessianResult]):
    """Log-loss, gradient and Hessian (X'WX) at K points in one pass, in float64 throughout.

    `points` as for `LogisticGradient`. Cost: 60-100 ns a row and model at 30 columns, growing with the square of the
    columns and of the classes; memory ``8 K (C (width + 1))^2`` bytes a state.
    """

    what = "Hessian"

    def __init__(self, design: Design, points: Array, *, kernel: KernelName = "blas") -> None:
        self.design = design
        self.points = np.asarray(points, np.float64)
        self.kernel = kernel
        self.columns = Columns(design.raw(), with_label=False, with_ones=True)

    def initialize(self) -> HessianState:
        models, c, width = self.points.shape
        return HessianState(
            0,
            0.0,
            np.zeros(models),
            np.zeros(models),
            np.zeros((models, c, width)),
            np.zeros((models, c, c, width, width)),
        )

    def transition(self, state: HessianState, block: Block) -> HessianState:
        columns, raw = self.columns, self._raw_points()
        shift = np.zeros(columns.dense_width)
        if self.design.center is not None:
            # dense features are centred in the tile, so that nothing cancels; ones and codes are exact as they are
            centre = np.append(self.design.center, 0.0)
            computed = np.empty(columns.width)
            computed[columns.order] = centre
            shift[: columns.dense_features] = computed[: columns.dense_features]
        moved = raw.copy()
        moved[..., columns.dense_features] += raw[..., : columns.dense_features] @ shift[: columns.dense_features]
        for tile in block.slices(TILE_ROWS):
            dense = columns.dense(block, tile, shift)
            self._tile(state, block, tile, dense, moved)
        state.rows += block.rows
        return state

    def _raw_points(self) -> Array:
        """The points for the raw columns, in the computed order."""
        raw = self.points.copy()
        if self.design.scale is not None and self.design.center is not None:
            raw[..., :-1] /= self.design.scale
            raw[..., -1] -= raw[..., :-1] @ self.design.center
        computed = np.empty_like(raw)
        computed[..., self.columns.order] = raw
        return computed

    def _tile(self, state: HessianState, block: Block, tile: slice, dense: Array, points: Array) -> None:
        models, c, _ = points.shape
        columns, k, count = self.columns, len(dense), dense.shape[1]
        z = scratch("predictors", (models * c, count), np.float64)
        flat = points.reshape(models * c, -1)
        np.matmul(flat[:, :k], dense, out=z)
        at = k
        for term in columns.sparse_terms:
            table = np.zeros((len(flat), term.width + 1))
            table[:, :-1] = flat[:, at : at + term.width]
            z += np.take(table, columns.codes(term, block, tile), axis=1)
            at += term.width
        offsets = self.design.offsets(block)
        if offsets is not None:
            z += offsets[tile]
        stored = self.design.weights(block)
        weights = None if stored is None else stored[tile].astype(np.float64)
        state.weight += count if weights is None else float(weights.sum())
        predictors = z.reshape(models, c, count)
        if c == 1:
            curvature = _logistic_curvature(z)
            labels = self.design.labels(block)[tile].astype(np.float64)
            if self.kernel == "fused":
                from braidwater.aggregates.fused_gradient import fused_losses

                loss, wrong = fused_losses(z, labels, weights)
            else:
                loss, wrong = logistic_loss(z, labels, weights)
        else:
            codes = class_codes(self.design, block, tile, c)
            probabilities = _softmax(predictors)
            loss, wrong = softmax_loss(predictors, codes, weights)
        state.loss += loss
        state.wrong += wrong
        for m in range(models):
            for a in range(c):
                state.gradient[m, a] += weighted_sums(columns, block, tile, dense, predictors[m, a])
            if c == 1:
                w = curvature[m] if weights is None else curvature[m] * weights
                state.hessian[m, 0, 0] += weighted_products(columns, block, tile, dense, w, self.kernel)
            else:
                self._multinomial(state.hessian[m], block, tile, dense, probabilities[m], weights)

    def _multinomial(
        self, hessian: Array, block: Block, tile: slice, dense: Array, p: Array, weights: Array | None
    ) -> None:
        for a in range(len(p)):
            for b in range(a, len(p)):
                w = p[a] * (1 - p[a]) if a == b else p[a] * p[b]
                if weights is not None:
                    w = w * weights
                products = weighted_products(self.columns, block, tile, dense, w, self.kernel)
                hessian[a, b] += products if a == b else -products

    def merge(self, state: HessianState, other: HessianState) -> HessianState:
        state.rows += other.rows
        state.weight += other.weight
        state.loss += other.loss
        state.wrong += other.wrong
        state.gradient += other.gradient
        state.hessian += other.hessian
        return state

    def final(self, state: HessianState) -> HessianResult:
        models, c, width = self.points.shape
        order = self.columns.order
        gradient = state.gradient[..., order]
        hessian = state.hessian[..., order, :][..., order]
        for a in range(c):
            for b in range(a):
                hessian[:, a, b] = hessian[:, b, a].swapaxes(-1, -2)
        jacobian = self._jacobian()
        gradient = gradient @ jacobian.T
        hessian = jacobian @ hessian @ jacobian.T
        flat = hessian.transpose(0, 1, 3, 2, 4).reshape(models, c * width, c * width)
        return HessianResult(state.rows, state.weight, state.loss.copy(), gradient, flat, state.wrong.copy())

    def _jacobian(self) -> Array:
        """From the computed columns (dense ones already centred) to the standardised ones and the intercept."""
        width = self.design.width + 1
        jacobian = np.eye(width)
        if self.design.center is not None and self.design.scale is not None:
            left = self.design.center.copy()
            left[self.columns.order[:-1] < self.columns.dense_features] = 0.0
            jacobian[:-1, -1] = -left
            jacobian[:-1] /= self.design.scale[:, None]
        return jacobian


def _logistic_curvature(z: Array) -> Array:
    """``p (1 - p)`` from linear predictors."""
    small = np.exp(-np.abs(z))
    curvature: Array = small / (1 + small) ** 2
    return curvature


def _softmax(z: Array) -> Array:
    shifted = np.exp(z - z.max(axis=1, keepdims=True))
    probabilities: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities
