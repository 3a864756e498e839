"""mlogregr_train and mlogregr_predict: logistic regression of more than two categories."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlglot import exp

from braidwater.blocks.base import Array
from braidwater.errors import LabelError, OptionError
from braidwater.sql.fitting import fit_each
from braidwater.sql.functions.irls import IrlsRegression, inverse_of
from braidwater.sql.functions.logistic import in_order, wald
from braidwater.sql.names import parse_options
from braidwater.sql.place import Place
from braidwater.sql.registry import Expression, Output, Source, function
from braidwater.sql.rows import Features, training_rows

OUTPUT = {
    "category": "integer", "ref_category": "integer", "coef": "float8[]", "log_likelihood": "float8", "std_err": "float8[]",
    "z_stats": "float8[]", "p_values": "float8[]", "odds_ratios": "float8[]", "condition_no": "float8",
    "num_iterations": "integer",
}  # fmt: skip
SUMMARY = {
    "method": "text", "source_table": "text", "out_table": "text", "dependent_varname": "text", "independent_varname": "text",
    "optimizer_params": "text", "ref_category": "integer", "num_categories": "integer", "num_rows_processed": "bigint",
    "num_missing_rows_skipped": "bigint", "variance_covariance": "float8[][]", "coef": "float8[][]",
}  # fmt: skip


@function()
def mlogregr_train(
    place: Place,
    source_table: Source,
    output_table: Output,
    dependent_varname: Expression,
    independent_varname: Expression,
    ref_category: int = 0,
    optimizer_params: str = "max_iter=20, optimizer=irls, precision=0.0001",
) -> None:
    """Logistic regression of categories against one of them, with standard errors.

    source_table: the table of the rows.
    output_table: the table to write the model into, a row for each category but one; OUT_summary is written beside it.
    dependent_varname: the category, an expression that gives an integer.
    independent_varname: the numbers to predict it from: ARRAY[1, age], or a column of arrays. An intercept is a 1 among them.
    ref_category: the category that the others are compared with.
    optimizer_params: max_iter, optimizer (irls or newton) and precision, by which log-likelihoods may differ at the end.
    """
    options = parse_options(
        "optimizer_params", optimizer_params, {"max_iter": 20, "optimizer": "irls", "precision": 1e-4}
    )
    if options["optimizer"] not in ("irls", "newton"):
        raise OptionError("optimizer", options["optimizer"], "irls or newton")
    if options["max_iter"] < 1 or not options["precision"] >= 0:
        raise OptionError("optimizer_params", optimizer_params, "max_iter of at least 1, and precision of at least 0")
    summary = output_table.suffixed("_summary")
    place.refuse_existing(output_table, summary)
    features = Features.of(independent_varname)
    rows = training_rows(place, source_table, features, label=dependent_varname, label_type="bigint")
    model: Any = IrlsRegression(
        options["max_iter"], options["precision"], fit_intercept=features.constant is not None, reference=ref_category
    )
    model = fit_each(place, rows, model)[0].model
    categories = [one for one in model.classes_.tolist() if one != ref_category]
    if len(categories) < 1:
        raise LabelError(f"The only category is {ref_category}; there is nothing to compare it with.")
    coef, products = _in_order(model, categories, features.constant)
    inverse, condition = inverse_of(products)
    width = coef.shape[1]
    found = []
    for number, category in enumerate(categories):
        own = slice(number * width, (number + 1) * width)
        figures = {"category": category, "ref_category": ref_category, "coef": coef[number]}
        figures |= wald(coef[number], inverse[own, own])
        figures |= {"log_likelihood": model.log_likelihood_, "condition_no": condition, "num_iterations": model.n_iter_}
        found.append(figures)
    place.create(output_table, OUTPUT, found)
    # in MADlib's order: variable by variable, the categories inside
    turned = np.arange(len(inverse)).reshape(len(categories), width).T.reshape(-1)
    about = {
        "method": "mlogregr",
        "source_table": source_table.text,
        "out_table": output_table.text,
        "dependent_varname": dependent_varname.sql("postgres"),
        "independent_varname": independent_varname.sql("postgres"),
        "optimizer_params": optimizer_params,
        "ref_category": ref_category,
        "num_categories": len(model.classes_),
        "num_rows_processed": rows.used,
        "num_missing_rows_skipped": rows.skipped,
        "variance_covariance": inverse[np.ix_(turned, turned)],
        "coef": coef,
    }
    place.create(summary, SUMMARY, [about])


def _in_order(model: IrlsRegression, categories: list[int], constant: tuple[int, float] | None) -> tuple[Array, Array]:
    """Coefficients ``(categories, variables)`` and their products, in the order of the variables."""
    kept = model.points_ if constant else model.points_[:, :-1]
    if len(model.classes_) == 2:
        sign = 1.0 if categories[0] == model.classes_[1] else -1.0
        points = sign * kept
    else:
        points = kept[[place for place, one in enumerate(model.classes_.tolist()) if one in categories]]
    if constant is None:
        return points, model.products_
    count, width = points.shape
    coef = np.empty_like(points)
    products = np.empty_like(model.products_)
    for one in range(count):
        for other in range(count):
            block = model.products_[one * width : (one + 1) * width, other * width : (other + 1) * width]
            coef[one], turned = in_order(points[one], block, constant)
            products[one * width : (one + 1) * width, other * width : (other + 1) * width] = turned
    return coef, products


@function()
def mlogregr_predict(
    place: Place,
    model_table: Source,
    new_data_table: Source,
    id_col_name: Expression,
    output_table: Output,
    type: str = "response",
) -> None:
    """The likeliest category of every row, or the probabilities of all categories.

    model_table: what mlogregr_train wrote; its _summary is read too.
    new_data_table: a table with the columns of the independent variables.
    id_col_name: the column that tells the rows apart.
    output_table: the table to write into: the id, and category or estimated_prob_CATEGORY.
    type: 'response' or 'prob'.
    """
    if type not in ("response", "prob"):
        raise OptionError("type", type, "response or prob")
    place.refuse_existing(output_table)
    model = place.select(exp.select("*").from_(model_table.table).order_by(exp.column("category"))).to_pylist()
    about = place.select(exp.select("*").from_(model_table.suffixed("_summary").table)).to_pylist()[0]
    from braidwater.sql.names import parse_expression
    from braidwater.sql.rows import check_columns, literal

    features = check_columns(
        place, parse_expression("independent_varname", about["independent_varname"]), new_data_table
    )
    array = exp.cast(exp.paren(features), place.sql_type("float8[]"))
    odds: dict[int, exp.Expression] = {about["ref_category"]: literal(0.0)}
    for row in model:
        odds[row["category"]] = place.dot(literal(row["coef"]), array)
    names = {category: f"odds_{place}" for place, category in enumerate(sorted(odds))}
    identity = check_columns(place, id_col_name, new_data_table)
    inner = exp.select(identity.as_(identity.name or "id", quoted=True)).from_(new_data_table.table)
    inner = inner.select(*(odds[category].as_(name) for category, name in names.items()))
    outer = exp.select(exp.column(identity.name or "id", quoted=True)).from_(inner.subquery("predicted"))
    if type == "response":
        cases = exp.Case(
            ifs=[
                exp.If(this=_largest(name, list(names.values())), true=literal(category))
                for category, name in names.items()
            ]
        )
        outer = outer.select(cases.as_("category"))
    else:
        for category, name in names.items():
            outer = outer.select(_softmax(name, list(names.values())).as_(f"estimated_prob_{category}", quoted=True))
    place.create_as(output_table, outer)


def _largest(name: str, names: list[str]) -> exp.Expression:
    return exp.and_(*(exp.GTE(this=exp.column(name), expression=exp.column(other)) for other in names if other != name))


def _softmax(name: str, names: list[str]) -> exp.Expression:
    """``1 / sum(exp(other - own))``: no exponential of a large number is divided by another."""
    terms = [exp.Exp(this=exp.Sub(this=exp.column(other), expression=exp.column(name))) for other in names]
    total: exp.Expression = terms[0]
    for term in terms[1:]:
        total = exp.Add(this=total, expression=term)
    return exp.Div(this=exp.cast(exp.Literal.number(1), "DOUBLE"), expression=exp.paren(total))
