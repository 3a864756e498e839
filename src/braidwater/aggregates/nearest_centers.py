"""Which centre is nearest: the passes of k-means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.linear_map import FAR
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design, NumberTerm
from braidwater.kernels import scratch
from braidwater.kernels.choice import KernelName

TILE_ROWS = 4096


@dataclass
class CentersState:
    """Sums by centre: `weight` ``(runs, k)``, `sums` ``(runs, k, width)`` of rows less the reference, in float64.

    `labels` are the numbers of the rows' centres (int32) by the number of their first row; all from row 0 in a result.
    """

    weight: Array
    sums: Array
    labels: dict[int, Array] = field(default_factory=dict)


class NearestCenters(Aggregate[CentersState, CentersState]):
    """Every row goes to its nearest centre: one step of Lloyd's algorithm for several runs at once.

    `centers` ``(runs, k, width)`` are for the columns of `design` (standardised where it is). The result holds for each
    centre the weight of its rows and the sum of their differences to `reference` ``(width,)``, which should be near the
    mean. Two matrix products a tile, in the type in which the columns are stored; sums over tiles in float64. `labelled`
    keeps the centre of every row for the first run, `with_sums` False leaves the sums out (half the work).
    """

    what = "nearest centres"

    def __init__(
        self,
        design: Design,
        centers: Array,
        reference: Array,
        spread: Array,
        *,
        kernel: KernelName = "blas",
        labelled: bool = False,
        with_sums: bool = True,
    ) -> None:
        self.design = design
        self.centers = np.asarray(centers, np.float64)
        self.reference = np.asarray(reference, np.float64)
        # float32 is enough where means are near zero against the spread; the shift is then folded into the centres
        self.near = bool(np.all(np.abs(self.reference) <= FAR * np.asarray(spread)))
        self.kernel = kernel
        self.labelled = labelled
        self.with_sums = with_sums

    def initialize(self) -> CentersState:
        runs, k, width = self.centers.shape
        return CentersState(np.zeros((runs, k)), np.zeros((runs, k, width)))

    def transition(self, state: CentersState, block: Block) -> CentersState:
        runs, k, _ = self.centers.shape
        if block.rows == 0:
            return state
        stored = self.design.weights(block)
        matrix = stored_floats(self.design, block, near=self.near) if self.kernel == "fused" else None
        if matrix is not None:
            return self._fused(state, matrix, stored, block.start)
        found = []
        for tile in block.slices(TILE_ROWS):
            columns, shift = tile_columns(self.design, block, tile, self.reference, near=self.near)
            scores = center_scores(columns, self.centers - shift, columns.dtype)
            for run in range(runs):
                labels = lowest(scores[run * k : (run + 1) * k])
                if self.labelled and run == 0:
                    found.append(labels)
                members = scratch("members", (k, columns.shape[1]), columns.dtype)
                np.equal(labels, np.arange(k, dtype=labels.dtype)[:, None], out=members, casting="unsafe")
                if stored is not None:
                    members *= stored[tile].astype(columns.dtype)
                counts = members.sum(axis=1, dtype=np.float64)
                state.weight[run] += counts
                state.sums[run] += members @ columns.T
                if np.any(shift):
                    continue
                state.sums[run] -= counts[:, None] * self.reference
        if self.labelled:
            state.labels[block.start] = np.concatenate(found).astype(np.int32)
        return state

    def _fused(self, state: CentersState, matrix: Array, stored: Array | None, start: int) -> CentersState:
        weights = np.zeros(0, matrix.dtype) if stored is None else stored.astype(matrix.dtype)
        for run, centers in enumerate(self.centers):
            counts, sums, labels = fused_nearest(matrix, centers, weights, labelled=self.labelled, sums=self.with_sums)
            state.weight[run] += counts
            if self.with_sums:
                state.sums[run] += sums - counts[:, None] * self.reference
            if self.labelled and run == 0:
                state.labels[start] = labels
        return state

    def merge(self, state: CentersState, other: CentersState) -> CentersState:
        state.weight += other.weight
        state.sums += other.sums
        state.labels |= other.labels
        return state

    def final(self, state: CentersState) -> CentersState:
        parts = [state.labels[start] for start in sorted(state.labels)]
        labels = {0: np.concatenate(parts)} if parts else {}
        return CentersState(state.weight.copy(), state.sums.copy(), labels)


@dataclass
class DrawnState:
    """The rows with the smallest keys so far ``(drawn, width)`` with their keys, and the sum of weighted squared distances."""

    keys: Array
    rows: Array
    cost: float


class DrawnRows(Aggregate[DrawnState, DrawnState]):
    """Rows drawn with probabilities proportional to their squared distance from the nearest centre, without
    replacement.

    Every row gets an exponential clock that runs as fast as its weight times its squared distance; the `count` that
    ring first are drawn (Efraimidis and Spirakis 2006), all in one pass, without knowing the sum beforehand. A row's
    clock depends on `seed` and its number in the table alone, so the draw is the same however the rows are cut. Without
    `centers` all distances are 1. With ``farthest`` the rows with the largest distances are taken instead.
    """

    what = "draw rows"

    def __init__(
        self,
        design: Design,
        centers: Array | None,
        count: int,
        seed: int,
        *,
        farthest: bool = False,
        near: bool = False,
        kernel: KernelName = "blas",
    ) -> None:
        self.design = design
        self.centers = None if centers is None else np.asarray(centers, np.float64)
        self.count = count
        self.seed = seed
        self.farthest = farthest
        self.near = near
        self.kernel = kernel

    def initialize(self) -> DrawnState:
        return DrawnState(np.zeros(0), np.zeros((0, self.design.width)), 0.0)

    def transition(self, state: DrawnState, block: Block) -> DrawnState:
        stored = self.design.weights(block)
        matrix = None
        # distances from scores: far from zero, they would be differences of numbers that are large against them
        if self.kernel == "fused" and block.rows and not self.farthest and (self.near or self.centers is None):
            matrix = stored_floats(self.design, block, near=self.near)
        if matrix is not None:
            return self._fused(state, block, matrix, stored)
        for tile in block.slices(TILE_ROWS):
            count = tile.stop - tile.start
            speed = np.ones(count) if stored is None else stored[tile].astype(np.float64)
            columns = self.design.dense(block, tile)
            if self.centers is not None:
                distances = squared_distances(columns, self.centers)
                speed = distances * (speed > 0) if self.farthest else speed * distances
                state.cost += float(speed.sum())
            alive = np.flatnonzero(speed > 0)
            if self.farthest:
                keys = -speed[alive]
            else:
                keys = exponentials(self.seed, block.start + tile.start + alive) / speed[alive]
            first = np.argsort(keys, kind="stable")[: self.count]
            found = DrawnState(keys[first], columns[:, alive[first]].T, 0.0)
            state = self.merge(state, found)
        return state

    def _fused(self, state: DrawnState, block: Block, matrix: Array, stored: Array | None) -> DrawnState:
        """Distances in the type of the columns; only rows that ring before those drawn so far are looked at closely."""
        from braidwater.kernels.fused_draw import early_rows

        speed = np.ones(block.rows) if stored is None else stored.astype(np.float64)
        if self.centers is not None:
            speed *= fused_distances(matrix, self.centers)
            state.cost += float(speed.sum())
        found = np.empty(block.rows, np.int64)
        begin = 0
        while begin < block.rows:
            # a short look first: it sets the limit for the others
            end = min(block.rows, begin + (TILE_ROWS if len(state.keys) < self.count else block.rows))
            limit = float(state.keys[-1]) if len(state.keys) == self.count else np.inf
            start = np.uint64(block.start + begin)
            number = early_rows(_mixed(self.seed), start, speed[begin:end], limit, found)
            alive = begin + found[:number]
            keys = exponentials(self.seed, block.start + alive) / speed[alive]
            first = np.argsort(keys, kind="stable")[: self.count]
            rows = self.design.dense(block, alive[first]).T
            state = self.merge(state, DrawnState(keys[first], rows, 0.0))
            begin = end
        return state

    def merge(self, state: DrawnState, other: DrawnState) -> DrawnState:
        keys = np.concatenate([state.keys, other.keys])
        first = np.argsort(keys, kind="stable")[: self.count]
        rows = np.concatenate([state.rows, other.rows])[first]
        return DrawnState(keys[first], rows, state.cost + other.cost)

    def final(self, state: DrawnState) -> DrawnState:
        return state


def tile_columns(design: Design, block: Block, tile: slice, reference: Array, *, near: bool) -> tuple[Array, Array]:
    """The columns of a tile ``(width, rows)``, and what was taken off each: nothing from a view of stored floats."""
    stored = stored_floats(design, block, near=near)
    if stored is not None:
        return stored[:, tile], np.zeros(len(reference))
    out = scratch("columns", (design.width, tile.stop - tile.start), np.float64)
    design.dense(block, tile, out=out)
    out -= reference[:, None]
    return out, reference


def stored_floats(design: Design, block: Block, *, near: bool) -> Array | None:
    """The features as they are stored, where they are one group of floats that can be used as it is; else None."""
    term = design.terms[0] if len(design.terms) == 1 else None
    if not isinstance(term, NumberTerm) or design.scale is not None:
        return None
    stored = block.matrix(term.columns)
    return stored if stored.dtype == np.float64 or (stored.dtype == np.float32 and near) else None


def fused_nearest(
    matrix: Array, centers: Array, weights: Array, *, labelled: bool = False, sums: bool = True
) -> tuple[Array, Array, Array]:
    """Weights ``(k,)`` and sums ``(k, width)`` of the rows of a stored matrix by nearest centre, and labels if asked for."""
    from braidwater.kernels.fused_nearest import nearest_pass

    k, width = centers.shape
    padded = (-k % 4, -width % 4)
    negative = np.pad(-centers, ((0, padded[0]), (0, padded[1]))).astype(matrix.dtype)
    half = np.pad(0.5 * np.einsum("ij,ij->i", centers, centers), (0, padded[0]), constant_values=np.inf)
    counts, products = np.zeros(len(negative)), np.zeros(negative.shape)
    labels = np.zeros(matrix.shape[1] if labelled else 0, np.int32)
    nothing = np.zeros(0, matrix.dtype)
    nearest_pass(matrix, weights, negative, half.astype(matrix.dtype), counts, products, labels, nothing, sums)
    return counts[:k], products[:k, :width], labels


def fused_distances(matrix: Array, centers: Array) -> Array:
    """Squared distance of every row of a stored matrix to the nearest centre, in the type of the matrix; 0 for rounding."""
    from braidwater.kernels.fused_nearest import nearest_pass

    k, width = centers.shape
    negative = np.pad(-centers, ((0, -k % 4), (0, -width % 4))).astype(matrix.dtype)
    half = np.pad(0.5 * np.einsum("ij,ij->i", centers, centers), (0, -k % 4), constant_values=np.inf)
    nothing = np.zeros(0)
    distances = np.empty(matrix.shape[1], matrix.dtype)
    labels = np.zeros(0, np.int32)
    none = np.zeros(0, matrix.dtype)
    nearest_pass(matrix, none, negative, half.astype(matrix.dtype), nothing, np.zeros((0, 0)), labels, distances, False)
    size = np.einsum("ij,ij->j", matrix, matrix)
    distances *= 2
    distances += size
    size += 2 * half[:k].max(initial=0)
    distances[distances < 16 * np.finfo(matrix.dtype).eps * size] = 0
    return distances


def center_scores(columns: Array, centers: Array, dtype: Any) -> Array:
    """``|c|^2 / 2 - c'x`` of every centre and row, ``(centres, rows)``: lowest for the nearest centre."""
    flat = centers.reshape(-1, centers.shape[-1])
    scores = scratch("scores", (len(flat), columns.shape[1]), dtype)
    np.matmul(-flat.astype(dtype), columns, out=scores)
    scores += (0.5 * np.einsum("ij,ij->i", flat, flat)).astype(dtype)[:, None]
    return scores


def lowest(scores: Array) -> Array:
    """The row of the lowest of each column of ``(k, rows)``, the first of equals; a compare and two selects a row of
    scores.

    numpy's argmin along the first axis takes five times as long.
    """
    small = np.uint8 if len(scores) <= 256 else np.uint16 if len(scores) <= 65536 else np.int32
    labels = np.zeros(scores.shape[1], small)
    best = scores[0].copy()
    better = np.empty(len(best), bool)
    for j in range(1, len(scores)):
        np.less(scores[j], best, out=better)
        np.minimum(scores[j], best, out=best)
        np.copyto(labels, j, where=better)
    return labels


def squared_distances(columns: Array, centers: Array) -> Array:
    """Squared distance of every column of ``(width, rows)`` to the nearest of `centers` ``(k, width)``."""
    middle = centers.mean(axis=0)
    moved, around = columns - middle[:, None], centers - middle
    scores = center_scores(moved, around[None], np.float64)
    distances: Array = 2 * scores.min(axis=0) + np.einsum("ij,ij->j", moved, moved)
    # a row on a centre comes out as rounding: 0 keeps it from being drawn again
    size = np.einsum("ij,ij->j", moved, moved) + np.einsum("ij,ij->i", around, around).max(initial=0)
    distances[distances < 1e-13 * size] = 0
    return distances


def exponentials(seed: int, numbers: Array) -> Array:
    """Exponential random numbers that depend on `seed` and a row's number alone (SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + _mixed(seed)
        x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    uniform = ((x >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return np.asarray(-np.log(uniform))


def _mixed(seed: int) -> np.uint64:
    return np.uint64(seed * 0x632BE59BD9B4E019 & (2**64 - 1))
