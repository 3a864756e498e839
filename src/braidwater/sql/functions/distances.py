"""How far points are from centroids, and what follows from it for clusters: one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from braidwater.aggregates import Aggregate
from braidwater.aggregates.nearest_centers import lowest
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design
from braidwater.errors import OptionError

_TILE = 2048


def _squared(points: Array, centroid: Array) -> Array:
    gap = points - centroid
    return np.asarray(np.einsum("ij,ij->i", gap, gap))


def _angle(points: Array, centroid: Array) -> Array:
    size = np.linalg.norm(points, axis=1) * np.linalg.norm(centroid, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.arccos(np.clip(np.sum(points * centroid, axis=1) / size, -1.0, 1.0)))


def _tanimoto(points: Array, centroid: Array) -> Array:
    inner = np.sum(points * centroid, axis=1)
    both = np.einsum("ij,ij->i", points, points) + np.sum(centroid**2, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((both - 2 * inner) / (both - inner))


# of points ``(rows, width)`` and one centroid ``(width,)``, or one for each point
DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "squared_dist_norm2": _squared,
    "dist_norm2": lambda points, centroid: np.sqrt(_squared(points, centroid)),
    "dist_norm1": lambda points, centroid: np.asarray(np.abs(points - centroid).sum(axis=1)),
    "dist_angle": _angle,
    "dist_tanimoto": _tanimoto,
}


def distance_name(argument: str, text: str) -> str:
    """The name of a distance without the schema that MADlib's examples write before it.

    >>> distance_name("fn_dist", "madlib.dist_norm2")
    'dist_norm2'
    """
    name = text.strip().removeprefix("madlib.").lower()
    if name not in DISTANCES:
        raise OptionError(argument, text, f"one of {', '.join(DISTANCES)}")
    return name


@dataclass
class Costs:
    """Sums by centroid ``(k,)`` of rows and of distances to them, and the sum of the silhouettes of all rows."""

    rows: Array
    distance: Array
    silhouette: float


class ClusterCosts(Aggregate[Costs, Costs]):
    """The distances of all rows to the nearest of `centroids` ``(k, width)``, by centroid, and simplified silhouettes
    ``(b - a) / b`` from the distances a and b to the nearest and the second nearest (0 where both are 0), if `silhouettes` are
    asked for. Cost: k times the width a row; memory for k numbers."""

    what = "cluster costs"

    def __init__(self, design: Design, centroids: Array, distance: str, *, silhouettes: bool) -> None:
        self.design = design
        self.silhouettes = silhouettes
        self.centroids = centroids
        self.distance = distance

    def initialize(self) -> Costs:
        return Costs(np.zeros(len(self.centroids)), np.zeros(len(self.centroids)), 0.0)

    def transition(self, state: Costs, block: Block) -> Costs:
        if block.rows == 0:
            return state
        columns = self.design.dense(block)
        k = len(self.centroids)
        for begin in range(0, block.rows, _TILE):
            # turned tile by tile: rows that lie apart take several times as long in all that follows
            tile = np.ascontiguousarray(columns[:, begin : begin + _TILE].T, np.float64)
            order = self._nearest(tile)
            own = self._distances(tile, order[0])
            state.rows += np.bincount(order[0], minlength=k)
            state.distance += np.bincount(order[0], weights=own, minlength=k)
            if self.silhouettes and k > 1:
                second = self._distances(tile, order[1])
                state.silhouette += float(np.sum((second - own) / np.where(second > 0, second, 1.0)))
        return state

    def _nearest(self, tile: Array) -> Array:
        """The places of the nearest centroids ``(1 or 2, rows)``."""
        if self.distance in ("squared_dist_norm2", "dist_norm2"):
            # a matrix product finds out which is near, and the distance is then computed without cancellation
            middle = self.centroids.mean(axis=0)
            moved = self.centroids - middle
            found = np.einsum("ij,ij->i", moved, moved)[:, None] - 2 * moved @ (tile - middle).T
        else:
            found = np.stack([DISTANCES[self.distance](tile, centroid) for centroid in self.centroids])
        if not self.silhouettes or len(found) < 2:
            return lowest(found)[None]
        return np.asarray(np.argsort(found, axis=0, kind="stable")[:2])

    def _distances(self, tile: Array, places: Array) -> Array:
        return DISTANCES[self.distance](tile, self.centroids[places])

    def merge(self, state: Costs, other: Costs) -> Costs:
        return Costs(state.rows + other.rows, state.distance + other.distance, state.silhouette + other.silhouette)

    def final(self, state: Costs) -> Costs:
        return state
