"""k-means clustering."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from braidwater.aggregates import Aggregate, Iteration, Moments
from braidwater.aggregates.linear_map import FAR
from braidwater.aggregates.nearest_centers import (
    CentersState,
    DrawnRows,
    DrawnState,
    NearestCenters,
    center_scores,
    lowest,
    squared_distances,
)
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.encoding.encoding import Features, FittedEncoding
from braidwater.engines import Engine
from braidwater.errors import ConvergenceWarning, DataError, OptionError
from braidwater.estimators.base import TableEstimator, Target, Training, is_tabular
from braidwater.events import Metric, emit
from braidwater.kernels import choose_kernel
from braidwater.kernels.choice import KernelName
from braidwater.planner.base import Work
from braidwater.tables import Table

ROUNDS = 3  # of k-means||; Bahmani et al. find no gain after five, and Spark stops after two
OVERSAMPLING = 2  # rows drawn a round, as a multiple of k


@dataclass(frozen=True)
class Clustering:
    """What k-means found: `centers` ``(k, width)`` in the user's coordinates, the sum of squared distances, passes made.

    `labels` are the clusters of the rows, where they were asked for.
    """

    centers: Array
    inertia: float
    steps: int
    passes: int
    converged: bool
    rows: int
    labels: Array | None = None


@dataclass(frozen=True)
class Lloyd(Iteration[Clustering]):
    """Seeding and Lloyd's algorithm for several runs in lockstep, one pass serving all of them; the best run wins."""

    design: Design
    k: int
    init: str | Array
    runs: int
    tolerance: float
    max_steps: int
    seed: int
    kernel: KernelName = "blas"
    labelled: bool = False

    def passes(self) -> Generator[Aggregate[Any, Any], Any, Clustering]:
        moments = yield Moments(self.design, kernel=self.kernel)
        if moments.rows < self.k:
            raise DataError(
                f"n_samples={moments.rows} should be >= n_clusters={self.k}: there are fewer rows than clusters."
            )
        mean, spread = moments.mean, np.sqrt(moments.variance)
        if self.design.center is not None and self.design.scale is not None:
            mean, spread = (mean - self.design.center) / self.design.scale, spread / self.design.scale
        safe = np.where(spread > 0, spread, 1.0)
        total = float(moments.weight * np.sum(spread**2))
        centers = yield from self._seeds(mean, safe)
        passes = 1 if isinstance(self.init, np.ndarray) else 2 if self.init == "random" else ROUNDS + 3
        limit = self.tolerance * float(np.mean(spread**2)) if len(spread) else 0.0
        moving = list(range(self.runs))
        converged = [False] * self.runs
        inertia = [np.inf] * self.runs
        step = 0
        while moving and step < self.max_steps:
            found = yield NearestCenters(self.design, centers[moving], mean, safe, kernel=self.kernel)
            step += 1
            new, empty = self._means(found, centers[moving], mean)
            for place, run in enumerate(moving):
                inertia[run] = _inertia(found, place, centers[run] - mean, total)
            if empty.any():
                passes += int(empty.any(axis=1).sum())
                yield from self._reseed(new, empty, centers, moving)
            still = []
            for place, run in enumerate(moving):
                shift = float(np.sum((new[place] - centers[run]) ** 2))
                # a centre that found a far row has moved; one that found none stays for good, as all rows lie on
                # centres
                converged[run] = shift <= limit
                centers[run] = new[place]
                if not converged[run]:
                    still.append(run)
            moving = still
            emit(Metric(name="inertia", value=min(inertia), step=step))
        at_once = self.labelled and self.runs == 1
        found = yield NearestCenters(self.design, centers, mean, safe, kernel=self.kernel, labelled=at_once)
        inertia = [_inertia(found, run, centers[run] - mean, total) for run in range(self.runs)]
        best = int(np.argmin(inertia))
        value = inertia[best]
        passes += step + 1
        if self.labelled and not at_once:
            found = yield NearestCenters(
                self.design, centers[best : best + 1], mean, safe, kernel=self.kernel, labelled=True, with_sums=False
            )
            passes += 1
        labels = found.labels[0] if self.labelled else None
        return Clustering(centers[best], value, step, passes, converged[best], moments.rows, labels)

    def _seeds(self, mean: Array, safe: Array) -> Generator[Aggregate[Any, Any], Any, Array]:
        """The first centres ``(runs, k, width)``."""
        if isinstance(self.init, np.ndarray):
            return np.repeat(np.asarray(self.init, np.float64)[None], self.runs, axis=0)
        if self.init == "random":
            drawn: DrawnState = yield DrawnRows(self.design, None, self.k * self.runs, self.seed)
            rows = drawn.rows
            if len(rows) < self.k * self.runs:  # fewer rows than asked for: the runs share them
                rows = np.concatenate([np.roll(rows, -run, axis=0)[: self.k] for run in range(self.runs)])
            return rows.reshape(self.runs, self.k, -1)
        return (yield from self._scalable(mean, safe))

    def _scalable(self, mean: Array, safe: Array) -> Generator[Aggregate[Any, Any], Any, Array]:
        """k-means|| (Bahmani et al. 2012): a few rounds draw far rows by the dozen, k-means++ picks among those.

        One set of candidates serves all runs, each of which picks from it with its own luck.
        """
        from sklearn.cluster import KMeans as InMemory

        near = bool(np.all(np.abs(mean) <= FAR * safe))

        def draw(centers: Array | None, count: int, seed: int) -> DrawnRows:
            return DrawnRows(self.design, centers, count, seed, near=near, kernel=self.kernel)

        first: DrawnState = yield draw(None, 1, self.seed)
        candidates = first.rows
        for number in range(ROUNDS):
            drawn: DrawnState = yield draw(candidates, OVERSAMPLING * self.k, self.seed + number + 1)
            candidates = np.concatenate([candidates, drawn.rows])
        counts: CentersState = yield NearestCenters(
            self.design, candidates[None], mean, safe, kernel=self.kernel, with_sums=False
        )
        if len(candidates) < self.k:  # fewer different rows than clusters
            rows = np.concatenate([candidates, np.repeat(candidates[:1], self.k - len(candidates), axis=0)])
            return np.repeat(rows[None], self.runs, axis=0)
        seeds = []
        for run in range(self.runs):
            # on a few dozen rows several starts cost nothing
            chosen = InMemory(self.k, n_init=5, random_state=(self.seed + run) % 2**32)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # fewer different candidates than clusters is dealt with later
                chosen.fit(candidates, sample_weight=np.maximum(counts.weight[0], 1e-300))
            seeds.append(chosen.cluster_centers_)
        return np.stack(seeds)

    def _means(self, found: CentersState, old: Array, mean: Array) -> tuple[Array, Array]:
        """The means of the rows of each centre, and which centres have none; those stay where they are."""
        empty = found.weight <= 0
        safe = np.where(empty, 1.0, found.weight)
        new = found.sums / safe[..., None] + mean
        new[empty] = old[empty]
        return new, empty

    def _reseed(
        self, new: Array, empty: Array, centers: Array, moving: list[int]
    ) -> Generator[Aggregate[Any, Any], Any, None]:
        """Centres without rows move to the rows that are farthest from their centres."""
        for place, run in enumerate(moving):
            lost = np.flatnonzero(empty[place])
            if len(lost):
                drawn: DrawnState = yield DrawnRows(self.design, centers[run], len(lost), self.seed, farthest=True)
                new[place, lost[: len(drawn.rows)]] = drawn.rows


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, TableEstimator):  # type: ignore[misc]
    """Groups of rows around centres, by Lloyd's algorithm.

    A pass over the rows moves all centres of all runs. Seeding by k-means|| takes five passes whatever the number of
    clusters. A centre that loses all its rows moves to the row farthest from its own centre.

    Args:
        n_clusters: how many.
        init: ``"k-means||"``, ``"random"`` rows, or centres ``(n_clusters, width)``.
        n_init: runs from different seeds, all served by the same passes; the one with the least inertia wins.
        tol: a run ends when its centres move, in sum of squares, by at most this share of the mean variance of the
            columns.
        max_iter: most steps before a `ConvergenceWarning`.
        random_state: seed of the seeding; the same seed and rows give the same clusters on any number of workers.
        nulls, coding: see `Encoding`; categories are one-hot columns.
        kernel: ``"auto"``, ``"fused"`` or ``"blas"``: compiled or numpy inner loops; the same result to rounding.

    Attributes:
        cluster_centers_: ``(n_clusters, width)``; inertia_: sum of weighted squared distances to the centres.
        labels_: of the rows that were fitted, where they came as an array; n_iter_: steps; converged_.
    """

    target: ClassVar[Target] = "none"
    kind = "k_means"

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means||",
        n_init: int = 1,
        tol: float = 1e-4,
        max_iter: int = 300,
        random_state: Any = 0,
        nulls: str | float = "refuse",
        coding: str = "one_hot",
        kernel: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.nulls = nulls
        self.coding = coding
        self.kernel = kernel

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        features: Features = None,
        label: str | None = None,
        exclude: Sequence[str] = (),
        engine: Engine | None = None,
    ) -> Self:
        """Find the clusters of an array X ``(rows, width)`` or of a table; y is ignored, as is the column `label`."""
        self._check()
        training = self._open(
            X,
            None,
            features=features,
            label=label,
            exclude=exclude,
            sample_weight=sample_weight,
            offset=None,
            engine=engine,
        )
        init: Any = self.init
        if not isinstance(init, str):
            init = np.asarray(init, np.float64)
            if init.shape != (self.n_clusters, training.design.width):
                raise OptionError("init", f"array of shape {init.shape}", f"{(self.n_clusters, training.design.width)}")
        seed = int(check_random_state(self.random_state).randint(2**31))
        runs = 1 if isinstance(init, np.ndarray) else int(self.n_init)
        kernel = choose_kernel(training.rows, self.kernel)
        labelled = training.encoding is None
        lloyd = Lloyd(
            training.design, self.n_clusters, init, runs, float(self.tol), int(self.max_iter), seed, kernel, labelled
        )
        found = self._run(training, lloyd, passes=20)
        self._take(training, found)
        if training.encoding is None:
            self.labels_ = found.labels
        return self

    def fit_predict(self, X: Any, y: Any = None, **options: Any) -> Any:
        """Fit, and give the cluster of each row."""
        self.fit(X, y, **options)
        return self.labels_ if hasattr(self, "labels_") else self.predict(X)

    def predict(self, X: Any, *, engine: Engine | None = None) -> Any:
        """The cluster of each row (int32): an array for an array; for a table all its columns and ``prediction``."""
        check_is_fitted(self)
        if not is_tabular(X):
            return self._nearest(self._features_of(X))
        return self._map(X, self._columns, [pa.field("prediction", pa.int32())], engine)

    def transform(self, X: Any) -> Array:
        """Distances ``(rows, n_clusters)`` to the centres, for an array."""
        features = self._features_of(X)
        distances = np.empty((len(features), self.n_clusters), features.dtype)
        for begin in range(0, len(features), 4096):
            part = features[begin : begin + 4096]
            for j, center in enumerate(self.cluster_centers_):
                distances[begin : begin + 4096, j] = np.sqrt(np.sum((part - center) ** 2, axis=1))
        return distances

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Minus the sum of squared distances to the nearest centre, for an array."""
        features = self._features_of(X).astype(np.float64)
        distances = squared_distances(features.T, self.cluster_centers_)
        return -float(distances.sum() if sample_weight is None else distances @ np.asarray(sample_weight))

    def work(self, table: Table, encoding: FittedEncoding) -> Work:
        """Five passes of seeding and about twenty steps, of two matrix products each."""
        width = encoding.design.width
        return Work(
            name=self.kind,
            shape="aggregate",
            passes=min(20, self.max_iter) + ROUNDS + 3,
            flops_per_row=float(4 * self.n_clusters * self.n_init * width),
            row_bytes=encoding.block_schema.row_bytes,
            kernel=choose_kernel(table.statistics([]).rows, self.kernel),
            read_columns=tuple(encoding.columns),
            state_bytes=8 * self.n_clusters * self.n_init * (width + 1),
            working_bytes=8 * 4096 * (width + 2 * self.n_clusters * self.n_init),
            models=int(self.n_init),
        )

    def _check(self) -> None:
        if self.n_clusters < 1:
            raise OptionError("n_clusters", self.n_clusters, "at least 1")
        if isinstance(self.init, str) and self.init not in ("k-means||", "random"):
            raise OptionError("init", self.init, "'k-means||', 'random' or an array of centres")
        if self.n_init < 1 or self.max_iter < 1:
            raise OptionError("n_init, max_iter", (self.n_init, self.max_iter), "at least 1 each")
        if self.tol < 0:
            raise OptionError("tol", self.tol, "at least 0")

    def _take(self, training: Training, found: Clustering) -> None:
        self.cluster_centers_, self.inertia_ = found.centers, found.inertia
        self.n_iter_, self.converged_, self.n_passes_ = found.steps, found.converged, found.passes
        self.n_rows_ = found.rows
        if not found.converged:
            warnings.warn(
                f"Not converged after {found.steps} steps. Raise max_iter or tol.", ConvergenceWarning, stacklevel=3
            )

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def _nearest(self, features: Array) -> Array:
        labels = np.empty(len(features), np.int32)
        middle = self.cluster_centers_.mean(axis=0)
        for begin in range(0, len(features), 4096):
            moved = (features[begin : begin + 4096] - middle).T.astype(np.float64)
            labels[begin : begin + 4096] = lowest(
                center_scores(moved, (self.cluster_centers_ - middle)[None], np.float64)
            )
        return labels

    def _columns(self, features: Array) -> dict[str, pa.Array]:
        return {"prediction": pa.array(self._nearest(features))}


def _inertia(found: CentersState, run: int, centers: Array, total: float) -> float:
    """Sum of squared distances to `centers` (less the mean), from sums by centre and the sum of squares about the mean."""
    inner = float(np.sum(centers * found.sums[run]))
    square = float(np.sum(found.weight[run] * np.einsum("ij,ij->i", centers, centers)))
    return max(total - 2 * inner + square, 0.0)
