"""kmeans, kmeanspp, kmeans_random: clusters around centroids; simple_silhouette: how good they are."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlglot import exp

from braidwater.aggregates import Aggregate, Iteration, Moments
from braidwater.aggregates.nearest_centers import NearestCenters
from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array
from braidwater.encoding import Encoding
from braidwater.engines import default_engine
from braidwater.errors import DataError, OptionError, UnsupportedError
from braidwater.estimators.k_means import Lloyd
from braidwater.kernels import choose_kernel
from braidwater.sql.functions.distances import ClusterCosts, Costs, distance_name
from braidwater.sql.place import Place
from braidwater.sql.registry import Expression, Source, Vectors, function
from braidwater.sql.rows import Features, check_columns, training_rows

RESULT = ("centroids", "cluster_variance", "objective_fn", "frac_reassigned", "num_iterations")
SEED = 0


@function(columns=RESULT)
def kmeanspp(
    place: Place,
    rel_source: Source,
    expr_point: Expression,
    k: int,
    fn_dist: str = "squared_dist_norm2",
    agg_centroid: str = "avg",
    max_num_iterations: int = 20,
    min_frac_reassigned: float = 0.001,
    seeding_sample_ratio: float = 1.0,
) -> dict[str, Any]:
    """k-means, seeded by k-means|| (the parallel k-means++ of Bahmani et al. 2012).

    rel_source: the table of the points.
    expr_point: a column of arrays, or ARRAY[x, y, ...]; rows with NULL, NaN or an infinity in them are left out.
    k: how many clusters.
    fn_dist: squared_dist_norm2 or dist_norm2.
    agg_centroid: avg.
    max_num_iterations: most iterations.
    min_frac_reassigned: the iteration ends when no larger share of the points has changed its cluster.
    seeding_sample_ratio: taken as it is in MADlib; seeding makes five passes whatever it is.
    """
    return _cluster(
        place, rel_source, expr_point, k, "k-means||", fn_dist, agg_centroid, max_num_iterations, min_frac_reassigned
    )


@function(columns=RESULT)
def kmeans_random(
    place: Place,
    rel_source: Source,
    expr_point: Expression,
    k: int,
    fn_dist: str = "squared_dist_norm2",
    agg_centroid: str = "avg",
    max_num_iterations: int = 20,
    min_frac_reassigned: float = 0.001,
) -> dict[str, Any]:
    """k-means, seeded by random points.

    rel_source: the table of the points.
    expr_point: a column of arrays, or ARRAY[x, y, ...]; rows with NULL, NaN or an infinity in them are left out.
    k: how many clusters.
    fn_dist: squared_dist_norm2 or dist_norm2.
    agg_centroid: avg.
    max_num_iterations: most iterations.
    min_frac_reassigned: the iteration ends when no larger share of the points has changed its cluster.
    """
    return _cluster(
        place, rel_source, expr_point, k, "random", fn_dist, agg_centroid, max_num_iterations, min_frac_reassigned
    )


@function(columns=RESULT)
def kmeans(
    place: Place,
    rel_source: Source,
    expr_point: Expression,
    initial_centroids: Vectors,
    fn_dist: str = "squared_dist_norm2",
    agg_centroid: str = "avg",
    max_num_iterations: int = 20,
    min_frac_reassigned: float = 0.001,
) -> dict[str, Any]:
    """k-means from given centroids.

    rel_source: the table of the points.
    expr_point: a column of arrays, or ARRAY[x, y, ...]; rows with NULL, NaN or an infinity in them are left out.
    initial_centroids: an array of arrays, the centroids to begin with.
    fn_dist: squared_dist_norm2 or dist_norm2.
    agg_centroid: avg.
    max_num_iterations: most iterations.
    min_frac_reassigned: the iteration ends when no larger share of the points has changed its cluster.
    """
    return _cluster(
        place, rel_source, expr_point, len(initial_centroids), np.array(initial_centroids), fn_dist, agg_centroid,
        max_num_iterations, min_frac_reassigned,
    )  # fmt: skip


@function(columns=RESULT, name="kmeans")
def kmeans_from_table(
    place: Place,
    rel_source: Source,
    expr_point: Expression,
    rel_initial_centroids: Source,
    expr_centroid: Expression,
    fn_dist: str = "squared_dist_norm2",
    agg_centroid: str = "avg",
    max_num_iterations: int = 20,
    min_frac_reassigned: float = 0.001,
) -> dict[str, Any]:
    """k-means from the centroids in a table.

    rel_source: the table of the points.
    expr_point: a column of arrays, or ARRAY[x, y, ...]; rows with NULL, NaN or an infinity in them are left out.
    rel_initial_centroids: the table of the centroids to begin with.
    expr_centroid: its column of arrays, or ARRAY[x, y, ...].
    fn_dist: squared_dist_norm2 or dist_norm2.
    agg_centroid: avg.
    max_num_iterations: most iterations.
    min_frac_reassigned: the iteration ends when no larger share of the points has changed its cluster.
    """
    value = check_columns(place, expr_centroid, rel_initial_centroids)
    as_array = exp.cast(exp.paren(value), place.sql_type("float8[]"))
    rows = place.select(exp.select(as_array.as_("c")).from_(rel_initial_centroids.table)).column("c").to_pylist()
    if not rows or any(row is None or None in row or len(row) != len(rows[0]) for row in rows):
        raise DataError(
            f"Table {rel_initial_centroids.text} must hold centroids, all with as many numbers and without NULLs."
        )
    return _cluster(
        place, rel_source, expr_point, len(rows), np.array(rows), fn_dist, agg_centroid, max_num_iterations,
        min_frac_reassigned,
    )  # fmt: skip


@function()
def simple_silhouette(
    place: Place,
    rel_source: Source,
    expr_point: Expression,
    centroids: Vectors,
    fn_dist: str = "squared_dist_norm2",
) -> float:
    """The mean over all points of (b - a) / b: a and b are the distances to the nearest and the second nearest centroid.

    rel_source: the table of the points.
    expr_point: a column of arrays, or ARRAY[x, y, ...]; rows with NULL, NaN or an infinity in them are left out.
    centroids: an array of arrays.
    fn_dist: the distance: squared_dist_norm2, dist_norm2, dist_norm1, dist_angle or dist_tanimoto.
    """
    if len(centroids) < 2:
        raise OptionError(
            "centroids", f"{len(centroids)} centroid", "at least 2: a silhouette compares with the second nearest"
        )
    distance = distance_name("fn_dist", fn_dist)
    with _points(place, rel_source, expr_point) as source:
        found = _costs(place, source, np.array(centroids), distance, silhouettes=True)
    return found.silhouette / float(found.rows.sum())


@dataclass(frozen=True)
class LloydByShare(Lloyd):
    """Lloyd's algorithm that ends when at most `share` of the rows have changed their cluster in an iteration, as MADlib's does.

    A cluster without rows keeps its centroid. It keeps the number of the cluster of every row, 4 bytes each.
    """

    share: float = 0.001

    def passes(self) -> Generator[Aggregate[Any, Any], Any, tuple[Array, float, int]]:  # type: ignore[override]
        moments = yield Moments(self.design, kernel=self.kernel)
        if moments.rows < self.k:
            raise DataError(f"There are {moments.rows} points, fewer than the {self.k} clusters.")
        mean, spread = moments.mean, np.sqrt(moments.variance)
        safe = np.where(spread > 0, spread, 1.0)
        centroids = yield from self._seeds(mean, safe)
        before, changed, number = None, 1.0, 0
        while number < self.max_steps and changed > self.share:
            found = yield NearestCenters(self.design, centroids, mean, safe, kernel=self.kernel, labelled=True)
            number += 1
            centroids, _ = self._means(found, centroids, mean)
            changed = 1.0 if before is None else float(np.mean(found.labels[0] != before))
            before = found.labels[0]
        return centroids[0], changed, number


def _cluster(
    place: Place,
    source: Source,
    point: Expression,
    k: int,
    init: str | Array,
    fn_dist: str,
    agg_centroid: str,
    max_iterations: int,
    share: float,
) -> dict[str, Any]:
    distance = distance_name("fn_dist", fn_dist)
    if distance not in ("squared_dist_norm2", "dist_norm2"):
        raise UnsupportedError(
            f"fn_dist={fn_dist!r} is not supported by k-means yet; use squared_dist_norm2 or dist_norm2."
        )
    if agg_centroid.strip().removeprefix("madlib.").lower() != "avg":
        raise UnsupportedError(f"agg_centroid={agg_centroid!r} is not supported yet; use avg.")
    if k < 1 or max_iterations < 1:
        raise OptionError("k, max_num_iterations", (k, max_iterations), "at least 1 each")
    if not 0 <= share <= 1:
        raise OptionError("min_frac_reassigned", share, "from 0 to 1")
    with _points(place, source, point) as points:
        assert points.encoder is not None
        design = points.encoder.design  # type: ignore[attr-defined]
        if isinstance(init, np.ndarray) and init.shape[1] != design.width:
            raise OptionError(
                "initial_centroids", f"centroids of {init.shape[1]} numbers", f"as long as the points, {design.width}"
            )
        kernel = choose_kernel(len(points.table), "auto")
        lloyd = LloydByShare(design, k, init, 1, 0.0, max_iterations, SEED, kernel, share=share)
        engine = place.engine or default_engine()
        found: Any = engine.iterate(points, lloyd)
        centroids, changed, number = found
        costs = _costs(place, points, centroids, distance, silhouettes=False)
    return {
        "centroids": centroids.tolist(),
        "cluster_variance": costs.distance.tolist(),
        "objective_fn": float(costs.distance.sum()),
        "frac_reassigned": changed,
        "num_iterations": number,
    }


def _points(place: Place, source: Source, point: Expression) -> BlockSource:
    rows = training_rows(place, source, Features.of(point, constant=False), finite=True)
    return BlockSource(rows.table, Encoding(features=list(rows.features)).fit(rows.table), passes=10)


def _costs(place: Place, points: BlockSource, centroids: Array, distance: str, *, silhouettes: bool) -> Costs:
    design = points.encoder.design  # type: ignore[union-attr]
    if centroids.shape[1] != design.width:
        raise OptionError(
            "centroids", f"centroids of {centroids.shape[1]} numbers", f"as long as the points, {design.width}"
        )
    engine = place.engine or default_engine()
    costs: Costs = engine.iterate(points, OnePass(ClusterCosts(design, centroids, distance, silhouettes=silhouettes)))
    return costs


@dataclass(frozen=True)
class OnePass(Iteration[Costs]):
    """A single aggregate, over the blocks that are kept."""

    aggregate: ClusterCosts

    def passes(self) -> Generator[Aggregate[Any, Any], Any, Costs]:
        costs: Costs = yield self.aggregate
        return costs
