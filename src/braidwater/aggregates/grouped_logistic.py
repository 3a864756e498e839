"""Log-loss, gradient and Hessian of a logistic model for each group of rows, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.columns import TILE_ROWS, Columns
from braidwater.aggregates.grouped import runs
from braidwater.aggregates.grouped_gram import run_products
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design
from braidwater.kernels.choice import KernelName


@dataclass(frozen=True)
class GroupLosses:
    """Sums over the rows of each group, ``(groups,)``.

    `gradient` ``(groups, width + 1)`` has the intercept last, `hessian` is ``(groups, width + 1, width + 1)``.
    """

    codes: Array
    weight: Array
    loss: Array
    wrong: Array
    gradient: Array
    hessian: Array

    def copy(self) -> GroupLosses:
        """The same in arrays of their own."""
        return GroupLosses(*(getattr(self, part.name).copy() for part in fields(self)))


@dataclass
class LossesState:
    """What was found run by run, in the order of the blocks; the arrays are shared between states and never changed."""

    parts: list[GroupLosses] = field(default_factory=list)


class GroupedLogistic(Aggregate[LossesState, GroupLosses]):
    """`LogisticHessian` of two classes for every group, each at a point of its own and in its own standardised columns.

    The group of a row is its code in the block column `column`. `points` ``(groups, width + 1)``, `center` and `scale` ``(groups,
    width)`` are of the raw columns; groups that are not `active` ``(groups,)`` are passed over. For designs without offset and
    without categories of many levels. float64 throughout; memory ``8 (width + 1)^2`` bytes a group that a state has seen.
    """

    what = "Hessian by group"

    def __init__(
        self,
        design: Design,
        column: str,
        points: Array,
        center: Array,
        scale: Array,
        active: Array,
        *,
        kernel: KernelName = "blas",
    ) -> None:
        self.design = design.raw()
        self.column = column
        self.points = points
        self.center = np.append(center, np.zeros((len(center), 1)), axis=1)
        self.scale = np.append(scale, np.ones((len(scale), 1)), axis=1)
        self.active = active
        self.kernel = kernel
        self.columns = Columns(self.design, with_label=False, with_ones=True)
        order = self.columns.order
        place = np.empty(len(order), np.intp)
        place[order] = np.arange(len(order))  # which column of the design each computed one is
        self._facts = [facts[:, place] for facts in (self.center, self.scale, self.points)]

    def initialize(self) -> LossesState:
        return LossesState()

    def transition(self, state: LossesState, block: Block) -> LossesState:
        if block.rows == 0:
            return state
        block, codes, begins, ends = runs(block, self.column)
        chosen = np.flatnonzero(self.active[codes])
        if self.kernel == "fused" and len(chosen):
            state.parts.append(self._compiled(block, codes[chosen], begins[chosen], ends[chosen]))
            return state
        for part in neighbours(chosen, begins, ends):
            state.parts.append(self._tile(block, codes[part], begins[part], ends[part]))
        return state

    def _compiled(self, block: Block, codes: Array, begins: Array, ends: Array) -> GroupLosses:
        """All runs of a block at once where its columns are a matrix as they lie, else those of a tile at a time."""
        from braidwater.kernels.fused_group_logistic import logistic_groups

        size, count = self.columns.dense_width, len(codes)
        weight, loss, wrong = np.empty((3, count))
        found = GroupLosses(codes, weight, loss, wrong, np.empty((count, size)), np.empty((count, size, size)))
        y, weights = self.design.labels(block), self.columns.weights(block, slice(0, block.rows))
        q = np.zeros(0) if weights is None else weights
        matrix = self.columns.matrix(block)
        center, scale, points = (facts[codes] for facts in self._facts)
        every = np.arange(count)
        for part in [every] if matrix is not None else neighbours(every, begins, ends):
            rows = slice(0, block.rows) if matrix is not None else slice(int(begins[part[0]]), int(ends[part[-1]]))
            X = matrix if matrix is not None else self.columns.dense(block, rows, np.zeros(size))[:-1]
            chosen = slice(int(part[0]), int(part[-1]) + 1)
            logistic_groups(
                X, y[rows], q[rows], begins[chosen] - rows.start, ends[chosen] - rows.start, center[chosen, :-1],
                scale[chosen, :-1], points[chosen], found.weight[chosen], found.loss[chosen], found.wrong[chosen],
                found.gradient[chosen], found.hessian[chosen],
            )  # fmt: skip
        order = self.columns.order
        if np.all(order == np.arange(size)):
            return found
        return replace(found, gradient=found.gradient[:, order], hessian=found.hessian[:, order][:, :, order])

    def _tile(self, block: Block, codes: Array, begins: Array, ends: Array) -> GroupLosses:
        rows = slice(int(begins[0]), int(ends[-1]))
        columns, order = self.columns, self.columns.order
        dense = columns.dense(block, rows, np.zeros(columns.dense_width))
        labels = self.design.labels(block)[rows].astype(np.float64)
        weights = columns.weights(block, rows)
        center, scale, points = (facts[codes] for facts in self._facts)
        begins, counts = begins - rows.start, ends - begins
        weight, loss, wrong = np.empty(len(codes)), np.empty(len(codes)), np.empty(len(codes))
        gradient = np.empty((len(codes), len(order)))
        evaluate(dense, labels, weights, begins, counts, center, scale, points, weight, loss, wrong, gradient)
        hessian = run_products(dense, begins, counts)
        return GroupLosses(codes, weight, loss, wrong, gradient[:, order], hessian[:, order][:, :, order])

    def merge(self, state: LossesState, other: LossesState) -> LossesState:
        state.parts.extend(other.parts)
        return state

    def final(self, state: LossesState) -> GroupLosses:
        codes = np.flatnonzero(self.active)
        width = self.points.shape[1]
        count = len(codes)
        numbers = np.zeros((3, count))
        gradient, hessian = np.zeros((count, width)), np.zeros((count, width, width))
        for part in state.parts:
            places = np.searchsorted(codes, part.codes)
            found = (part.weight, part.loss, part.wrong, part.gradient, part.hessian)
            increasing = bool(np.all(places[1:] > places[:-1]))
            chosen: Array | slice = places
            if increasing and len(places) and places[-1] - places[0] + 1 == len(places):
                chosen = slice(int(places[0]), int(places[-1]) + 1)  # several times as fast as places
            for target, values in zip((*numbers, gradient, hessian), found, strict=True):
                if increasing:
                    target[chosen] += values
                else:  # a group has several runs in the tile: a third of the speed
                    np.add.at(target, places, values)
        return GroupLosses(codes, numbers[0], numbers[1], numbers[2], gradient, hessian)


def neighbours(chosen: Array, begins: Array, ends: Array) -> Iterator[Array]:
    """Runs next to each other, up to about a tile."""
    at = 0
    while at < len(chosen):
        end = at + 1
        while (
            end < len(chosen)
            and chosen[end] == chosen[end - 1] + 1
            and ends[chosen[end]] - begins[chosen[at]] <= TILE_ROWS
        ):
            end += 1
        yield chosen[at:end]
        at = end


def evaluate(
    dense: Array,
    labels: Array,
    weights: Array | None,
    begins: Array,
    counts: Array,
    center: Array,
    scale: Array,
    points: Array,
    weight: Array,
    loss: Array,
    wrong: Array,
    gradient: Array,
) -> None:
    """Losses and gradients of runs of rows; `dense` becomes the standardised columns times the root of the curvature."""
    every = np.repeat(np.arange(len(begins)), counts)
    dense -= center.T[:, every]
    dense /= scale.T[:, every]
    z = np.einsum("ji,ji->i", dense, points.T[:, every])
    small = np.exp(-np.abs(z))
    inverse = 1 / (1 + small)
    residual = np.where(z >= 0, 1.0, small) * inverse - labels
    losses = np.maximum(z, 0) + np.log1p(small) - labels * z
    missed = (2 * labels - 1) * z <= 0
    curvature = small * inverse**2
    share = np.ones(len(z)) if weights is None else weights
    weight[:] = np.add.reduceat(share, begins)
    loss[:] = np.add.reduceat(losses * share, begins)
    wrong[:] = np.add.reduceat((missed & (share > 0)).astype(np.float64), begins)
    gradient[:] = np.add.reduceat(dense * (residual * share), begins, axis=1).T
    dense *= np.sqrt(curvature * share)
