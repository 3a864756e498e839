"""The middle of the sandwich: products of columns weighted by squared residuals."""

from __future__ import annotations

from typing import Literal

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.columns import TILE_ROWS, Columns, weighted_products
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design

RobustKind = Literal["HC0", "HC1", "HC2", "HC3"]


class RobustProducts(Aggregate[Array, Array]):
    """``sum(w^2 e^2 f(h) x x')`` over the rows, x the raw columns of `design` less `shift`, and a 1, as ``(width + 1,
    width + 1)``.

    `shift` ``(width,)`` is 0 for one-hot columns; close to the means it keeps products from cancelling later. e is the
    residual of `weights` ``(width + 1,)`` (intercept last), h the leverage of the row by `inverse`, the inverse of
    ``sum(w x x')``; f is 1 for HC0 and HC1, ``1 / (1 - h)`` for HC2, its square for HC3 (MacKinnon and White 1985).
    """

    what = "robust products"

    def __init__(self, design: Design, weights: Array, inverse: Array, shift: Array, kind: RobustKind) -> None:
        self.design = design.raw()
        self.columns = Columns(self.design, with_label=True, with_ones=True)
        self.weights = np.asarray(weights, np.float64)
        self.inverse = np.asarray(inverse, np.float64)
        self.shift = np.asarray(shift, np.float64)
        self.kind = kind

    def initialize(self) -> Array:
        return np.zeros((self.columns.width, self.columns.width))

    def transition(self, state: Array, block: Block) -> Array:
        columns = self.columns
        width = self.design.width
        # computed order: ..., label, one, sparse columns; the label takes the weight -1 and no part in leverages
        order = columns.order
        computed = np.empty(columns.width)
        computed[order] = np.concatenate([self.weights[:-1], [-1.0], self.weights[-1:]])
        root = np.zeros((width + 1, columns.width))
        places = np.delete(order, width)
        root[:, places] = _root(self.inverse)
        shift = np.empty(columns.width)
        shift[order] = np.append(self.shift, [0.0, 0.0])
        for tile in block.slices(TILE_ROWS):
            dense = columns.dense(block, tile, shift[: columns.dense_width])
            residual = computed[: len(dense)] @ dense
            leverage = root[:, : len(dense)] @ dense
            at = len(dense)
            for term in columns.sparse_terms:
                codes = columns.codes(term, block, tile)
                residual += np.append(computed[at : at + term.width], 0.0)[codes]
                leverage += np.hstack([root[:, at : at + term.width], np.zeros((width + 1, 1))])[:, codes]
                at += term.width
            stored = self.design.weights(block)
            w = np.ones(len(residual)) if stored is None else stored[tile].astype(np.float64)
            h = w * np.einsum("ij,ij->j", leverage, leverage)
            middle = (w * residual) ** 2
            if self.kind in ("HC2", "HC3"):
                # a row that alone fixes a coefficient has leverage 1 and residual 0
                left = np.maximum(1 - h, 1e-12)
                middle /= left if self.kind == "HC2" else left**2
            state += weighted_products(columns, block, tile, dense, middle)
        return state

    def merge(self, state: Array, other: Array) -> Array:
        state += other
        return state

    def final(self, state: Array) -> Array:
        places = np.delete(self.columns.order, self.design.width)
        products: Array = state[np.ix_(places, places)]
        return products


def _root(inverse: Array) -> Array:
    """A matrix R with ``R'R = inverse``, for an inverse that may lack rank."""
    values, vectors = np.linalg.eigh(inverse)
    root: Array = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    return root
