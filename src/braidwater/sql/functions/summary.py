"""summary: figures of the columns of a table, computed where it lies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
from sqlglot import exp

from braidwater.encoding.numeric import is_number
from braidwater.encoding.selectors import is_text
from braidwater.errors import OptionError
from braidwater.sql.names import Name, match_columns
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Numbers, Output, Source, function

OUTPUT = {
    "group_by": "text", "group_by_value": "text", "target_column": "text", "column_number": "integer", "data_type": "text",
    "row_count": "bigint", "distinct_values": "bigint", "missing_values": "bigint", "blank_values": "bigint",
    "fraction_missing": "float8", "fraction_blank": "float8", "positive_values": "bigint", "negative_values": "bigint",
    "zero_values": "bigint", "mean": "float8", "variance": "float8", "confidence_interval": "float8[]", "min": "float8",
    "max": "float8", "first_quartile": "float8", "median": "float8", "third_quartile": "float8",
    "quantile_array": "float8[]", "most_frequent_values": "text[]", "mfv_frequencies": "bigint[]",
}  # fmt: skip
QUARTILES = {"first_quartile": 0.25, "median": 0.5, "third_quartile": 0.75}
NORMAL = 1.96  # standard errors of a mean on each side of it, for 95 %
Figures = dict[str, exp.Expression]


@function(columns=("output_table", "num_col_summarized", "duration"))
def summary(
    place: Place,
    source_table: Source,
    output_table: Output,
    target_cols: Columns = None,
    grouping_cols: Columns = None,
    get_distinct: bool = True,
    get_quartiles: bool = True,
    ntile_array: Numbers | None = None,
    how_many_mfv: int = 10,
    get_estimates: bool = True,
    n_cols_per_run: int = 15,
) -> dict[str, Any]:
    """Figures of the columns of a table: counts, missing and distinct values, mean, quantiles, most frequent values.

    source_table: the table of the rows.
    output_table: the table to write into, a row for each column (and group).
    target_cols: the columns; all where it is NULL or '*'.
    grouping_cols: columns; figures are given for each value of each of them, not of their combinations.
    get_distinct: whether to count distinct values.
    get_quartiles: whether to compute quartiles.
    ntile_array: quantiles to compute, such as ARRAY[0.1, 0.9].
    how_many_mfv: how many of the most frequent values.
    get_estimates: whether distinct values may be estimated (by HyperLogLog); most frequent values are exact in any case.
    n_cols_per_run: taken as it is in MADlib; all columns are looked at in one pass.
    """
    begun = time.perf_counter()
    place.refuse_existing(output_table)
    schema = place.schema(source_table)
    names = match_columns("target_cols", target_cols or schema.names, schema.names, source_table.text)
    groups = match_columns("grouping_cols", grouping_cols or (), schema.names, source_table.text)
    ntiles = [float("nan") if one is None else one for one in ntile_array or ()]
    if not all(0 <= one <= 1 for one in ntiles):
        raise OptionError("ntile_array", ntile_array, "numbers between 0 and 1")
    if how_many_mfv < 1:
        raise OptionError("how_many_mfv", how_many_mfv, "at least 1")
    types = place.type_names(source_table)
    columns = {name: kind for name, kind in OUTPUT.items() if name != "quantile_array" or ntiles}
    found: list[dict[str, Any]] = []
    for group in groups or (None,):
        wanted = [name for name in names if name != group]
        fields = [schema.field(name) for name in wanted]
        figures = [
            _figures(field, distinct=get_distinct, estimates=get_estimates, quartiles=get_quartiles, ntiles=ntiles)
            for field in fields
        ]
        frequent = [_frequent(place, source_table, name, group, how_many_mfv) for name in wanted]
        for row in _answers(place, source_table, figures, group):
            for number, field in enumerate(fields):
                given = {key: row[f"f{number}_{key}"] for key in figures[number]}
                values = frequent[number].get(row["g"], [])
                about = {
                    "group_by": group, "group_by_value": row["g"], "target_column": field.name,
                    "column_number": schema.get_field_index(field.name) + 1, "data_type": types[field.name],
                    "most_frequent_values": [value for value, _ in values], "mfv_frequencies": [count for _, count in values],
                }  # fmt: skip
                found.append(_row(row["n"], given, ntiles) | about)
    place.create(output_table, columns, found)
    return {
        "output_table": output_table.text, "num_col_summarized": len(names), "duration": time.perf_counter() - begun
    }  # fmt: skip


def _figures(field: pa.Field, *, distinct: bool, estimates: bool, quartiles: bool, ntiles: Sequence[float]) -> Figures:
    """The aggregates of a column by short names."""
    column = exp.column(field.name, quoted=True)
    found: Figures = {"known": exp.Count(this=column)}
    if distinct and not pa.types.is_nested(field.type):
        counted = exp.ApproxDistinct(this=column) if estimates else exp.Count(this=exp.Distinct(expressions=[column]))
        found["distinct_values"] = counted
    if is_text(field.type):
        length = exp.Length(this=column)
        blank = exp.EQ(this=exp.Trim(this=column), expression=exp.Literal.string(""))
        found |= {"blank_values": _count_if(blank), "min": exp.Min(this=length), "max": exp.Max(this=length.copy())}
    if not is_number(field.type):
        return found
    number, zero = exp.cast(column, "DOUBLE"), exp.Literal.number(0)
    found |= {
        "positive_values": _count_if(exp.GT(this=number, expression=zero)),
        "negative_values": _count_if(exp.LT(this=number, expression=zero)),
        "zero_values": _count_if(exp.EQ(this=number, expression=zero)),
        "mean": exp.Avg(this=number), "variance": exp.Variance(this=number),
        "min": exp.Min(this=number), "max": exp.Max(this=number),
    }  # fmt: skip
    points = [*(QUARTILES.values() if quartiles else ()), *ntiles]
    if points:
        array = exp.array(*(exp.Literal.number(repr(one)) for one in points))
        found["quantiles"] = exp.Anonymous(this="quantile_cont", expressions=[number, array])
    return {key: value.copy() for key, value in found.items()}


def _answers(place: Place, source: Name, figures: Sequence[Figures], group: str | None) -> list[dict[str, Any]]:
    key = exp.null() if group is None else exp.cast(exp.column(group, quoted=True), place.sql_type("text"))
    named = [figure.as_(f"f{n}_{name}") for n, own in enumerate(figures) for name, figure in own.items()]
    query = exp.select(key.as_("g"), exp.Count(this=exp.Star()).as_("n"), *named).from_(source.table)
    if group is not None:
        query = query.group_by(exp.column(group, quoted=True)).order_by(exp.column(group, quoted=True))
    return list(place.select(query).to_pylist())


def _frequent(
    place: Place, source: Name, name: str, group: str | None, most: int
) -> dict[str | None, list[tuple[str, int]]]:
    """The most frequent values by group, each with how often it is there."""
    column = exp.column(name, quoted=True)
    keys = [] if group is None else [exp.column(group, quoted=True)]
    count = exp.Count(this=exp.Star())
    counted = exp.select(*(key.as_("g") for key in keys), column.as_("v"), count.as_("c")).from_(source.table)
    counted = counted.where(exp.not_(exp.Is(this=column.copy(), expression=exp.null())))
    counted = counted.group_by(*(key.copy() for key in keys), column.copy())
    order = exp.Order(
        expressions=[exp.Ordered(this=exp.column("c"), desc=True), exp.Ordered(this=exp.column("v"), nulls_first=False)]
    )
    partition = [exp.column("g")] if keys else []
    place_of = exp.Window(this=exp.RowNumber(), partition_by=partition, order=order)
    text = place.sql_type("text")
    shown = [exp.cast(exp.column("g"), text).as_("g")] if keys else [exp.null().as_("g")]
    ranked = exp.select(*shown, exp.cast(exp.column("v"), text).as_("v"), "c", place_of.as_("p")).from_(
        counted.subquery("counted")
    )
    top = exp.select("g", "v", "c").from_(ranked.subquery("ranked"))
    top = top.where(exp.LTE(this=exp.column("p"), expression=exp.Literal.number(most))).order_by("g", "p")
    found: dict[str | None, list[tuple[str, int]]] = {}
    for row in place.select(top).to_pylist():
        found.setdefault(row["g"], []).append((row["v"], int(row["c"])))
    return found


def _row(rows: int, given: dict[str, Any], ntiles: Sequence[float]) -> dict[str, Any]:
    known = int(given.pop("known"))
    quantiles = given.pop("quantiles", None)
    # counts are sums, which some databases give as decimals
    given = {key: float(value) if isinstance(value, Decimal) else value for key, value in given.items()}
    missing, blank = rows - known, given.get("blank_values")
    figures = {
        "row_count": rows,
        "missing_values": missing,
        "fraction_missing": missing / rows if rows else None,
        **given,
    }
    figures["fraction_blank"] = None if blank is None or not rows else blank / rows
    if given.get("variance") is not None:
        reach = NORMAL * (given["variance"] / known) ** 0.5
        figures["confidence_interval"] = [given["mean"] - reach, given["mean"] + reach]
    if quantiles is not None:
        first = len(quantiles) - len(ntiles)
        figures |= dict(zip(QUARTILES, quantiles[:first], strict=False))
        figures["quantile_array"] = list(quantiles[first:])
    return figures


def _count_if(condition: exp.Expression) -> exp.Expression:
    one, zero = exp.Literal.number(1), exp.Literal.number(0)
    return exp.Sum(this=exp.Case(ifs=[exp.If(this=condition.copy(), true=one)], default=zero))
