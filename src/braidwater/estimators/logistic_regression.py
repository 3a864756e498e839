"""Logistic regression, for two classes and for more."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array
from braidwater.encoding.encoding import Features, FittedEncoding
from braidwater.engines import Engine, default_engine
from braidwater.errors import (
    ConvergenceWarning,
    LabelError,
    OptionError,
    RankDeficientWarning,
    SeparationWarning,
    UnsupportedError,
)
from braidwater.estimators.base import TableEstimator, Target, Training, is_tabular
from braidwater.estimators.coefficient_table import CoefficientTable
from braidwater.estimators.logistic_path import LogisticPath, Solution
from braidwater.estimators.logistic_sgd import LogisticSgd, SgdSolution, refuse_unsupported
from braidwater.kernels import choose_kernel
from braidwater.metrics import ClassEvaluation
from braidwater.planner.base import Work
from braidwater.tables import Table

SOLVERS = ("auto", "newton", "lbfgs", "cg", "sgd")
PRECISIONS = ("auto", "double", "fast")
# Below so many products in a Newton pass (rows times squared weights) the whole fit takes a moment, and Newton needs
# the fewest passes
NEWTON_UP_TO = 2e7


class LogisticRegression(ClassifierMixin, TableEstimator):  # type: ignore[misc]
    """The probability of a class as a logistic function of the features.

    Minimises ``sum(w loss) / sum(w) + alpha ((1 - l1_ratio) / 2 |b|^2 + l1_ratio |b|_1)``: the mean log-loss, weighted
    by the row weights w, and a penalty on the coefficients b but not on the intercept. ``alpha`` is ``1 / (C rows)`` of
    scikit-learn and ``lambda`` of glmnet and H2O; 0, the default, is maximum likelihood, and gives standard errors.
    With more than two classes the model is multinomial with coefficients for every class, whose sum is 0.

    Args:
        alpha: strength of the penalty, at least 0.
        l1_ratio: share of the penalty that is absolute values: 0 ridge, 1 lasso, between them elastic net.
        solver: ``"newton"`` (iteratively reweighted least squares), ``"lbfgs"``, ``"cg"`` (nonlinear conjugate
            gradient) or ``"auto"``. With absolute values in the penalty all of them mean proximal Newton. ``"sgd"`` is one
            pass of averaged stochastic gradient descent (see `AveragedSgd`) over rows in no particular order: close to the
            optimum, without standard errors and likelihood, two classes, ridge penalty only.
        tol: training stops when no derivative of the objective by a coefficient of a standardised column is larger.
        max_iter: most passes over the rows before a `ConvergenceWarning`.
        epochs: passes of solver ``"sgd"``.
        fit_intercept: whether there is an intercept.
        standardize: whether the penalty is on the coefficients of standardised columns.
        nulls: what to do about NULLs in a table, see `Encoding`.
        coding: ``"treatment"`` leaves out each category's first level, ``"one_hot"`` keeps all.
        kernel: ``"auto"``, ``"fused"`` or ``"blas"``: compiled or numpy inner loops; the same result to rounding.
        precision: of the arithmetic inside a tile of some thousand rows, for values and gradients: ``"auto"`` float32 for columns
            stored in float32, ``"double"`` float64, ``"fast"`` float32 for wider columns too, unless they lie far from zero.
            Tiles are added up in float64, and curvature is float64, whatever it is.

    Attributes:
        coef_: ``(1, width)`` for two classes, else ``(classes, width)``; intercept_: ``(1,)`` or ``(classes,)``.
        standard_errors_: ``(1, width)``, or ``(classes - 1, width)`` for the differences to the first class; None with
            a penalty, and after ``"sgd"``.
        log_likelihood_, deviance_, null_deviance_, aic_, bic_: row weights count as so many rows. None after ``"sgd"``, which
            never looks at its result; it has progressive_loss_, the mean log-loss of rows that were not learnt yet.
        n_iter_: passes over the rows; converged_: whether `tol` was reached.

    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]])
    >>> model = LogisticRegression().fit(X, [0, 0, 1, 0, 1, 1])
    >>> model.coef_.round(4), model.standard_errors_.round(4)
    (array([[1.214]]), array([[0.9126]]))
    """

    target: ClassVar[Target] = "class"
    kind = "logistic_regression"

    def __init__(
        self,
        alpha: float = 0.0,
        *,
        l1_ratio: float = 0.0,
        solver: str = "auto",
        tol: float = 1e-6,
        max_iter: int = 200,
        fit_intercept: bool = True,
        standardize: bool = False,
        nulls: str | float = "refuse",
        coding: str = "treatment",
        kernel: str = "auto",
        epochs: int = 1,
        precision: str = "auto",
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.nulls = nulls
        self.coding = coding
        self.kernel = kernel
        self.epochs = epochs
        self.precision = precision

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
        """Train on arrays X ``(rows, width)`` and y, or on a table X with its column `label`.

        `sample_weight` and `offset` (added to the linear predictor of two classes) are arrays, or columns of the table.
        """
        self._check([self.alpha])
        training = self._open(
            X,
            y,
            features=features,
            label=label,
            exclude=exclude,
            sample_weight=sample_weight,
            offset=offset,
            engine=engine,
        )
        solution = self._solve(training, [self.alpha])[0]
        self._take(training, solution)
        return self

    def fit_path(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        alphas: Sequence[float],
        features: Features = None,
        label: str | None = None,
        exclude: Sequence[str] = (),
        offset: Any = None,
        engine: Engine | None = None,
    ) -> list[LogisticRegression]:
        """One fitted model for each of `alphas`, all trained by the same passes over the rows.

        A pass reads the rows once and evaluates every model that is not done yet, so reading, decoding and memory
        traffic are paid once. This estimator itself is left as it is.
        """
        self._check(list(alphas))
        if self.solver == "sgd":
            raise UnsupportedError(
                "solver='sgd' has no fit_path; use solver='lbfgs', which trains all penalties in the same passes."
            )
        models: list[LogisticRegression] = [clone(self).set_params(alpha=alpha) for alpha in alphas]
        if not models:
            raise OptionError("alphas", [], "at least one penalty")
        training = models[0]._open(
            X,
            y,
            features=features,
            label=label,
            exclude=exclude,
            sample_weight=sample_weight,
            offset=offset,
            engine=engine,
        )
        for model, solution in zip(models, models[0]._solve(training, list(alphas)), strict=True):
            for name in ("n_features_in_", "feature_names_in_", "feature_names_", "encoding_"):
                if hasattr(models[0], name):
                    setattr(model, name, getattr(models[0], name))
            model._take(training, solution)
        return models

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = self.solver != "sgd"
        return tags

    def decision_function(self, X: Any) -> Array:
        """Log-odds ``(rows,)`` of the second of two classes, or linear predictors ``(rows, classes)``, without offsets."""
        return self._decide(self._features_of(X))

    def predict_proba(self, X: Any) -> Array:
        """Probabilities ``(rows, classes)`` for an array X."""
        return self._probabilities(self._features_of(X))

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of `predict_proba`."""
        return np.asarray(np.log(self.predict_proba(X)))

    def predict(self, X: Any, *, engine: Engine | None = None) -> Any:
        """The likeliest class of each row: an array for an array, a table for a table.

        The table has all columns of X, ``prediction`` and ``probability_<class>``, and is computed while it is read.
        """
        check_is_fitted(self)
        if not is_tabular(X):
            decision = self.decision_function(X)
            codes = (decision > 0).astype(np.intp) if decision.ndim == 1 else decision.argmax(axis=1)
            return self.classes_[codes]
        fields = [pa.field("prediction", pa.array(self.classes_.tolist()).type)]
        fields += [pa.field(f"probability_{name}", pa.float64()) for name in self.classes_.tolist()]
        return self._map(X, self._columns, fields, engine)

    def evaluate(
        self, X: Any, *, label: str | None = None, sample_weight: str | None = None, engine: Engine | None = None
    ) -> dict[str, Any]:
        """Accuracy, log-loss, area under the ROC curve and confusion matrix on a table; one pass, nothing held."""
        rows, encoding = self._with_label(X, label, sample_weight)
        evaluation = ClassEvaluation(encoding.design, self._probabilities, len(self.classes_))
        with BlockSource(rows, encoding) as source:
            return (engine or default_engine()).aggregate(source, evaluation)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy on arrays X and y, or on a table."""
        if is_tabular(X):
            return float(self.evaluate(X, label=y, sample_weight=sample_weight)["accuracy"])
        return float(super().score(X, y, sample_weight))

    @property
    def coefficients_(self) -> CoefficientTable:
        """Coefficients (intercept first), standard errors, z and p; for more classes differences to the first class."""
        check_is_fitted(self)
        names = [*(["intercept"] if self.fit_intercept else []), *map(str, self.feature_names_)]
        if len(self.classes_) == 2:
            estimates, labels = np.hstack([self.intercept_[:, None], self.coef_]), [""]
        else:
            full = np.hstack([self.intercept_[:, None], self.coef_])
            estimates = full[1:] - full[0]
            labels = [f"[{name}]" for name in self.classes_[1:].tolist()]
        errors = np.full(estimates.shape, np.nan)
        if self.standard_errors_ is not None:
            errors = np.hstack([self.intercept_standard_error_[:, None], self.standard_errors_])
        begin = 0 if self.fit_intercept else 1
        return CoefficientTable(
            tuple(f"{name}{suffix}" for suffix in labels for name in names),
            estimates[:, begin:].reshape(-1),
            errors[:, begin:].reshape(-1),
        )

    def summary(self) -> str:
        """The fit as a text: likelihood, and a line for each coefficient."""
        found = self.coefficients_
        if self.log_likelihood_ is None:
            head = [
                ("classes", ", ".join(map(str, self.classes_.tolist()))),
                ("rows", self.n_rows_),
                ("progressive loss", self.progressive_loss_),
                ("passes", self.n_iter_),
                ("method", "averaged SGD: near the optimum, no standard errors"),
            ]
            return found.to_text(head, odds=True)
        head = [
            ("classes", ", ".join(map(str, self.classes_.tolist()))),
            ("rows", self.n_rows_),
            ("log-likelihood", self.log_likelihood_),
            ("null log-likelihood", -self.null_deviance_ / 2),
            ("deviance", self.deviance_),
            ("AIC", self.aic_),
            ("BIC", self.bic_),
            ("passes", self.n_iter_),
            ("converged", "yes" if self.converged_ else "no"),
        ]
        return found.to_text(head, odds=True)

    def work(self, table: Table, encoding: FittedEncoding) -> Work:
        """One pass for moments, six to eight for the optimum, one for standard errors; float64 sums of a few numbers a column."""
        width = encoding.design.width + 1
        columns = 1 if len(encoding.classes or ()) <= 2 else len(encoding.classes or ())
        once = self.solver == "sgd"
        newton = self.solver == "newton" or (self.alpha > 0 and self.l1_ratio > 0)
        return Work(
            name=self.kind,
            shape="aggregate",
            passes=self.epochs if once else 7 if newton else 9,
            flops_per_row=float(2 * columns**2 * width**2 if newton else 4 * columns * width + 20 * columns),
            row_bytes=encoding.block_schema.row_bytes,
            read_columns=tuple(encoding.columns),
            state_bytes=8 * (columns * width) ** 2 if newton or once else 8 * columns * (width + 3),
            kernel="fused" if columns == 1 and choose_kernel(len(table), self.kernel) == "fused" else "blas",
            working_bytes=3 * 8 * 4096 * (width + 3 * columns),
        )

    def _check(self, alphas: Sequence[float]) -> None:
        for alpha in alphas:
            if not np.isfinite(alpha) or alpha < 0:
                raise OptionError("alpha", alpha, "a finite number of at least 0")
        if not 0 <= self.l1_ratio <= 1:
            raise OptionError("l1_ratio", self.l1_ratio, "from 0 (ridge) to 1 (lasso)")
        if self.solver not in SOLVERS:
            raise OptionError("solver", self.solver, f"one of {', '.join(SOLVERS)}")
        if not self.tol > 0:
            raise OptionError("tol", self.tol, "larger than 0")
        if self.max_iter < 2:
            raise OptionError("max_iter", self.max_iter, "at least 2: one pass for moments, one to look")
        if self.precision not in PRECISIONS:
            raise OptionError("precision", self.precision, f"one of {', '.join(PRECISIONS)}")
        if self.epochs < 1:
            raise OptionError("epochs", self.epochs, "at least 1")
        choose_kernel(None, self.kernel)

    def _solve(self, training: Training, alphas: list[float]) -> list[Solution | SgdSolution]:
        classes = training.classes
        assert classes is not None
        if len(classes) < 2:
            raise LabelError(
                f"Label {training.label or 'y'!r} has one class only, {classes[0]!r}; a classifier needs at least 2 classes."
            )
        if training.design.offset is not None and len(classes) > 2:
            raise UnsupportedError("An offset needs two classes: it is added to the log-odds of the second.")
        rows = training.rows
        weights = (training.design.width + 1) * (1 if len(classes) == 2 else len(classes))
        solver = self.solver
        if solver == "auto":
            solver = "newton" if len(alphas) == 1 and rows * weights**2 <= NEWTON_UP_TO else "lbfgs"
        l1_ratio = float(self.l1_ratio) if any(alphas) else 0.0
        precision: Any = self.precision
        if solver == "sgd":
            standardize = bool(self.standardize and any(alphas))
            refuse_unsupported(training.design.width, len(classes), l1=l1_ratio > 0, standardize=standardize)
            sgd = LogisticSgd(
                training.design,
                float(alphas[0]),
                int(self.epochs),
                self.fit_intercept,
                choose_kernel(rows, self.kernel),
                precision,
            )
            return [self._run(training, sgd, passes=sgd.epochs)]
        path = LogisticPath(
            training.design,
            len(classes),
            tuple(float(alpha) for alpha in alphas),
            l1_ratio,
            self.fit_intercept,
            solver,
            float(self.tol),
            int(self.max_iter),
            choose_kernel(rows, self.kernel),
            self.standardize,
            precision,
            rows,
        )
        solutions: list[Solution] = self._run(training, path, passes=9, models=len(alphas))
        return list(solutions)

    def _take(self, training: Training, solution: Solution | SgdSolution) -> None:
        """The fitted attributes, from a solution; and the warnings that it deserves."""
        assert training.classes is not None
        self.classes_ = training.classes
        self.coef_, self.intercept_ = solution.coef, solution.intercept
        self.n_iter_, self.n_rows_ = solution.passes, solution.rows
        self.progressive_loss_: float | None = None
        if isinstance(solution, SgdSolution):
            self._take_nearby(solution)
            return
        self.converged_ = solution.converged
        self.log_likelihood_: Any = -solution.loss
        self.deviance_: Any
        self.null_deviance_: Any
        self.deviance_, self.null_deviance_ = 2 * solution.loss, 2 * solution.null_loss
        inference, shape = solution.inference, self.coef_.shape
        rank = int(np.count_nonzero(self.coef_)) + int(self.fit_intercept) * max(shape[0] - 1, 1)
        self.standard_errors_: Array | None = None
        self.intercept_standard_error_: Any = None
        self.covariance_: Array | None = None
        if inference is not None:
            rank = inference.rank
            self.covariance_ = inference.covariance
            errors = np.sqrt(np.diag(inference.covariance)).reshape(-1, shape[1] + 1)
            self.standard_errors_, self.intercept_standard_error_ = errors[:, :-1], errors[:, -1]
        self.aic_ = self.deviance_ + 2 * rank
        self.bic_ = self.deviance_ + rank * float(np.log(solution.weight))
        self._warn(solution)

    def _take_nearby(self, solution: SgdSolution) -> None:
        """What averaged SGD knows, and None for what it does not: it has seen no row with its result."""
        self.converged_ = True
        self.progressive_loss_ = solution.loss
        null_loss = solution.null_loss
        self.null_deviance_ = None if null_loss is None else 2 * solution.weight * null_loss
        self.log_likelihood_ = self.deviance_ = self.aic_ = self.bic_ = None
        self.standard_errors_ = self.intercept_standard_error_ = self.covariance_ = None

    def _warn(self, solution: Solution) -> None:
        names = [*map(str, self.feature_names_), "intercept"]
        inference = solution.inference
        if inference is not None and inference.separated is not None:
            columns = ", ".join(names[j] for j in inference.separating)
            warnings.warn(
                f"The classes are separated ({inference.separated}) by {columns}: the likelihood has no maximum, and "
                "coefficients and standard errors are those of where training stopped. Leave the column out, or set alpha > 0.",
                SeparationWarning,
                stacklevel=4,
            )
        elif not solution.converged:
            warnings.warn(
                f"Not converged after {solution.passes} passes: the largest derivative is {solution.gradient_size:.1e}, "
                f"tol is {self.tol:.1e}. Raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=4,
            )
        if inference is not None and inference.aliased and inference.separated is None:
            columns = ", ".join(names[j] for j in inference.aliased)
            warnings.warn(
                f"Columns {columns} are constant or sums of each other: their coefficients cannot be told apart. The smallest "
                "ones are given, without standard errors. Leave one out, or set alpha > 0.",
                RankDeficientWarning,
                stacklevel=4,
            )

    def _decide(self, features: Array) -> Array:
        decision = features @ self.coef_.T + self.intercept_
        return np.asarray(decision[:, 0] if decision.shape[1] == 1 else decision)

    def _probabilities(self, features: Array) -> Array:
        decision = self._decide(features)
        if decision.ndim == 1:
            return np.column_stack([expit(-decision), expit(decision)])
        return np.asarray(softmax(decision, axis=1))

    def _columns(self, features: Array) -> dict[str, pa.Array]:
        probabilities = self._probabilities(features)
        names = self.classes_.tolist()
        chosen = pa.array(names).take(pa.array(probabilities.argmax(axis=1)))
        return {"prediction": chosen} | {
            f"probability_{name}": pa.array(np.ascontiguousarray(probabilities[:, j])) for j, name in enumerate(names)
        }
