"""All products of the columns with each other and with the label, group by group, in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.columns import TILE_ROWS, Columns
from braidwater.aggregates.gram import GramResult
from braidwater.aggregates.grouped import runs
from braidwater.blocks.base import Array, Block
from braidwater.blocks.parts import part_of
from braidwater.encoding.design import Design
from braidwater.kernels import scratch
from braidwater.kernels.choice import KernelName

SCATTERED_ROWS = 1024  # of a tile whose columns are turned to rows in the second-level cache
CACHED = 1 << 18  # bytes of matrices that stay in the second-level cache whichever comes next
FEW = 4096  # groups in a list of stacks, until it is worth making one of them


@dataclass(frozen=True)
class GramStack:
    """The Gram matrices of some groups.

    `codes`, `rows` and `weight` ``(groups,)``, `mean` ``(groups, columns)``, centred `products` ``(groups, columns, columns)``.
    Ordered by code; each group is there once.
    """

    codes: Array
    rows: Array
    weight: Array
    mean: Array
    products: Array
    width: int

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, place: int) -> GramResult:
        return GramResult(
            int(self.rows[place]), float(self.weight[place]), self.mean[place], self.products[place], self.width
        )

    def part(self, chosen: Array) -> GramStack:
        """Some of the groups, picked by their places or a mask."""
        return GramStack(
            self.codes[chosen],
            self.rows[chosen],
            self.weight[chosen],
            self.mean[chosen],
            self.products[chosen],
            self.width,
        )

    def summed(self, chosen: Array) -> GramResult:
        """The Gram matrix of the rows of several groups together, picked by their places or a mask."""
        rows, weight, mean, products = added(
            self.rows[chosen], self.weight[chosen], self.mean[chosen], self.products[chosen]
        )
        return GramResult(rows, weight, mean, products, self.width)


@dataclass
class StackState:
    """Stacks in the order of the blocks; the arrays are shared between states and never changed."""

    parts: list[GramStack] = field(default_factory=list)


class GroupedGram(Aggregate[StackState, GramStack]):
    """`Gram` of every group by the codes in the block column `column`: weight, means and centred products of the columns.

    Each group's columns are shifted by their means in its run of rows, so that groups which differ in level lose no digits.
    For designs without categories of many levels (`fits`). The numpy form wants the rows of a group together, and takes some
    10 µs a run of them; the compiled one takes rows in any order. With `groups` (how many codes there are) it keeps a matrix
    for every group in each block's state, without them it goes by runs. Memory ``8 (width + targets)^2`` bytes a group and state.
    """

    what = "products by group"

    def __init__(
        self,
        design: Design,
        column: str,
        classes: int | None = None,
        *,
        kernel: KernelName = "blas",
        groups: int | None = None,
    ) -> None:
        self.design = design.raw()
        self.column = column
        self.columns = Columns(self.design, classes)
        self.kernel = kernel
        self.groups = groups

    @staticmethod
    def fits(design: Design) -> bool:
        """Whether all columns of a design can be written out."""
        return not Columns(design).sparse_terms

    def initialize(self) -> StackState:
        return StackState()

    def transition(self, state: StackState, block: Block) -> StackState:
        if block.rows == 0:
            return state
        if self.kernel == "fused" and self.groups is not None:
            state.parts.append(self._scattered(block, self.groups))
            return state
        block, codes, begins, ends = runs(block, self.column)
        first = 0
        while first < len(codes):
            # runs up to about a tile; a longer one is a tile by itself, whose columns outgrow the cache only then
            last = max(first + 1, int(np.searchsorted(ends, begins[first] + TILE_ROWS, side="right")))
            state.parts.append(self._tile(block, codes[first:last], begins[first:last], ends[first:last]))
            first = last
        return state

    def _tile(self, block: Block, codes: Array, begins: Array, ends: Array) -> GramStack:
        rows = slice(int(begins[0]), int(ends[-1]))
        dense = self.columns.dense(block, rows, np.zeros(self.columns.dense_width))
        weights = self.columns.weights(block, rows)
        places = begins - rows.start
        counts = ends - begins
        heavy = counts.astype(np.float64) if weights is None else np.add.reduceat(weights, places)
        safe = np.where(heavy > 0, heavy, 1.0)
        weighted = dense if weights is None else dense * weights
        mean = np.add.reduceat(weighted, places, axis=1) / safe
        centred = scratch("centred", dense.shape, np.float64)
        np.subtract(dense, np.repeat(mean, counts, axis=1), out=centred)
        # what rounding left of the means: a second look, as for one group (Chan, Golub and LeVeque 1983)
        rest = np.add.reduceat(centred if weights is None else centred * weights, places, axis=1) / safe
        centred -= np.repeat(rest, counts, axis=1)
        rooted = centred if weights is None else centred * np.sqrt(weights)
        products = run_products(rooted, places, counts, self.kernel)
        order = self.columns.order
        return GramStack(
            codes, counts, heavy, (mean + rest).T[:, order], products[:, order][:, :, order], self.design.width
        )

    def _scattered(self, block: Block, groups: int) -> GramStack:
        """The groups of a block whose rows lie in any order."""
        from braidwater.kernels.fused_group_sums import LANES, add_rows, center

        size = self.columns.width
        padded = -(-(size + 1) // LANES) * LANES
        products, shift = np.zeros((groups, size + 1, padded)), np.zeros((groups, padded))
        seen = np.zeros(groups, np.int64)
        if products.nbytes > CACHED:
            block = part_of(block, np.argsort(block[self.column], kind="stable"), memory="sorted")
        codes = block[self.column]
        for tile in block.slices(SCATTERED_ROWS):
            dense = self.columns.dense(block, tile, np.zeros(size))
            rows = scratch("rows", (dense.shape[1], padded), np.float64)
            rows[:, :size] = dense.T
            rows[:, size] = 1.0
            rows[:, size + 1 :] = 0.0
            weights = self.columns.weights(block, tile)
            add_rows(rows, codes[tile], np.zeros(0) if weights is None else weights, shift, seen, products)
        places = np.flatnonzero(seen)
        weight, mean = np.empty(len(places)), np.empty((len(places), size))
        centred = np.empty((len(places), size, size))
        center(products, shift, places, weight, mean, centred)
        order = self.columns.order
        if np.any(order != np.arange(size)):
            mean, centred = mean[:, order], centred[:, order][:, :, order]
        return GramStack(places, seen[places], weight, mean, centred, self.design.width)

    def merge(self, state: StackState, other: StackState) -> StackState:
        state.parts.extend(other.parts)
        if state.parts and sum(map(len, state.parts)) > 2 * len(state.parts[0]) + FEW:
            state.parts = [stacked(state.parts, self.kernel)]
        return state

    def final(self, state: StackState) -> GramStack:
        if state.parts:
            return stacked(state.parts, self.kernel)
        size = self.columns.width
        nothing = np.zeros(0)
        return GramStack(
            nothing.astype(np.int64),
            nothing,
            nothing,
            np.zeros((0, size)),
            np.zeros((0, size, size)),
            self.design.width,
        )


def run_products(columns: Array, begins: Array, counts: Array, kernel: KernelName) -> Array:
    """``X X'`` of every run of rows, ``(runs, columns, columns)``, for columns X ``(columns, rows)`` in float64."""
    products = np.empty((len(begins), len(columns), len(columns)))
    if kernel == "fused":
        from braidwater.kernels.fused_group_products import group_products

        group_products(columns, begins, counts, products)
        return products
    for number, (begin, count) in enumerate(zip(begins.tolist(), counts.tolist(), strict=True)):
        part = columns[:, begin : begin + count]
        np.matmul(part, part.T, out=products[number])
    return products


def stacked(parts: list[GramStack], kernel: KernelName = "blas") -> GramStack:
    """One stack of several; groups that are in more than one of them are added up in their order."""
    codes, first = np.unique(np.concatenate([part.codes for part in parts]), return_index=True)
    size = parts[0].mean.shape[1]
    found = GramStack(
        codes,
        np.concatenate([part.rows for part in parts])[first],
        np.concatenate([part.weight for part in parts])[first],
        np.empty((len(codes), size)),
        np.empty((len(codes), size, size)),
        parts[0].width,
    )
    begin = 0
    for part in parts:
        places = np.searchsorted(codes, part.codes)
        is_new = first[places] == begin + np.arange(len(part))
        found.mean[places[is_new]], found.products[places[is_new]] = part.mean[is_new], part.products[is_new]
        again = np.flatnonzero(~is_new)
        # a part of a clustered block holds a group twice only where two of its runs met
        for chosen in _distinct(places, again):
            _add(found, places[chosen], part, chosen, kernel)
        begin += len(part)
    return found


def _distinct(places: Array, chosen: Array) -> list[Array]:
    """`chosen` cut so that no place comes twice in a part."""
    if len(np.unique(places[chosen])) == len(chosen):
        return [chosen] if len(chosen) else []
    return [np.array([one]) for one in chosen]


def _add(found: GramStack, places: Array, part: GramStack, chosen: Array, kernel: KernelName) -> None:
    """Add groups of `part` to those at `places` (Chan, Golub and LeVeque 1983)."""
    found.rows[places] += part.rows[chosen]
    if kernel == "fused":
        from braidwater.kernels.fused_group_sums import add_stack

        add_stack(
            found.weight,
            found.mean,
            found.products,
            places,
            part.weight[chosen],
            part.mean[chosen],
            part.products[chosen],
        )
        return
    heavy = part.weight[chosen] > 0
    places, chosen = places[heavy], chosen[heavy]
    before, more = found.weight[places], part.weight[chosen]
    total = before + more
    gap = part.mean[chosen] - found.mean[places]
    share = (before * more / total)[:, None, None]
    found.products[places] += part.products[chosen] + share * gap[:, :, None] * gap[:, None, :]
    found.mean[places] += gap * (more / total)[:, None]
    found.weight[places] = total


def added(rows: Array, weight: Array, mean: Array, products: Array) -> tuple[int, float, Array, Array]:
    """Rows, weight, means and centred products of several sets of rows together."""
    total = float(weight.sum())
    if total <= 0:
        return int(rows.sum()), 0.0, np.zeros(mean.shape[1]), np.zeros(products.shape[1:])
    middle = mean[0] + (weight @ (mean - mean[0])) / total
    gap = mean - middle
    return int(rows.sum()), total, middle, products.sum(axis=0) + (gap * weight[:, None]).T @ gap
