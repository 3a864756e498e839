"""linregr_train: least squares with the statistics that MADlib prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import chdtrc, stdtr
from sqlglot import exp

from braidwater.aggregates import Gram, GramResult
from braidwater.aggregates.base import Iteration
from braidwater.aggregates.grouped_gram import GroupedGram
from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array
from braidwater.encoding import Encoding
from braidwater.encoding.design import Design
from braidwater.encoding.groups import GROUP, GroupedEncoding, find_groups
from braidwater.engines import default_engine
from braidwater.estimators.base import TableEstimator, Target
from braidwater.kernels import choose_kernel
from braidwater.kernels.choice import KernelName
from braidwater.options import current_options
from braidwater.planner.base import Work
from braidwater.sql.fitting import GroupModel, fit_each
from braidwater.sql.functions.least_squares import Solutions, least_squares
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Expression, Output, Source, function
from braidwater.sql.rows import Features, TrainingRows, literal, of_group, training_rows

OUTPUT = {
    "coef": "float8[]", "r2": "float8", "std_err": "float8[]", "t_stats": "float8[]", "p_values": "float8[]",
    "condition_no": "float8",
}  # fmt: skip
TESTED = {"bp_stats": "float8", "bp_p_value": "float8"}
COUNTED = {"num_rows_processed": "bigint", "num_missing_rows_skipped": "bigint"}


@function()
def linregr_train(
    place: Place,
    source_table: Source,
    out_table: Output,
    dependent_varname: Expression,
    independent_varname: Expression,
    grouping_cols: Columns = None,
    heteroskedasticity_option: bool = False,
) -> None:
    """Linear regression by least squares, with standard errors. One pass over the rows, whatever the number of groups.

    source_table: the table of the rows.
    out_table: the table to write the model into; OUT_summary is written beside it.
    dependent_varname: the number to learn, an expression.
    independent_varname: the numbers to learn it from: ARRAY[1, tax, size], or a column of arrays. An intercept is a 1 among them.
    grouping_cols: columns; a model is trained for each group of rows that agree in them.
    heteroskedasticity_option: whether to test by Breusch and Pagan whether the spread of the residuals varies; a second pass.
    """
    summary = out_table.suffixed("_summary")
    place.refuse_existing(out_table, summary)
    features = Features.of(independent_varname)
    rows = training_rows(place, source_table, features, label=dependent_varname, groups=grouping_cols or ())
    models = _products_of_groups(place, rows) or fit_each(place, rows, Products())
    found = _outputs(models, features.constant)
    if heteroskedasticity_option:
        for one, row in zip(models, found, strict=True):
            row |= _breusch_pagan(place, source_table, features, dependent_varname, rows.groups, one, row["coef"])
    columns = OUTPUT | (TESTED if heteroskedasticity_option else {}) | COUNTED | {"variance_covariance": "float8[][]"}
    keyed = [dict(zip(rows.groups, one.key, strict=True)) | row for one, row in zip(models, found, strict=True)]
    place.create(out_table, columns, keyed, keys=rows.groups, of=source_table)
    texts = dict.fromkeys(("method", "source_table", "out_table", "dependent_varname", "independent_varname"), "text")
    about = {
        "method": "linregr",
        "source_table": source_table.text,
        "out_table": out_table.text,
        "dependent_varname": dependent_varname.sql("postgres"),
        "independent_varname": independent_varname.sql("postgres"),
        "num_rows_processed": rows.used,
        "num_missing_rows_skipped": rows.skipped,
        "grouping_cols": ", ".join(rows.groups) or None,
    }
    place.create(summary, texts | COUNTED | {"grouping_cols": "text"}, [about])


class Products(TableEstimator):
    """All products of the columns, which is what least squares needs to know of the rows: an estimator that stops there, so that
    `fit_groups` finds them for all groups in one pass."""

    target: ClassVar[Target] = "number"
    kind = "products"

    def __init__(self, *, nulls: str = "refuse") -> None:
        self.nulls = nulls

    def fit(self, X: Any, y: Any = None, *, features: Any = None, label: str | None = None, engine: Any = None) -> Self:
        """One pass over a table."""
        training = self._open(
            X, y, features=features, label=label, exclude=(), sample_weight=None, offset=None, engine=engine
        )
        gram = self._run(training, OneGram(training.design, choose_kernel(training.rows, "auto")), passes=1)
        self.mean_, self.products_, self.n_rows_ = gram.mean, gram.products, gram.rows
        return self

    def work(self, table: Any, encoding: Any) -> Work:
        """One pass."""
        width = encoding.design.width + 2
        return Work(
            name=self.kind, shape="aggregate", passes=1, flops_per_row=float(width**2),
            row_bytes=encoding.block_schema.row_bytes, kernel=choose_kernel(table.statistics([]).rows, "auto"),
            read_columns=tuple(encoding.columns), state_bytes=8 * width**2, working_bytes=3 * 8 * 4096 * width,
        )  # fmt: skip


def _products_of_groups(place: Place, rows: TrainingRows) -> list[GroupModel]:
    """The products of each group, from one pass over the rows as they come; nothing where there are too many groups for that."""
    columns = len(rows.features) + 2
    if not rows.groups or len(rows.counts) * 8 * columns**2 > current_options().memory // 32:
        return []
    encoding = Encoding(features=list(rows.features), label=rows.label).fit(rows.table)
    keys = find_groups(rows.table, rows.groups).keys
    engine = place.engine or default_engine()
    with BlockSource(rows.table, GroupedEncoding(encoding, keys, None)) as source:
        kernel = choose_kernel(rows.used, "auto")
        stack = engine.aggregate(source, GroupedGram(encoding.design, GROUP, kernel=kernel))
    places = {keys.keys[code]: place for place, code in enumerate(stack.codes.tolist())}
    found = []
    for key, counts in rows.counts.items():
        at = places.get(rows.shown[key]) if counts.used else None
        model = None if at is None else SimpleNamespace(mean_=stack.mean[at], products_=stack.products[at])
        found.append(GroupModel(key, model, counts))
    return found


@dataclass(frozen=True)
class OneGram(Iteration[GramResult]):
    """The pass of `Products`."""

    design: Design
    kernel: KernelName

    def passes(self) -> Any:
        return (yield Gram(self.design, kernel=self.kernel))


def _outputs(groups: Sequence[GroupModel], constant: tuple[int, float] | None) -> list[dict[str, Any]]:
    """The row of each group, but its key."""
    fitted = [one for one in groups if one.model is not None]
    figures = iter(_figures(fitted, constant) if fitted else ())
    return [
        (dict.fromkeys([*OUTPUT, "variance_covariance"]) if one.model is None else next(figures))
        | {"num_rows_processed": one.counts.used, "num_missing_rows_skipped": one.counts.total - one.counts.used}
        for one in groups
    ]


def _figures(groups: Sequence[GroupModel], constant: tuple[int, float] | None) -> list[dict[str, Any]]:
    found = _solved(groups, constant)
    explained = np.clip(found.explained, 0.0, found.total)
    degrees = np.array([one.counts.used for one in groups]) - found.coef.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        # with no more rows than coefficients the fit is perfect, and nothing is known of its errors
        variance = np.where(degrees > 0, (found.total - explained) / degrees, 0.0)
        covariance = variance[:, None, None] * found.inverse
        errors = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
        statistics = np.where((found.coef == 0) & (errors == 0), 0.0, found.coef / errors)
        chances = 2 * stdtr(degrees[:, None], -np.abs(statistics))
        r2 = np.where(found.total > 0, explained / found.total, 1.0)
    return [
        {
            "coef": found.coef[place],
            "r2": float(r2[place]),
            "std_err": errors[place],
            "t_stats": statistics[place],
            "p_values": chances[place] if degrees[place] > 0 else None,
            "condition_no": float(found.condition[place]),
            "variance_covariance": covariance[place],
        }
        for place in range(len(groups))
    ]


def _solved(groups: Sequence[GroupModel], constant: tuple[int, float] | None) -> Solutions:
    rows = np.array([one.counts.used for one in groups], np.float64)
    mean, products = (np.stack([getattr(one.model, name) for one in groups]) for name in ("mean_", "products_"))
    return least_squares(rows, mean, products, constant)


def _breusch_pagan(
    place: Place,
    source: Source,
    features: Features,
    label: Expression,
    groups: Sequence[str],
    group: GroupModel,
    coef: Array | None,
) -> dict[str, Any]:
    """Rows times R² of the regression of the squared residuals on the variables (Breusch and Pagan 1979, as Koenker 1981)."""
    if coef is None:
        return dict.fromkeys(TESTED)
    fitted = _fitted(features, coef)
    residual = exp.paren(exp.Sub(this=exp.cast(exp.paren(label.copy()), place.sql_type("float8")), expression=fitted))
    squared = exp.Mul(this=residual, expression=residual.copy())
    rows = training_rows(place, source, features, label=squared, where=of_group(groups, group.key))
    found = _solved(fit_each(place, rows, Products()), features.constant)
    total = float(found.total[0])
    share = min(max(float(found.explained[0]), 0.0), total) / total if total > 0 else 1.0
    statistic = group.counts.used * share
    return {"bp_stats": statistic, "bp_p_value": float(chdtrc(len(coef) - 1, statistic)) if len(coef) > 1 else None}


def _fitted(features: Features, coef: Array) -> Expression:
    weights = [literal(float(value)) for value in coef]
    if features.array:
        array = features.values[0]
        terms = [
            exp.Mul(
                this=weight,
                expression=exp.Bracket(this=exp.paren(array.copy()), expressions=[exp.Literal.number(place)]),
            )
            for place, weight in enumerate(weights)
        ]
    else:
        values = list(features.values)
        if features.constant is not None:
            values.insert(features.constant[0], literal(features.constant[1]))
        terms = [
            exp.Mul(this=weight, expression=exp.paren(value.copy()))
            for weight, value in zip(weights, values, strict=True)
        ]
    total: exp.Expression = terms[0]
    for term in terms[1:]:
        total = exp.Add(this=total, expression=term)
    return exp.paren(total)
