"""Means, spreads and the relation of every column to the label, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.columns import TILE_ROWS, Columns, weighted_sums
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design, NumberTerm
from braidwater.kernels.choice import KernelName


@dataclass
class MomentsState:
    """Weighted means and centred sums; `spread` ``(width,)``, `cross` ``(width, targets)``, `target` ``(targets, targets)``."""

    rows: int
    weight: float
    mean: Array
    spread: Array
    cross: Array
    target: Array


@dataclass(frozen=True)
class MomentsResult:
    """What `Moments` found; all float64, weighted by the row weights where there are any.

    `rows` counts rows, `weight` sums their weights. `mean` and `variance` (divided by `weight`) are ``(width,)``.
    `target_mean` ``(targets,)`` and `target_products` ``(targets, targets)``, `cross_products` ``(width, targets)`` are
    of the
    label: the number itself, or 1 for the second of two classes, or a target for each of more classes. Products are
    centred and not divided: ``sum(w (x - mean) (t - mean))``.
    """

    rows: int
    weight: float
    mean: Array
    variance: Array
    target_mean: Array
    cross_products: Array
    target_products: Array

    @property
    def scale(self) -> Array:
        """Standard deviations, 1 for constant columns."""
        return scale_of(self.mean, self.variance)


class Moments(Aggregate[MomentsState, MomentsResult]):
    """Row count, weight, means, variances, and cross products with the label, of the raw columns of `design`.

    `classes` says how the label is meant: None as a number, otherwise as codes of that many classes. Sums are of
    numbers shifted by the first rows of their block, and partial results are merged with the update of Chan, Golub and
    LeVeque (1983), so that columns whose mean is far larger than their spread lose no digits. Cost: 55 ns a row for 30
    columns in numpy, 10 compiled (``kernel="fused"``, floats, no row weights, a label that is one number or one of two
    classes); memory a few numbers a column.
    """

    what = "moments"

    def __init__(self, design: Design, classes: int | None = None, *, kernel: KernelName = "blas") -> None:
        self.design = design.raw()
        self.columns = Columns(self.design, classes)
        self.kernel = kernel

    def initialize(self) -> MomentsState:
        width, targets = self.design.width, self.columns.targets
        return MomentsState(
            0, 0.0, np.zeros(width + targets), np.zeros(width), np.zeros((width, targets)), np.zeros((targets, targets))
        )

    def transition(self, state: MomentsState, block: Block) -> MomentsState:
        if block.rows == 0:
            return state
        matrix = self._plain(block) if self.kernel == "fused" else None
        if matrix is not None:
            return self.merge(state, self._fused(block, matrix))
        columns, width = self.columns, self.design.width
        shift = columns.reference(block)
        rows, weight = 0, 0.0
        sums = np.zeros(columns.width)
        squares = np.zeros(columns.width)
        cross = np.zeros((columns.width, columns.targets))
        for tile in block.slices(TILE_ROWS):
            w = columns.weights(block, tile)
            dense = columns.dense(block, tile, shift)
            part = weighted_sums(columns, block, tile, dense, w)
            sums += part
            rows += dense.shape[1]
            weight += dense.shape[1] if w is None else float(w.sum())
            self._add_products(block, tile, dense, w, part, squares, cross)
        order = columns.order
        sums, squares, cross = sums[order], squares[order], cross[order]
        offset = np.zeros(columns.width)
        offset[: len(shift)] = shift
        mean = offset[order] + (sums / weight if weight else 0.0)
        if weight:
            squares -= sums * sums / weight
            cross -= np.outer(sums, sums[width:]) / weight
        found = MomentsState(rows, weight, mean, np.maximum(squares[:width], 0), cross[:width], cross[width:])
        return self.merge(state, found)

    def _plain(self, block: Block) -> Array | None:
        """The stored columns, where they are one group of floats without weights and there is at most one target; else None."""
        term = self.design.terms[0] if len(self.design.terms) == 1 else None
        if not isinstance(term, NumberTerm) or self.columns.targets > 1 or self.design.weight is not None:
            return None
        matrix = block.matrix(term.columns)
        return matrix if matrix.dtype in (np.float32, np.float64) else None

    def _fused(self, block: Block, matrix: Array) -> MomentsState:
        from braidwater.kernels.fused_moments import add_moments

        found, width, rows = self.initialize(), len(matrix), block.rows
        shift, sums = self.columns.reference(block), np.zeros(len(found.mean))
        target = np.empty((self.columns.targets, rows))
        if self.columns.targets:
            self.columns.fill_label(block, slice(0, rows), shift[width:, None], target)
            sums[width:] = target.sum()
            found.target[...] = target @ target.T
        cross = np.zeros(width)
        add_moments(matrix, shift, target[0] if self.columns.targets else None, sums, found.spread, cross)
        found.rows, found.weight = rows, float(rows)
        found.mean = shift + sums / rows
        found.spread = np.maximum(found.spread - sums[:width] ** 2 / rows, 0)
        found.cross = cross[:, None] - np.outer(sums[:width], sums[width:]) / rows
        found.target -= np.outer(sums[width:], sums[width:]) / rows
        return found

    def _add_products(
        self, block: Block, tile: slice, dense: Array, w: Array | None, sums: Array, squares: Array, cross: Array
    ) -> None:
        columns = self.columns
        k, begin = len(dense), columns.dense_features
        weighted = dense if w is None else dense * w
        squares[:k] += np.einsum("ij,ij->i", weighted, dense)
        squares[k:] += sums[k:]  # the square of a one-hot column is the column
        targets = weighted[begin : begin + columns.targets]
        cross[:k] += dense @ targets.T
        at = k
        for term in columns.sparse_terms:
            codes = columns.codes(term, block, tile)
            for t, values in enumerate(targets):
                counted = np.bincount(codes, weights=values, minlength=term.width + 1)
                cross[at : at + term.width, t] += counted[: term.width]
            at += term.width

    def merge(self, state: MomentsState, other: MomentsState) -> MomentsState:
        if other.weight == 0:
            state.rows += other.rows
            return state
        width = self.design.width
        weight = state.weight + other.weight
        gap = other.mean - state.mean
        share = state.weight * other.weight / weight
        state.spread += other.spread + share * gap[:width] ** 2
        state.cross += other.cross + share * np.outer(gap[:width], gap[width:])
        state.target += other.target + share * np.outer(gap[width:], gap[width:])
        state.mean += gap * (other.weight / weight)
        state.rows += other.rows
        state.weight = weight
        return state

    def final(self, state: MomentsState) -> MomentsResult:
        width = self.design.width
        return MomentsResult(
            state.rows,
            state.weight,
            state.mean[:width].copy(),
            state.spread / state.weight if state.weight else np.zeros(width),
            state.mean[width:].copy(),
            state.cross.copy(),
            state.target.copy(),
        )


def is_constant(mean: Array, variance: Array) -> Array:
    """Which columns have no spread but what rounding makes of their mean."""
    constant: Array = variance <= (1e-14 * np.abs(mean)) ** 2
    return constant


def scale_of(mean: Array, variance: Array) -> Array:
    """Standard deviations from variances; 1 for constant columns."""
    return np.where(is_constant(mean, variance), 1.0, np.sqrt(np.maximum(variance, 0)))
