"""Products of the columns with a few directions, for tables with too many columns for all products."""

from __future__ import annotations

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.linear_map import LinearMap
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design
from braidwater.kernels import scratch

TILE_ROWS = 1024


class ProjectedProducts(Aggregate[tuple[Array, Array], Array]):
    """``sum(w z z') directions`` for the standardised columns z of `design`, ``(width, k)`` float64, without ``z z'``.

    `directions` ``(width, k)``. Two matrix products of 2 width k operations a row, in the type in which the columns are
    stored; memory ``8 width k`` bytes a state.
    """

    what = "projected products"

    def __init__(self, design: Design, directions: Array) -> None:
        self.design = design
        self.directions = np.asarray(directions, np.float64)

    def initialize(self) -> tuple[Array, Array]:
        width, k = self.directions.shape
        return np.zeros((width, k)), np.zeros(k)

    def transition(self, state: tuple[Array, Array], block: Block) -> tuple[Array, Array]:
        products, sums = state
        if block.rows == 0:
            return state
        k = self.directions.shape[1]
        linear = LinearMap(self.design, self.directions, np.zeros(k))
        raw, intercepts = linear.raw_weights(), linear.raw_intercepts()
        dtype = linear.compute_dtype(block)
        weights = self.design.weights(block)
        for tile in block.slices(TILE_ROWS):
            z = scratch("predictors", (k, tile.stop - tile.start), dtype)
            linear.forward(block, tile, z, raw, intercepts)
            if weights is not None:
                z *= weights[tile].astype(dtype)
            sums += z.sum(axis=1, dtype=np.float64)
            linear.adjoint(block, tile, z, products)
        return state

    def merge(self, state: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
        state[0][...] += other[0]
        state[1][...] += other[1]
        return state

    def final(self, state: tuple[Array, Array]) -> Array:
        linear = LinearMap(self.design, self.directions, np.zeros(self.directions.shape[1]))
        return linear.standardised_gradient(state[0], state[1]).copy()
