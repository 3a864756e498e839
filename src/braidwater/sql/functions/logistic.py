"""logregr_train: the probability that an expression is true."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr

from braidwater.blocks.base import Array
from braidwater.errors import OptionError
from braidwater.estimators import LogisticRegression
from braidwater.sql.fitting import GroupModel, fit_each
from braidwater.sql.functions.irls import IrlsRegression, inverse_of
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Expression, Output, Source, function
from braidwater.sql.rows import Features, training_rows

OUTPUT = {
    "coef": "float8[]", "log_likelihood": "float8", "std_err": "float8[]", "z_stats": "float8[]", "p_values": "float8[]",
    "odds_ratios": "float8[]", "condition_no": "float8", "num_rows_processed": "bigint",
    "num_missing_rows_skipped": "bigint", "num_iterations": "integer", "variance_covariance": "float8[][]",
}  # fmt: skip
SUMMARY = {
    "method": "text", "source_table": "text", "out_table": "text", "dependent_varname": "text",
    "independent_varname": "text", "optimizer_params": "text", "num_all_groups": "integer", "num_failed_groups": "integer",
    "num_rows_processed": "bigint", "num_missing_rows_skipped": "bigint", "grouping_cols": "text",
}  # fmt: skip
OPTIMIZERS = {"irls": "", "newton": "", "cg": "cg", "igd": "lbfgs"}  # and what a LogisticRegression calls them


@function()
def logregr_train(
    place: Place,
    source_table: Source,
    out_table: Output,
    dependent_varname: Expression,
    independent_varname: Expression,
    grouping_cols: Columns = None,
    max_iter: int = 20,
    optimizer: str = "irls",
    tolerance: float = 0.0001,
    verbose: bool = False,
) -> None:
    """Logistic regression of two classes, with standard errors.

    source_table: the table of the rows.
    out_table: the table to write the model into; OUT_summary is written beside it.
    dependent_varname: what is to be predicted, an expression that is true, false or NULL, or 1 and 0.
    independent_varname: the numbers to predict it from: ARRAY[1, age], or a column of arrays. An intercept is a 1 among them.
    grouping_cols: columns; a model is trained for each group of rows that agree in them, all in the same passes.
    max_iter: most iterations; each is a pass over the rows.
    optimizer: 'irls' (or 'newton'); 'cg' (conjugate gradient) and 'igd' (here L-BFGS) go on to the optimum.
    tolerance: 'irls' ends when the log-likelihood of two iterations differs by less; 0 makes all max_iter iterations.
    verbose: whether warnings are shown: no convergence, classes that are separated, columns that others add up to.
    """
    if max_iter < 1:
        raise OptionError("max_iter", max_iter, "at least 1")
    if optimizer not in OPTIMIZERS:
        raise OptionError("optimizer", optimizer, f"one of {', '.join(OPTIMIZERS)}")
    if not tolerance >= 0:
        raise OptionError("tolerance", tolerance, "at least 0")
    summary = out_table.suffixed("_summary")
    place.refuse_existing(out_table, summary)
    features = Features.of(independent_varname)
    rows = training_rows(
        place, source_table, features, label=dependent_varname, groups=grouping_cols or (), label_type="boolean"
    )
    intercept = features.constant is not None
    model: Any = IrlsRegression(max_iter, tolerance, fit_intercept=intercept)
    if OPTIMIZERS[optimizer]:
        model = LogisticRegression(
            solver=OPTIMIZERS[optimizer],
            max_iter=max(max_iter, 2),
            fit_intercept=intercept,
            tol=min(max(tolerance, 1e-9), 1e-6),
        )
    models = fit_each(place, rows, model, verbose=verbose)
    found = [dict(zip(rows.groups, one.key, strict=True)) | _output(one, features.constant) for one in models]
    place.create(out_table, OUTPUT, found, keys=rows.groups, of=source_table)
    about = {
        "method": "logregr",
        "source_table": source_table.text,
        "out_table": out_table.text,
        "dependent_varname": dependent_varname.sql("postgres"),
        "independent_varname": independent_varname.sql("postgres"),
        "optimizer_params": f"optimizer={optimizer}, max_iter={max_iter}, tolerance={tolerance:g}",
        "num_all_groups": len(models),
        "num_failed_groups": sum(one.model is None for one in models),
        "num_rows_processed": sum(one.counts.used for one in models if one.model is not None),
        "num_missing_rows_skipped": rows.skipped,
        "grouping_cols": ", ".join(rows.groups) or None,
    }
    place.create(summary, SUMMARY, [about])


def wald(coef: Array, inverse: Array) -> dict[str, Any]:
    """Standard errors, z statistics, two-sided p values and odds ratios of coefficients."""
    errors = np.sqrt(np.maximum(np.diag(inverse), 0))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = coef / errors
        return {"std_err": errors, "z_stats": z, "p_values": 2 * ndtr(-np.abs(z)), "odds_ratios": np.exp(coef)}


def _output(group: GroupModel, constant: tuple[int, float] | None) -> dict[str, Any]:
    counts = {
        "num_rows_processed": group.counts.used,
        "num_missing_rows_skipped": group.counts.total - group.counts.used,
    }
    if group.model is None:
        return dict.fromkeys(OUTPUT) | counts | {"num_rows_processed": 0}
    model = group.model
    if isinstance(model, IrlsRegression):
        points = model.points_[0] if constant else model.points_[0, :-1]
        coef, products = in_order(points, model.products_, constant)
        inverse, condition = inverse_of(products)
    else:
        points, covariance = model.coef_[0], model.covariance_[:-1, :-1]
        if constant:
            points, covariance = np.append(model.coef_[0], model.intercept_), model.covariance_
        coef, products = in_order(points, np.linalg.pinv(covariance, hermitian=True), constant)
        inverse, condition = inverse_of(products)
    return {
        "coef": coef,
        "log_likelihood": model.log_likelihood_,
        **wald(coef, inverse),
        "condition_no": float(np.sqrt(condition)),
        **counts,
        "num_iterations": model.n_iter_,
        "variance_covariance": inverse,
    }


def in_order(points: Array, products: Array, constant: tuple[int, float] | None) -> tuple[Array, Array]:
    """Coefficients and products ``X'AX`` in the order of the variables; as they come, the intercept is the last and for a 1."""
    if constant is None:
        return points, products
    place, value = constant
    last = len(points) - 1
    order = [*range(place), last, *range(place, last)]
    size = np.ones(last + 1)
    size[place] = value
    return points[order] / size, products[np.ix_(order, order)] * np.outer(size, size)
