"""All products of the columns with each other and with the label, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.columns import TILE_ROWS, Columns, weighted_products, weighted_sums
from braidwater.aggregates.moments import MomentsResult, scale_of
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design
from braidwater.kernels.choice import KernelName


@dataclass
class GramState:
    """Weighted means ``(columns,)`` and centred products ``(columns, columns)`` in the computed order."""

    rows: int
    weight: float
    mean: Array
    products: Array


@dataclass(frozen=True)
class GramResult:
    """What `Gram` found; float64, weighted by the row weights where there are any.

    `mean` ``(width + targets,)`` and `products` ``(width + targets, width + targets)`` have the features first and what
    the label makes behind; products are centred and not divided: ``sum(w (x - mean) (x - mean)')``. `width` counts
    features.
    """

    rows: int
    weight: float
    mean: Array
    products: Array
    width: int

    @property
    def features(self) -> Array:
        """Centred products of the features, ``(width, width)``."""
        return self.products[: self.width, : self.width]

    @property
    def cross(self) -> Array:
        """Centred products of features and label, ``(width, targets)``."""
        return self.products[: self.width, self.width :]

    @property
    def target(self) -> Array:
        """Centred products of the label, ``(targets, targets)``."""
        return self.products[self.width :, self.width :]

    @property
    def scale(self) -> Array:
        """Standard deviations of the features (divided by the weight), 1 for constant ones."""
        return scale_of(self.mean[: self.width], np.diag(self.features) / max(self.weight, 1e-300))

    @property
    def correlations(self) -> Array:
        """Correlations of the features ``(width, width)``; a constant one has none with others."""
        size = np.sqrt(np.diag(self.features))
        size[size == 0] = 1.0
        found: Array = self.features / np.outer(size, size)
        np.fill_diagonal(found, 1.0)
        return found

    @property
    def moments(self) -> MomentsResult:
        """The same as `Moments` would have found it."""
        k = self.width
        variance = np.diag(self.features) / self.weight if self.weight else np.zeros(k)
        return MomentsResult(self.rows, self.weight, self.mean[:k], variance, self.mean[k:], self.cross, self.target)

    def about(self, origin: Array) -> Array:
        """``sum(w (x - origin) (x - origin)')``, of features about `origin` ``(width,)`` and of the label about zero."""
        gap = self.mean.copy()
        gap[: self.width] -= origin
        return self.products + self.weight * np.outer(gap, gap)


class Gram(Aggregate[GramState, GramResult]):
    """Centred second moments of the raw columns of `design` and of its label: X'X, X'y and y'y.

    `classes` says how the label is meant: None as a number, otherwise as codes of that many classes. Categories of more
    than 16 levels are summed by code and never written out. Stable for columns whose mean is far larger than their
    spread (shifted by the block's first rows, merged as by Chan, Golub and LeVeque 1983). Cost: 60 ns a row (compiled) at 30
    columns, growing with their square; memory ``8 (width + targets)^2`` bytes a state.

    With `every` above 1 only the first of so many tiles of 4096 rows of a block is looked at. That is an estimate, which the
    cut of the blocks may move, for those who want to know how columns go together and no more.
    """

    what = "products"

    def __init__(
        self, design: Design, classes: int | None = None, *, kernel: KernelName = "blas", every: int = 1
    ) -> None:
        self.design = design.raw()
        self.columns = Columns(self.design, classes)
        self.kernel = kernel
        self.every = every

    def initialize(self) -> GramState:
        width = self.columns.width
        return GramState(0, 0.0, np.zeros(width), np.zeros((width, width)))

    def transition(self, state: GramState, block: Block) -> GramState:
        if block.rows == 0:
            return state
        columns = self.columns
        shift = columns.reference(block)
        rows, weight = 0, 0.0
        sums = np.zeros(columns.width)
        products = np.zeros((columns.width, columns.width))
        for tile in islice(block.slices(TILE_ROWS), None, None, self.every):
            w = columns.weights(block, tile)
            dense = columns.dense(block, tile, shift)
            sums += weighted_sums(columns, block, tile, dense, w)
            products += weighted_products(columns, block, tile, dense, w, self.kernel)
            rows += dense.shape[1]
            weight += dense.shape[1] if w is None else float(w.sum())
        mean = np.zeros(columns.width)
        mean[: len(shift)] = shift
        if weight:
            mean += sums / weight
            products -= np.outer(sums, sums) / weight
        return self.merge(state, GramState(rows, weight, mean, products))

    def merge(self, state: GramState, other: GramState) -> GramState:
        state.rows += other.rows
        if other.weight == 0:
            return state
        weight = state.weight + other.weight
        gap = other.mean - state.mean
        state.products += other.products
        state.products += (state.weight * other.weight / weight) * np.outer(gap, gap)
        state.mean += gap * (other.weight / weight)
        state.weight = weight
        return state

    def final(self, state: GramState) -> GramResult:
        order = self.columns.order
        products = state.products[np.ix_(order, order)]
        return GramResult(state.rows, state.weight, state.mean[order], products, self.design.width)
