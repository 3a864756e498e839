"""Linear regression by least squares."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
import pyarrow as pa
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from braidwater.aggregates import Aggregate, Gram, GramResult, Iteration
from braidwater.aggregates.moments import is_constant
from braidwater.aggregates.robust_products import RobustKind, RobustProducts
from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array
from braidwater.encoding.design import CodeTerm, Design
from braidwater.encoding.encoding import Features, FittedEncoding
from braidwater.engines import Engine, default_engine
from braidwater.errors import EmptyTableError, NumericalError, OptionError, RankDeficientWarning
from braidwater.estimators.base import TableEstimator, Target, Training, is_tabular
from braidwater.estimators.coefficient_table import CoefficientTable
from braidwater.estimators.logistic_problem import Coordinates, origin_of
from braidwater.kernels import choose_kernel
from braidwater.kernels.choice import KernelName
from braidwater.metrics import NumberEvaluation
from braidwater.planner.base import Work
from braidwater.tables import Table

ERRORS = ("classical", "HC0", "HC1", "HC2", "HC3")
# Products of columns are exact to about 1e-15 of the largest: an eigenvalue below this share of it is rounding
RANK_TOLERANCE = 1e-13


@dataclass(frozen=True)
class Fit:
    """Least squares in the user's coordinates, intercept last: `weights` ``(width + 1,)``, `covariance` of them or None."""

    weights: Array
    covariance: Array | None
    rows: int
    weight: float
    rank: int
    aliased: tuple[int, ...]
    residual_squares: float
    total_squares: float
    condition: float


@dataclass(frozen=True)
class LeastSquares(Iteration[Fit]):
    """One pass for the products of columns, and a second one where `errors` asks for robust errors."""

    design: Design
    alpha: float
    fit_intercept: bool
    errors: str
    kernel: KernelName = "blas"

    def passes(self) -> Generator[Aggregate[Any, Any], Any, Fit]:
        gram: GramResult = yield Gram(self.design, kernel=self.kernel)
        if gram.weight <= 0:
            raise EmptyTableError("No row has a weight; there is nothing to learn from.")
        if not np.all(np.isfinite(gram.products)):
            raise NumericalError(
                "The products of columns are not finite: a feature or the label is so large that sums overflow. "
                "Standardise or cap the largest columns."
            )
        coordinates, free, matrix, right, mean = self._equations(gram)
        inverse, rank, missing = _pseudo_inverse(matrix)
        solved = np.zeros(gram.width + 1)
        solved[:-1][free] = inverse @ right
        solved[-1] = mean - _left(gram, coordinates) @ solved[:-1] if self.fit_intercept else 0.0
        weights = coordinates.back @ solved
        rss, tss = self._squares(gram, coordinates, solved, mean)
        covariance = None
        rank += self.fit_intercept
        aliased = np.ones(gram.width, bool)
        aliased[free] = missing
        if self.alpha == 0:
            bread = self._bread(gram, coordinates, free, inverse)
            if self.errors == "classical":
                degrees = gram.rows - rank
                solved_covariance = bread * (rss / degrees if degrees > 0 else np.nan)
            else:
                shift = _numbers_only(self.design, coordinates.center)
                raw = self._raw(coordinates, shift)
                kind = cast(RobustKind, self.errors)
                middle = yield RobustProducts(self.design, raw @ solved, raw @ bread @ raw.T, shift, kind)
                solved_covariance = self._sandwich(bread, middle, raw, gram.rows, rank)
            covariance = coordinates.back @ solved_covariance @ coordinates.back.T
            covariance[np.flatnonzero(aliased), :] = covariance[:, np.flatnonzero(aliased)] = np.nan
        return Fit(
            weights,
            covariance,
            gram.rows,
            gram.weight,
            rank,
            tuple(np.flatnonzero(aliased).tolist()) if self.alpha == 0 else (),
            rss,
            tss,
            self._condition(gram),
        )

    def _equations(self, gram: GramResult) -> tuple[Coordinates, Array, Array, Array, float]:
        """The normal equations of the columns that vary, scaled to correlations and divided by the weight."""
        width = gram.width
        mean = gram.mean[:width]
        products, cross = gram.features, gram.cross[:, 0]
        center = mean
        if not self.fit_intercept:
            center = origin_of(self.design)
            about = gram.about(center)
            products, cross = about[:width, :width], about[:width, width]
        spread = np.diag(products) / gram.weight
        free = ~is_constant(mean, spread) if self.fit_intercept else spread > 0
        scale = np.where(free, np.sqrt(np.maximum(spread, 0)), 1.0)
        coordinates = Coordinates.of(self.design, center, scale)
        kept = np.flatnonzero(free)
        size = scale[kept]
        matrix = products[np.ix_(kept, kept)] / np.outer(size, size) / gram.weight
        ridge = self.alpha * coordinates.ratio[kept] ** 2
        matrix[range(len(kept)), range(len(kept))] += ridge
        return coordinates, free, matrix, cross[kept] / size / gram.weight, float(gram.mean[width])

    def _squares(self, gram: GramResult, coordinates: Coordinates, solved: Array, mean: float) -> tuple[float, float]:
        """Residual and total sums of squares, the latter about the mean where there is an intercept."""
        width = gram.width
        products = gram.products if self.fit_intercept else gram.about(coordinates.center)
        slopes = solved[:-1] / coordinates.scale
        total = float(products[width, width])
        residual = (
            total - 2 * float(slopes @ products[:width, width]) + float(slopes @ products[:width, :width] @ slopes)
        )
        return max(residual, 0.0), total

    def _bread(self, gram: GramResult, coordinates: Coordinates, free: Array, inverse: Array) -> Array:
        """The inverse of the products of solved columns and the intercept, ``(width + 1, width + 1)``."""
        bread = np.zeros((gram.width + 1, gram.width + 1))
        kept = np.flatnonzero(free)
        bread[np.ix_(kept, kept)] = inverse / gram.weight
        if self.fit_intercept:
            bread[-1, -1] = 1 / gram.weight
        return bread

    def _raw(self, coordinates: Coordinates, shift: Array) -> Array:
        """From solved weights to those of the raw columns less `shift`."""
        raw = np.diag(np.append(1 / coordinates.scale, 1.0))
        raw[-1, :-1] = (shift - coordinates.center) / coordinates.scale
        return raw

    def _sandwich(self, bread: Array, middle: Array, raw: Array, rows: int, rank: int) -> Array:
        turned = raw.T @ middle @ raw
        factor = rows / (rows - rank) if self.errors == "HC1" and rows > rank else 1.0
        covariance: Array = bread @ turned @ bread * factor
        return covariance

    def _condition(self, gram: GramResult) -> float:
        """The condition number of the user's columns, the intercept among them."""
        width = gram.width
        coordinates = Coordinates.of(self.design, np.zeros(width), np.ones(width))
        shifted = (gram.mean[:width] - coordinates.user_center) / coordinates.user_scale
        products = gram.features / np.outer(coordinates.user_scale, coordinates.user_scale)
        full = np.empty((width + 1, width + 1))
        full[:-1, :-1] = products + gram.weight * np.outer(shifted, shifted)
        full[-1, :-1] = full[:-1, -1] = gram.weight * shifted
        full[-1, -1] = gram.weight
        values = np.linalg.eigvalsh(full if self.fit_intercept else full[:-1, :-1])
        return float(np.sqrt(values[-1] / values[0])) if values[0] > 0 else np.inf


class LinearRegression(RegressorMixin, TableEstimator):  # type: ignore[misc]
    """A number as a linear function of the features.

    Minimises ``sum(w (y - x'b - a)^2) / (2 sum(w)) + alpha |b|^2 / 2`` with row weights w; ``alpha`` is ``alpha /
    rows`` of scikit-learn's Ridge, and 0, the default, is least squares with standard errors. One pass over the rows
    (products of columns), and a second one for robust errors; memory for the columns squared.

    Args:
        alpha: strength of the ridge penalty on the coefficients (never on the intercept), at least 0.
        errors: ``"classical"``, or ``"HC0"`` to ``"HC3"``, which hold where the spread of the residuals varies, for a
            second pass.
        fit_intercept: whether there is an intercept.
        nulls: what to do about NULLs in a table, see `Encoding`.
        coding: ``"treatment"`` leaves out each category's first level, ``"one_hot"`` keeps all.
        kernel: ``"auto"``, ``"fused"`` or ``"blas"``: compiled or numpy inner loops; the same result to rounding.

    Attributes:
        coef_: ``(width,)``; intercept_: a number.
        standard_errors_: ``(width,)``; None with a penalty. Row weights are inverse variances (weighted least squares).
        r2_, adjusted_r2_, residual_variance_, degrees_of_freedom_, condition_number_, rank_.

    >>> import numpy as np
    >>> model = LinearRegression().fit(np.array([[1.0], [2.0], [3.0], [4.0]]), [2.0, 4.0, 5.0, 8.0])
    >>> model.coef_.round(3), round(model.intercept_, 3), model.standard_errors_.round(3)
    (array([1.9]), -0.0, array([0.265]))
    """

    target: ClassVar[Target] = "number"
    kind = "linear_regression"

    def __init__(
        self,
        alpha: float = 0.0,
        *,
        errors: str = "classical",
        fit_intercept: bool = True,
        nulls: str | float = "refuse",
        coding: str = "treatment",
        kernel: str = "auto",
    ) -> None:
        self.alpha = alpha
        self.errors = errors
        self.fit_intercept = fit_intercept
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
        offset: Any = None,
        engine: Engine | None = None,
    ) -> Self:
        """Train on arrays X ``(rows, width)`` and y, or on a table X with its column `label`."""
        if not np.isfinite(self.alpha) or self.alpha < 0:
            raise OptionError("alpha", self.alpha, "a finite number of at least 0")
        if self.errors not in ERRORS:
            raise OptionError("errors", self.errors, f"one of {', '.join(ERRORS)}")
        if offset is not None:
            raise OptionError("offset", offset, "None: take the offset off the label of a linear regression")
        training = self._open(
            X,
            y,
            features=features,
            label=label,
            exclude=exclude,
            sample_weight=sample_weight,
            offset=None,
            engine=engine,
        )
        kernel = choose_kernel(training.rows, self.kernel)
        squares = LeastSquares(training.design, float(self.alpha), self.fit_intercept, self.errors, kernel)
        passes = 1 if self.errors == "classical" or self.alpha else 2
        self._take(training, self._run(training, squares, passes=passes))
        return self

    def predict(self, X: Any, *, engine: Engine | None = None) -> Any:
        """Predictions ``(rows,)`` for an array; for a table X all its columns and ``prediction``, computed while it is read."""
        check_is_fitted(self)
        if not is_tabular(X):
            return self._predict(self._features_of(X))
        return self._map(X, self._columns, [pa.field("prediction", pa.float64())], engine)

    def evaluate(
        self, X: Any, *, label: str | None = None, sample_weight: str | None = None, engine: Engine | None = None
    ) -> dict[str, Any]:
        """R², root mean squared and mean absolute error on a table; one pass, nothing held."""
        rows, encoding = self._with_label(X, label, sample_weight)
        with BlockSource(rows, encoding) as source:
            return (engine or default_engine()).aggregate(source, NumberEvaluation(encoding.design, self._predict))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """R² on arrays X and y, or on a table."""
        if is_tabular(X):
            return float(self.evaluate(X, label=y, sample_weight=sample_weight)["r2"])
        return float(super().score(X, y, sample_weight))

    @property
    def coefficients_(self) -> CoefficientTable:
        """Coefficients (intercept first), standard errors, t and p."""
        check_is_fitted(self)
        names = [*(["intercept"] if self.fit_intercept else []), *map(str, self.feature_names_)]
        estimates = np.append(self.intercept_, self.coef_)
        errors = np.full(len(estimates), np.nan)
        if self.standard_errors_ is not None:
            errors = np.append(self.intercept_standard_error_, self.standard_errors_)
        begin = 0 if self.fit_intercept else 1
        # as statsmodels does: robust errors are right for many rows only, so they go with z
        degrees = float(self.degrees_of_freedom_) if self.errors == "classical" else None
        return CoefficientTable(tuple(names), estimates[begin:], errors[begin:], degrees)

    def summary(self) -> str:
        """The fit as a text: R², and a line for each coefficient."""
        head = [
            ("rows", self.n_rows_),
            ("R²", self.r2_),
            ("adjusted R²", self.adjusted_r2_),
            ("residual sd", float(np.sqrt(self.residual_variance_))),
            ("degrees of freedom", self.degrees_of_freedom_),
            ("condition number", self.condition_number_),
            ("errors", self.errors if self.standard_errors_ is not None else "none (penalised)"),
        ]
        return self.coefficients_.to_text(head)

    def work(self, table: Table, encoding: FittedEncoding) -> Work:
        """One pass for all products of columns, a second one for robust errors."""
        width = encoding.design.width + 2
        return Work(
            name=self.kind,
            shape="aggregate",
            passes=1 if self.errors == "classical" or self.alpha else 2,
            flops_per_row=float(width**2),
            row_bytes=encoding.block_schema.row_bytes,
            kernel=choose_kernel(table.statistics([]).rows, self.kernel),
            read_columns=tuple(encoding.columns),
            state_bytes=8 * width**2,
            working_bytes=3 * 8 * 4096 * width,
        )

    def _take(self, training: Training, found: Fit) -> None:
        self.coef_, self.intercept_ = found.weights[:-1], float(found.weights[-1])
        self.covariance_ = found.covariance
        self.standard_errors_: Array | None = None
        self.intercept_standard_error_: float = float("nan")
        if found.covariance is not None:
            errors = np.sqrt(np.diag(found.covariance))
            self.standard_errors_, self.intercept_standard_error_ = errors[:-1], float(errors[-1])
        self.n_rows_, self.rank_ = found.rows, int(found.rank)
        self.degrees_of_freedom_ = found.rows - int(found.rank)
        degrees = self.degrees_of_freedom_
        self.residual_variance_ = found.residual_squares / degrees if degrees > 0 else float("nan")
        total = found.total_squares
        self.r2_ = 1 - found.residual_squares / total if total > 0 else float("nan")
        free = found.rows - int(self.fit_intercept)
        self.adjusted_r2_ = 1 - (1 - self.r2_) * free / degrees if degrees > 0 else float("nan")
        self.condition_number_ = found.condition
        if found.aliased:
            columns = ", ".join(str(self.feature_names_[j]) for j in found.aliased)
            warnings.warn(
                f"Columns {columns} are constant or sums of each other: their coefficients cannot be told apart. The smallest "
                "ones are given, without standard errors. Leave one out, or set alpha > 0.",
                RankDeficientWarning,
                stacklevel=3,
            )

    def _predict(self, features: Array) -> Array:
        return np.asarray(features @ self.coef_ + self.intercept_)

    def _columns(self, features: Array) -> dict[str, pa.Array]:
        return {"prediction": pa.array(self._predict(features).astype(np.float64))}


def _left(gram: GramResult, coordinates: Coordinates) -> Array:
    """Means of the solved columns: 0 where they are centred."""
    left: Array = (gram.mean[: gram.width] - coordinates.center) / coordinates.scale
    return left


def _numbers_only(design: Design, center: Array) -> Array:
    """The centre of every column but the one-hot ones, which stay 0 and 1."""
    shift = center.copy()
    for term in design.terms:
        if isinstance(term, CodeTerm):
            shift[term.begin : term.begin + term.width] = 0
    return shift


def _pseudo_inverse(matrix: Array) -> tuple[Array, int, Array]:
    """Inverse on the range of a matrix of correlations, its rank, and which columns have a part outside of the range."""
    if not len(matrix):
        return matrix, 0, np.zeros(0, bool)
    values, vectors = np.linalg.eigh(matrix)
    kept = values > RANK_TOLERANCE * values[-1]
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    outside = np.abs(vectors[:, ~kept]).max(axis=1, initial=0.0) > 1e-5
    return inverse, int(kept.sum()), outside
