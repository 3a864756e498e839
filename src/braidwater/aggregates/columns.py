"""The columns of a design, tile by tile, for what needs products of columns.

Numbers, vectors and categories of few levels are written out in float64, shifted by a reference so that nothing cancels
(*dense*). Categories of many levels stay codes: what a one-hot column would add is a sum by code (*sparse*).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from braidwater.aggregates.class_counts import class_codes
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import CodeTerm, Design, NumberTerm, Term, WideTerm
from braidwater.errors import DataError
from braidwater.kernels import scratch
from braidwater.kernels.choice import KernelName

TILE_ROWS = 4096
# Below this many levels a one-hot column in the tile, multiplied by BLAS, is cheaper than a sum by code for every other
# column.
DENSE_LEVELS = 16


@dataclass(frozen=True)
class Columns:
    """The columns of a design in the order in which products are computed: dense features, extra rows, sparse features.

    Extra rows are the label (``classes`` is None: the number; 2: one row that is 1 for the second class; more: a row
    for each class) if `with_label`, then a row of ones if `with_ones`. `order` turns the computed order into that of
    the design with the extra rows behind it.
    """

    design: Design
    classes: int | None = None
    with_label: bool = True
    with_ones: bool = False

    @cached_property
    def dense_terms(self) -> list[Term]:
        return [t for t in self.design.terms if not isinstance(t, CodeTerm) or t.width <= DENSE_LEVELS]

    @cached_property
    def sparse_terms(self) -> list[CodeTerm]:
        return [t for t in self.design.terms if isinstance(t, CodeTerm) and t.width > DENSE_LEVELS]

    @cached_property
    def targets(self) -> int:
        """How many rows the label makes."""
        if not self.with_label or self.design.label is None:
            return 0
        return 1 if self.classes is None or self.classes == 2 else self.classes

    @cached_property
    def dense_features(self) -> int:
        return sum(term.width for term in self.dense_terms)

    @cached_property
    def dense_width(self) -> int:
        return self.dense_features + self.targets + self.with_ones

    @cached_property
    def width(self) -> int:
        return self.design.width + self.targets + self.with_ones

    @cached_property
    def order(self) -> Array:
        """`order[j]` is the place, among the computed columns, of column j of the design (extra rows behind)."""
        places: list[int] = [0] * self.design.width
        at = 0
        for term in self.dense_terms:
            places[term.begin : term.begin + term.width] = range(at, at + term.width)
            at += term.width
        extra = list(range(at, self.dense_width))
        at = self.dense_width
        for sparse in self.sparse_terms:
            places[sparse.begin : sparse.begin + sparse.width] = range(at, at + sparse.width)
            at += sparse.width
        return np.array([*places, *extra], np.intp)

    def reference(self, block: Block) -> Array:
        """A shift for the dense columns ``(dense_width,)``: means of the first rows for numbers, 0 for what is 0 or 1."""
        head = self.dense(block, slice(0, min(64, block.rows)), np.zeros(self.dense_width))
        shift = head.mean(axis=1) if head.shape[1] else np.zeros(self.dense_width)
        at = 0
        for term in self.dense_terms:
            if isinstance(term, CodeTerm):
                shift[at : at + term.width] = 0
            at += term.width
        if self.classes is not None:
            shift[at : at + self.targets] = 0
        if self.with_ones:
            shift[-1] = 0
        return shift

    def weights(self, block: Block, rows: slice) -> Array | None:
        """Row weights as float64, checked not to be negative; None where every row counts once."""
        stored = self.design.weights(block)
        if stored is None:
            return None
        weights = stored[rows].astype(np.float64)
        if len(weights) and weights.min() < 0:
            raise DataError(f"Column {self.design.weight!r} has negative weights, such as {weights.min()}.")
        return weights

    def dense(self, block: Block, rows: slice, shift: Array) -> Array:
        """The dense columns ``(dense_width, rows)`` less `shift`, float64, in this thread's scratch memory."""
        count = len(range(*rows.indices(block.rows)))
        out = scratch("columns", (self.dense_width, count), np.float64)
        at = 0
        for term in self.dense_terms:
            _fill(term, block, rows, shift[at : at + term.width, None], out[at : at + term.width])
            at += term.width
        if self.targets:
            self.fill_label(block, rows, shift[at : at + self.targets, None], out[at : at + self.targets])
        if self.with_ones:
            out[-1] = 1.0 - shift[-1]
        return out

    def matrix(self, block: Block) -> Array | None:
        """The features ``(width, rows)`` as they are stored, where they are a matrix of floats in the order of the design."""
        match self.design.terms:
            case [NumberTerm() as term] if block[term.columns[0]].dtype.kind == "f":
                return block.matrix(term.columns)
        return None

    def fill_rows(self, block: Block, rows: slice, places: Array, out: Array) -> None:
        """Write the dense columns but the ones of some rows to ``out[places]``, ``(rows, at least dense_width)``; compiled."""
        from braidwater.kernels.fused_group_sums import deal

        begin = rows.indices(block.rows)[0]
        at = 0
        for term in self.dense_terms:
            if isinstance(term, NumberTerm) and block[term.columns[0]].dtype.kind == "f":
                deal(block.matrix(term.columns), begin, places, at, out)
            else:
                part = scratch("term", (term.width, len(places)), np.float64)
                _fill(term, block, rows, np.zeros((term.width, 1)), part)
                deal(part, 0, places, at, out)
            at += term.width
        labels = self.design.labels(block) if self.targets else None
        if labels is not None and self.classes is None and labels.dtype.kind == "f":
            deal(labels[None], begin, places, at, out)
        elif self.targets:
            part = scratch("term", (self.targets, len(places)), np.float64)
            self.fill_label(block, rows, np.zeros((self.targets, 1)), part)
            deal(part, 0, places, at, out)

    def codes(self, term: CodeTerm, block: Block, rows: slice) -> Array:
        """Which column of the term each row has a 1 in (intp), `term.width` where in none."""
        codes = block[term.column][rows].astype(np.intp) - term.skip
        codes[(codes < 0) | (codes > term.width)] = term.width
        return codes

    def fill_label(self, block: Block, rows: slice, shift: Array, out: Array) -> None:
        """Write what the label makes of some rows, less `shift` ``(targets, 1)``, to `out` ``(targets, rows)``."""
        if self.classes is None:
            np.subtract(self.design.labels(block)[rows], shift, out=out, casting="unsafe")
            return
        codes = class_codes(self.design, block, rows, self.classes)
        if self.classes == 2:
            out[0] = codes
        else:
            out[...] = 0
            out[codes, np.arange(len(codes))] = 1
        out -= shift


def _fill(term: Term, block: Block, rows: slice, shift: Array, out: Array) -> None:
    match term:
        case NumberTerm():
            # copy, then subtract: one call of subtract that also converts goes through a buffer and takes twice as long
            out[...] = block.matrix(term.columns)[:, rows]
            out -= shift
        case WideTerm():
            out[...] = block[term.column][rows].reshape(out.shape[1], term.width).T
            out -= shift
        case CodeTerm():
            codes = block[term.column][rows].astype(np.intp) - term.skip
            np.equal(codes, np.arange(term.width)[:, None], out=out, casting="unsafe")
            out -= shift


def weighted_sums(columns: Columns, block: Block, rows: slice, dense: Array, weights: Array | None) -> Array:
    """``sum(w x)`` of every computed column, ``(columns.width,)``; `dense` as `Columns.dense` made it."""
    total = np.empty(columns.width)
    total[: len(dense)] = dense.sum(axis=1) if weights is None else dense @ weights
    at = len(dense)
    for term in columns.sparse_terms:
        codes = columns.codes(term, block, rows)
        total[at : at + term.width] = np.bincount(codes, weights=weights, minlength=term.width + 1)[: term.width]
        at += term.width
    return total


def weighted_products(
    columns: Columns, block: Block, rows: slice, dense: Array, weights: Array | None, kernel: KernelName = "blas"
) -> Array:
    """``sum(w x x')`` of the computed columns, ``(width, width)``; weights are not negative.

    The dense part by compiled code (up to 128 columns where the processor has AVX-512: 25 ns a row at 30 columns), or by
    BLAS syrk (65 ns; numpy calls it for ``A @ A.T``): half the work of gemm, and exactly symmetric.
    """
    width = columns.width
    products = np.zeros((width, width))
    k = len(dense)
    products[:k, :k] = _dense_products(dense, weights, kernel)
    if columns.sparse_terms:
        _sparse_products(columns, block, rows, dense, weights, products)
    return products


def _dense_products(dense: Array, weights: Array | None, kernel: KernelName) -> Array:
    if kernel == "fused":
        from braidwater.kernels.fused_products import COLUMNS, add_products

        if len(dense) <= COLUMNS:
            weighted = dense
            if weights is not None:
                weighted = scratch("rooted", dense.shape, np.float64)
                np.multiply(dense, weights, out=weighted)
            found = np.zeros((len(dense), len(dense)))
            add_products(weighted, dense, found)
            return found
    if weights is None:
        return np.asarray(dense @ dense.T)
    rooted = scratch("rooted", dense.shape, np.float64)
    np.multiply(dense, np.sqrt(weights), out=rooted)
    return np.asarray(rooted @ rooted.T)


def _sparse_products(
    columns: Columns, block: Block, rows: slice, dense: Array, weights: Array | None, products: Array
) -> None:
    k = len(dense)
    places: list[tuple[CodeTerm, int, Array]] = []
    at = k
    for term in columns.sparse_terms:
        codes = columns.codes(term, block, rows)
        kept = slice(at, at + term.width)
        for j in range(k):
            values = dense[j] if weights is None else dense[j] * weights
            products[j, kept] = np.bincount(codes, weights=values, minlength=term.width + 1)[: term.width]
        products[kept, :k] = products[:k, kept].T
        own = np.bincount(codes, weights=weights, minlength=term.width + 1)[: term.width]
        products[range(at, at + term.width), range(at, at + term.width)] = own
        for other, begin, other_codes in places:
            size = (other.width + 1) * (term.width + 1)
            pairs = np.bincount(other_codes * (term.width + 1) + codes, weights=weights, minlength=size)
            table = pairs.reshape(other.width + 1, term.width + 1)[: other.width, : term.width]
            products[begin : begin + other.width, kept] = table
            products[kept, begin : begin + other.width] = table.T
        places.append((term, at, codes))
        at += term.width
