"""All products of the columns with each other and with the label, group by group, in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.columns import TILE_ROWS, Columns
from braidwater.aggregates.gram_stack import GramStack, added_to, stacked
from braidwater.aggregates.grouped import runs
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design
from braidwater.kernels import scratch
from braidwater.kernels.choice import KernelName

TILE_BYTES = 1 << 19  # of rows that are turned at a time: they stay in the second-level cache
CACHED = 1 << 18  # bytes of matrices that stay in the second-level cache whichever comes next
FEW_GROUPS = 16  # of which a tile has runs of a hundred rows
LONG_RUN = 32  # rows, on average
FEW = 4096  # groups in a list of stacks, until it is worth making one of them


@dataclass
class StackState:
    """Stacks in the order of the blocks. Arrays are shared between states and never changed, but for those of the first stack
    where it is the state's `own`."""

    parts: list[GramStack] = field(default_factory=list)
    own: bool = False


class GroupedGram(Aggregate[StackState, GramStack]):
    """`Gram` of every group by the codes in the block column `column`: weight, means and centred products of the columns.

    Each group's columns are shifted by their means in its run of rows, so that groups which differ in level lose no digits.
    For designs without categories of many levels (`fits`). The numpy form wants the rows of a group together, and takes some
    10 µs a run of them; the compiled one takes rows in any order. Memory ``8 (width + targets)^2`` bytes a group and state.
    """

    what = "products by group"

    def __init__(
        self,
        design: Design,
        column: str,
        classes: int | None = None,
        *,
        kernel: KernelName = "blas",
    ) -> None:
        self.design = design.raw()
        self.column = column
        self.columns = Columns(self.design, classes)
        self.kernel = kernel

    @staticmethod
    def fits(design: Design) -> bool:
        """Whether all columns of a design can be written out."""
        return not Columns(design).sparse_terms

    def initialize(self) -> StackState:
        return StackState()

    def transition(self, state: StackState, block: Block) -> StackState:
        if block.rows == 0:
            return state
        if self.kernel == "fused":
            state.parts.append(self._compiled(block))
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
        products = run_products(rooted, places, counts)
        order = self.columns.order
        return GramStack(
            codes, counts, heavy, (mean + rest).T[:, order], products[:, order][:, :, order], self.design.width
        )

    def _compiled(self, block: Block) -> GramStack:
        """The groups of a block whose rows lie in any order: sorted, unless they are few or all matrices stay in the cache."""
        codes = block[self.column]
        groups = int(codes.max()) - int(codes.min()) + 1
        if self.in_columns(groups) or self._in_runs(codes, groups):
            found = self._few(block, groups)
        elif 8 * groups * self._padded * (self.columns.width + 1) <= CACHED:
            found = self._unsorted(block, groups)
        else:
            found = self._sorted(block)
        order = self.columns.order
        if np.all(order == np.arange(self.columns.width)):
            return found
        return replace(found, mean=found.mean[:, order], products=found.products[:, order][:, :, order])

    def in_columns(self, groups: int) -> bool:
        """Whether groups are so few that a tile has a long run of rows of each: then columns need not be turned to rows."""
        from braidwater.kernels.fused_products import COLUMNS

        return self.kernel == "fused" and groups <= FEW_GROUPS and self.columns.width < COLUMNS

    def _in_runs(self, codes: Array, groups: int) -> bool:
        """Whether rows lie in the order of their groups, in runs that are worth it (two thirds of the time of sorting them)."""
        from braidwater.kernels.fused_products import COLUMNS

        long = groups * LONG_RUN <= len(codes) and self.columns.width < COLUMNS
        return long and bool(np.all(codes[1:] >= codes[:-1]))

    def _few(self, block: Block, groups: int) -> GramStack:
        from braidwater.kernels.fused_group_sums import add_columns

        size, codes = self.columns.width, block[self.column]
        lowest, rounded = int(codes.min()), (size + 4) // 4 * 4
        sums, shift = np.zeros((groups, rounded, rounded)), np.zeros((groups, size))
        seen, heavy = np.zeros(groups, np.int64), np.zeros(groups)
        for rows in block.slices(self._tile_rows):
            tile = self.columns.dense(block, rows, np.zeros(self.columns.dense_width))
            stored = self.columns.weights(block, rows)
            weights = np.zeros(0) if stored is None else stored
            heavy += np.bincount(codes[rows] - lowest, stored, groups)
            add_columns(
                tile, codes[rows], lowest, weights, shift, seen, sums, scratch("runs", (rounded, tile.shape[1]), float)
            )
        sums = np.tril(sums) + np.tril(sums, -1).swapaxes(1, 2)
        sums[:, size, size] = heavy  # the squares of roots are not quite the weights
        return self._centred(lowest, seen, shift, sums)

    def _unsorted(self, block: Block, groups: int) -> GramStack:
        from braidwater.kernels.fused_group_sums import add_rows

        size, codes = self.columns.width, block[self.column]
        lowest = int(codes.min())
        sums, shift = np.zeros((groups, size + 1, self._padded)), np.zeros((groups, self._padded))
        seen = np.zeros(groups, np.int64)
        places = np.arange(self._tile_rows)
        for rows in block.slices(self._tile_rows):
            tile = scratch("rows", (len(codes[rows]), self._padded), np.float64)
            weighted = self._fill(block, rows, places[: len(tile)], tile)
            add_rows(tile, codes[rows], lowest, weighted, shift, seen, sums)
        return self._centred(lowest, seen, shift, sums)

    def _centred(self, lowest: int, seen: Array, shift: Array, sums: Array) -> GramStack:
        """The groups that were seen, from sums about a row of each."""
        from braidwater.kernels.fused_group_sums import center

        there = np.flatnonzero(seen)
        found = self._empty(there + lowest, seen[there])
        center(sums[there], shift[there], found.weight, found.mean, found.products)
        return found

    def _sorted(self, block: Block) -> GramStack:
        from braidwater.kernels.fused_group_sums import group_sums, order_by_group

        codes = block[self.column]
        lowest = int(codes.min())
        bounds, places = np.zeros(int(codes.max()) - lowest + 2, np.int64), scratch("places", codes.shape, np.int64)
        order_by_group(codes, lowest, bounds, places)
        lines = scratch("rows", (block.rows, self._padded), np.float64)
        for rows in block.slices(self._tile_rows):
            weighted = self._fill(block, rows, places[rows], lines)
        there = np.flatnonzero(bounds[1:] > bounds[:-1])
        begins, ends = bounds[there], bounds[there + 1]
        found = self._empty(there + lowest, ends - begins)
        group_sums(lines, begins, ends, weighted, found.weight, found.mean, found.products)
        return found

    def _fill(self, block: Block, rows: slice, places: Array, out: Array) -> bool:
        """Write some rows to ``out[places]``: the computed columns, and behind a free place the weight, if there is one."""
        from braidwater.kernels.fused_group_sums import deal

        self.columns.fill_rows(block, rows, places, out)
        weights = self.columns.weights(block, rows)
        if weights is not None:
            deal(weights[None], 0, places, self.columns.width + 1, out)
        return weights is not None

    def _empty(self, codes: Array, rows: Array) -> GramStack:
        count, size = len(codes), self.columns.width
        memory = np.empty(count), np.empty((count, size)), np.empty((count, size, size))
        return GramStack(codes, rows, *memory, self.design.width)

    @property
    def _padded(self) -> int:
        from braidwater.kernels.fused_group_sums import LANES

        return -(-(self.columns.width + 2) // LANES) * LANES

    @property
    def _tile_rows(self) -> int:
        return TILE_BYTES // (8 * self._padded) + 1

    def merge(self, state: StackState, other: StackState) -> StackState:
        for part in other.parts:
            if not (state.own and added_to(state.parts[0], part, self.kernel)):
                state.parts.append(part)
        if len(state.parts) > 1 and sum(map(len, state.parts)) > 2 * len(state.parts[0]) + FEW:
            state.parts, state.own = [stacked(state.parts, self.kernel)], True
        other.own = False  # its arrays are now those of two states
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


def run_products(columns: Array, begins: Array, counts: Array) -> Array:
    """``X X'`` of every run of rows, ``(runs, columns, columns)``, for columns X ``(columns, rows)`` in float64."""
    products = np.empty((len(begins), len(columns), len(columns)))
    for number, (begin, count) in enumerate(zip(begins.tolist(), counts.tolist(), strict=True)):
        part = columns[:, begin : begin + count]
        np.matmul(part, part.T, out=products[number])
    return products
