"""Principal component analysis."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from braidwater.aggregates import Aggregate, Gram, GramResult, Iteration, Moments
from braidwater.aggregates.projected_products import ProjectedProducts
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.encoding.encoding import Features, FittedEncoding
from braidwater.engines import Engine
from braidwater.errors import DataError, OptionError
from braidwater.estimators.base import TableEstimator, Target, Training, is_tabular
from braidwater.estimators.logistic_problem import Coordinates
from braidwater.kernels import choose_kernel
from braidwater.kernels.choice import KernelName
from braidwater.planner.base import Work
from braidwater.tables import Table

SOLVERS = ("auto", "covariance", "randomized")
# All products of so many columns take 8 MB a state and 1000 times the arithmetic of one column; from here on directions
# pay
WIDE = 1000
OVERSAMPLING = 10
POWER_PASSES = 5


@dataclass(frozen=True)
class Spectrum:
    """Mean ``(width,)``, directions ``(found, width)`` in rows, variances along them ``(found,)`` and in all, rows."""

    mean: Array
    directions: Array
    variances: Array
    total: float
    rows: int


@dataclass(frozen=True)
class Directions(Iteration[Spectrum]):
    """The directions of the largest variances: all of them from one pass, or `count` from a few over wide tables.

    The randomised way is subspace iteration on X'X (Halko, Martinsson and Tropp 2011, algorithm 4.4) with ten more
    directions than asked for, one pass a power.
    """

    design: Design
    count: int
    randomized: bool
    power_passes: int
    seed: int
    kernel: KernelName = "blas"

    def passes(self) -> Generator[Aggregate[Any, Any], Any, Spectrum]:
        width = self.design.width
        if not self.randomized:
            gram: GramResult = yield Gram(self.design, kernel=self.kernel)
            coordinates = Coordinates.of(self.design, np.zeros(width), np.ones(width))
            size = coordinates.user_scale
            mean = (gram.mean[:width] - coordinates.user_center) / size
            covariance = gram.features / np.outer(size, size) / max(gram.rows - 1, 1)
            values, vectors = np.linalg.eigh(covariance)
            return Spectrum(mean, vectors.T[::-1], np.maximum(values[::-1], 0), float(np.trace(covariance)), gram.rows)
        moments = yield Moments(self.design)
        coordinates = Coordinates.of(self.design, np.zeros(width), np.ones(width))
        size = coordinates.user_scale
        mean = (moments.mean - coordinates.user_center) / size
        freedom = max(moments.rows - 1, 1)
        total = float(np.sum(moments.variance / size**2) * moments.weight / freedom)
        design = self.design.standardised(moments.mean, size)
        random = np.random.default_rng(self.seed)
        start = random.standard_normal((width, min(self.count + OVERSAMPLING, width, moments.rows)))
        basis = np.linalg.qr(start)[0]
        for _ in range(self.power_passes):
            products = yield ProjectedProducts(design, basis)
            basis = np.linalg.qr(products)[0]
        products = yield ProjectedProducts(design, basis)
        inner = basis.T @ products
        values, vectors = np.linalg.eigh((inner + inner.T) / 2 / freedom)
        directions = (basis @ vectors[:, ::-1]).T
        return Spectrum(mean, directions, np.maximum(values[::-1], 0), total, moments.rows)


class PCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, TableEstimator):  # type: ignore[misc]
    """Directions along which the rows vary most.

    Args:
        n_components: how many; a share of the variance between 0 and 1 that they must explain; or None for all.
        solver: ``"covariance"`` (exact, one pass, memory for the columns squared), ``"randomized"`` (`power_passes` + 2
            passes, memory for the columns times the components, for an integer `n_components`), or ``"auto"``:
            randomised above 1000 columns when fewer than a fifth of them are asked for.
        whiten: whether `transform` divides each component by its standard deviation.
        power_passes: of the randomised solver; each makes small gaps between variances wider.
        random_state: seed of the randomised solver.
        nulls, coding: see `Encoding`; categories are one-hot columns.
        kernel: ``"auto"``, ``"fused"`` or ``"blas"``: compiled or numpy inner loops; the same result to rounding.

    Attributes:
        components_: ``(n_components_, width)``, signs such that each one's largest entry is positive (as
            scikit-learn's).
        explained_variance_, explained_variance_ratio_, singular_values_: ``(n_components_,)``; mean_: ``(width,)``;
        noise_variance_: mean variance of what is left out.

    >>> import numpy as np
    >>> PCA(1).fit(np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])).components_.round(4)
    array([[0.4472, 0.8944]])
    """

    target: ClassVar[Target] = "none"
    kind = "pca"

    def __init__(
        self,
        n_components: int | float | None = None,
        *,
        solver: str = "auto",
        whiten: bool = False,
        power_passes: int = POWER_PASSES,
        random_state: Any = 0,
        nulls: str | float = "refuse",
        coding: str = "one_hot",
        kernel: str = "auto",
    ) -> None:
        self.n_components = n_components
        self.solver = solver
        self.whiten = whiten
        self.power_passes = power_passes
        self.random_state = random_state
        self.nulls = nulls
        self.coding = coding
        self.kernel = kernel

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        features: Features = None,
        label: str | None = None,
        exclude: Sequence[str] = (),
        engine: Engine | None = None,
    ) -> Self:
        """Find the components of an array X ``(rows, width)`` or of a table; y is ignored, as is the column `label`."""
        training = self._open(
            X, None, features=features, label=label, exclude=exclude, sample_weight=None, offset=None, engine=engine
        )
        width = training.design.width
        randomized = self._is_randomized(width)
        seed = int(check_random_state(self.random_state).randint(2**31))
        count = int(self.n_components or width)
        kernel = choose_kernel(training.rows, self.kernel)
        directions = Directions(training.design, count, randomized, int(self.power_passes), seed, kernel)
        passes = 1 if not randomized else self.power_passes + 2
        self._take(training, self._run(training, directions, passes=passes))
        return self

    def transform(self, X: Any, *, engine: Engine | None = None) -> Any:
        """Coordinates along the components: ``(rows, n_components_)`` for an array; for a table its columns and ``pca0``, ..."""
        check_is_fitted(self)
        if not is_tabular(X):
            return self._project(self._features_of(X))
        fields = [pa.field(name, pa.float64()) for name in self.get_feature_names_out()]
        return self._map(X, self._columns, fields, engine)

    def inverse_transform(self, X: Any) -> Array:
        """Rows ``(rows, width)`` from their coordinates ``(rows, n_components_)``."""
        check_is_fitted(self)
        coordinates = np.asarray(X)
        if self.whiten:
            coordinates = coordinates * np.sqrt(self.explained_variance_)
        return np.asarray(coordinates @ self.components_ + self.mean_)

    def work(self, table: Table, encoding: FittedEncoding) -> Work:
        """One pass for all products of columns, or some of products with a few directions."""
        width = encoding.design.width
        randomized = self._is_randomized(width)
        kept = min(int(self.n_components or width) + OVERSAMPLING, width)
        return Work(
            name=self.kind,
            shape="aggregate",
            passes=self.power_passes + 2 if randomized else 1,
            flops_per_row=float(4 * width * kept if randomized else width**2),
            row_bytes=encoding.block_schema.row_bytes,
            kernel=choose_kernel(table.statistics([]).rows, self.kernel),
            read_columns=tuple(encoding.columns),
            state_bytes=8 * width * (kept if randomized else width),
            working_bytes=3 * 8 * 4096 * width,
        )

    def _is_randomized(self, width: int) -> bool:
        if self.solver not in SOLVERS:
            raise OptionError("solver", self.solver, f"one of {', '.join(SOLVERS)}")
        n = self.n_components
        is_count = isinstance(n, (int, np.integer)) and not isinstance(n, bool)
        if n is not None and not (is_count and n >= 1) and not (isinstance(n, (float, np.floating)) and 0 < n < 1):
            raise OptionError("n_components", n, "a number of components, a share between 0 and 1, or None")
        if self.power_passes < 0:
            raise OptionError("power_passes", self.power_passes, "at least 0")
        if self.solver == "randomized" and not is_count:
            raise OptionError("n_components", n, "a number of components for the randomised solver")
        return self.solver == "randomized" or (
            self.solver == "auto" and width > WIDE and is_count and int(n or 0) < width / 5
        )

    def _take(self, training: Training, found: Spectrum) -> None:
        width = training.design.width
        if found.rows < 2:
            raise DataError(f"PCA needs at least 2 rows; there are n_samples={found.rows}.")
        most = min(found.rows, width)
        wanted = self.n_components
        if isinstance(wanted, (float, np.floating)):
            share = np.cumsum(found.variances[:most]) / found.total if found.total else np.ones(most)
            n = min(int(np.searchsorted(share, wanted, side="right")) + 1, most)
        else:
            n = most if wanted is None else int(wanted)
        if n > most:
            raise OptionError("n_components", n, f"at most {most}, the smaller of rows and columns")
        components = found.directions[:n]
        largest = np.argmax(np.abs(components), axis=1)
        signs = np.sign(components[range(n), largest])
        self.components_ = components * np.where(signs == 0, 1, signs)[:, None]
        self.explained_variance_ = found.variances[:n]
        self.explained_variance_ratio_ = self.explained_variance_ / found.total if found.total else np.zeros(n)
        self.singular_values_ = np.sqrt(self.explained_variance_ * (found.rows - 1))
        self.noise_variance_ = (
            float(max(found.total - self.explained_variance_.sum(), 0) / (most - n)) if n < most else 0.0
        )
        self.mean_, self.n_components_, self.n_rows_ = found.mean, n, found.rows

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def _project(self, features: Array) -> Array:
        coordinates = (features - self.mean_) @ self.components_.T
        if self.whiten:
            # a direction without variance has nothing to divide by
            coordinates = coordinates / np.maximum(np.sqrt(self.explained_variance_), np.finfo(np.float64).eps)
        return np.asarray(coordinates)

    def _columns(self, features: Array) -> dict[str, pa.Array]:
        coordinates = self._project(features)
        names = self.get_feature_names_out()
        return {name: pa.array(np.ascontiguousarray(coordinates[:, j])) for j, name in enumerate(names)}
