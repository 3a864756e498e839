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
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Expression, Output, Source, function
from braidwater.sql.rows import Features, TrainingRows, literal, of_group, training_rows

OUTPUT = {
    "coef": "float8[]", "r2": "float8", "std_err": "float8[]", "t_stats": "float8[]", "p_values": "float8[]",
    "condition_no": "float8",
}  # fmt: skip
TESTED = {"bp_stats": "float8", "bp_p_value": "float8"}
COUNTED = {"num_rows_processed": "bigint", "num_missing_rows_skipped": "bigint"}
# An eigenvalue of the correlations below this share of the largest is rounding: there is a column that others add up to
RANK_TOLERANCE = 1e-12


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
    found = [_output(one, features.constant) for one in models]
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


@dataclass(frozen=True)
class Solution:
    """Least squares in the order of the variables, with the inverse of their products."""

    coef: Array
    inverse: Array
    explained: float
    total: float
    condition: float


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


def least_squares(rows: int, mean: Array, products: Array, constant: tuple[int, float] | None) -> Solution:
    """Coefficients from centred products; `constant` is the place and value of a variable that is always the same.

    With a constant the others are centred, so that nothing cancels. Where a variable is a sum of others, it is the shortest
    solution, by the pseudo-inverse of the products about zero, as MADlib has it; the condition number is then infinite.
    """
    width = len(mean) - 1
    raw = products + rows * np.outer(mean, mean)
    place, value = constant or (width, 0.0)
    order = [*range(place), *range(place + 1, width + 1)] if constant else list(range(width))
    full = np.empty((len(order) + (constant is not None),) * 2)
    full[np.ix_(order, order)] = raw[:width, :width]
    right = np.empty(len(full))
    right[order] = raw[:width, width]
    if constant:
        full[place, order] = full[order, place] = value * rows * mean[:width]
        full[place, place], right[place] = rows * value**2, value * rows * mean[width]
    values = np.linalg.eigvalsh(full)
    condition = float(np.sqrt(values[-1] / values[0])) if values[0] > 0 else float("inf")
    centred = products if constant else raw
    size = np.sqrt(np.diag(centred)[:width])
    regular = rows >= len(full) and bool(np.all(size > 1e-14 * np.abs(mean[:width]) * np.sqrt(rows)))
    scaled = centred[:width, :width] / np.outer(size, size) if regular else np.zeros((0, 0))
    regular = regular and (not width or np.linalg.eigvalsh(scaled)[0] > RANK_TOLERANCE)
    offset = rows * mean[width] ** 2
    total = float(products[width, width])
    if not regular:
        kept, vectors = np.linalg.eigh(full)
        good = kept > RANK_TOLERANCE * kept[-1]
        inverse = (vectors[:, good] / kept[good]) @ vectors[:, good].T
        coef = inverse @ right
        return Solution(coef, inverse, float(right @ coef - offset), total, float("inf"))
    inner = np.linalg.inv(scaled) / np.outer(size, size) if width else np.zeros((0, 0))
    slopes = inner @ centred[:width, width]
    coef, inverse = np.empty(len(full)), np.empty_like(full)
    coef[order], inverse[np.ix_(order, order)] = slopes, inner
    if constant:
        toward = inner @ mean[:width]
        coef[place] = (mean[width] - slopes @ mean[:width]) / value
        inverse[place, order] = inverse[order, place] = -toward / value
        inverse[place, place] = (1 / rows + mean[:width] @ toward) / value**2
    explained = float(slopes @ centred[:width, width]) - (0.0 if constant else offset)
    return Solution(coef, inverse, explained, total, condition)


def _output(group: GroupModel, constant: tuple[int, float] | None) -> dict[str, Any]:
    counts = {
        "num_rows_processed": group.counts.used,
        "num_missing_rows_skipped": group.counts.total - group.counts.used,
    }
    if group.model is None:
        return dict.fromkeys(OUTPUT) | counts | {"variance_covariance": None}
    rows, model = group.counts.used, group.model
    found = least_squares(rows, model.mean_, model.products_, constant)
    explained = min(max(found.explained, 0.0), found.total)
    degrees = rows - len(found.coef)
    # with no more rows than coefficients the fit is perfect, and nothing is known of its errors
    variance = (found.total - explained) / degrees if degrees > 0 else 0.0
    covariance = variance * found.inverse
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.where((found.coef == 0) & (errors == 0), 0.0, found.coef / errors)
    return {
        "coef": found.coef,
        "r2": explained / found.total if found.total > 0 else 1.0,
        "std_err": errors,
        "t_stats": statistics,
        "p_values": 2 * stdtr(degrees, -np.abs(statistics)) if degrees > 0 else None,
        "condition_no": found.condition,
        **counts,
        "variance_covariance": covariance,
    }


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
    model = fit_each(place, rows, Products())[0].model
    found = least_squares(group.counts.used, model.mean_, model.products_, features.constant)
    share = min(max(found.explained, 0.0), found.total) / found.total if found.total > 0 else 1.0
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
