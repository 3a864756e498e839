"""What is in a table: counts, NULLs, means, quantiles, distinct values, correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.aggregates import Gram
from braidwater.blocks.base import Array
from braidwater.blocks.source import BlockSource
from braidwater.encoding import Encoding
from braidwater.encoding.numeric import Numeric, is_number
from braidwater.engines import Engine, default_engine
from braidwater.tables import Table, table
from braidwater.tables.missing import missing

QUANTILES = (0.25, 0.5, 0.75)
HEADS = ("column", "type", "count", "nulls", "distinct", "mean", "sd", "min")
EXACT_ROWS = 100_000  # up to here quantiles and distinct values are exact; beyond, t-digest and HyperLogLog take over
_ORDERED = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_temporal, pa.types.is_boolean)


@dataclass(frozen=True)
class ColumnDescription:
    """A column in figures; None where a figure makes no sense for its type.

    `count` are the values that are neither NULL nor NaN (`nulls`) nor infinite (`infinities`): mean, standard deviation
    (divided by count - 1), bounds and quantiles are of those.
    """

    name: str
    type: str
    count: int
    nulls: int
    infinities: int
    distinct: int | None
    mean: float | None
    standard_deviation: float | None
    minimum: Any
    quantiles: dict[float, Any] | None
    maximum: Any


@dataclass(frozen=True)
class Description:
    """A table in figures. `correlation` ``(columns, columns)`` is of the numeric columns `correlated`, over the `complete`
    rows that have a value in each of them. `exact` is False where quantiles and distinct values are estimates."""

    table: str
    rows: int
    exact: bool
    columns: tuple[ColumnDescription, ...]
    correlated: tuple[str, ...]
    correlation: Array
    complete: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; figures that are no number are None."""
        columns = [_plain({**asdict(column), "quantiles": _texts(column.quantiles)}) for column in self.columns]
        correlation = {
            "columns": list(self.correlated),
            "rows": self.complete,
            "matrix": _plain(self.correlation.tolist()),
        }
        return {
            "table": self.table,
            "rows": self.rows,
            "exact": self.exact,
            "columns": columns,
            "correlation": correlation,
        }

    def __str__(self) -> str:
        lines = [[*HEADS, *(f"{q:.0%}" for q in QUANTILES), "max"]]
        for column in self.columns:
            quantiles = [(column.quantiles or {}).get(q) for q in QUANTILES]
            bounds = [column.minimum, *quantiles, column.maximum]
            figures = [column.distinct, column.mean, column.standard_deviation, *bounds]
            lines.append([column.name, column.type, str(column.count), str(column.nulls), *map(_short, figures)])
        note = "" if self.exact else "; quantiles and distinct values are estimates"
        parts = [f"{self.table}: {self.rows} rows{note}", _aligned(lines)]
        if len(self.correlated) > 1:
            body = [["", *self.correlated]]
            body += [[n, *(f"{v:.3f}" for v in row)] for n, row in zip(self.correlated, self.correlation, strict=True)]
            parts.append(f"\ncorrelation ({self.complete} rows without NULLs)\n{_aligned(body)}")
        return "\n".join(parts)


def describe(data: Any, *, columns: Sequence[str] | None = None, engine: Engine | None = None) -> Description:
    """Describe `data`, which is a table or anything that `braidwater.table` takes.

    One query where the rows lie for the figures of all columns, and one pass over the numeric columns for their
    correlations (float64). Up to 100,000 rows quantiles (interpolated) and distinct values are exact; beyond, they are
    estimated by a t-digest (Dunning 2019) and by HyperLogLog (Flajolet et al. 2007; about 2 % of error), in memory that
    does not grow with the rows.

    >>> found = describe(pa.table({"x": [1.0, 2.0, 3.0, None]}))
    >>> found.columns[0].mean, found.columns[0].nulls, found.columns[0].quantiles[0.5]
    (2.0, 1, 2.0)
    """
    rows = data if isinstance(data, Table) else table(data)
    names = rows.column_names if columns is None else list(columns)
    rows.require(names)
    total = rows.statistics([]).rows
    fields = [rows.schema.field(name) for name in names]
    figures = [
        figure.as_(f"f{i}_{key}")
        for i, f in enumerate(fields)
        for key, figure in _figures(f, total <= EXACT_ROWS).items()
    ]
    answer = rows.select(exp.select(*figures).from_("this")).to_pylist()[0] if figures else {}
    described = tuple(_described(field, total, answer, i) for i, field in enumerate(fields))
    correlated, correlation, complete = _correlation(rows, described, engine or default_engine())
    return Description(rows.name, total, total <= EXACT_ROWS, described, correlated, correlation, complete)


def _figures(field: pa.Field, exact: bool) -> dict[str, exp.Expression]:
    """The SQL for a column's figures, by their short names."""
    value: exp.Expression = exp.column(field.name, quoted=True)
    found: dict[str, exp.Expression] = {"nulls": missing(value, field.type)}
    if not pa.types.is_nested(field.type):
        seen = value.copy()
        if pa.types.is_floating(field.type):
            known = exp.Anonymous(this="isnan", expressions=[value.copy()]).not_()
            seen = exp.Case(ifs=[exp.If(this=known, true=seen)])
        found["distinct"] = exp.Count(this=exp.Distinct(expressions=[seen])) if exact else exp.ApproxDistinct(this=seen)
    if not any(kind(field.type) for kind in _ORDERED):
        return found
    if pa.types.is_floating(field.type):
        finite = exp.Anonymous(this="isfinite", expressions=[value.copy()])
        infinite = exp.Anonymous(this="isinf", expressions=[value.copy()])
        one, zero = exp.Literal.number(1), exp.Literal.number(0)
        found["infinities"] = exp.Sum(this=exp.Case(ifs=[exp.If(this=infinite, true=one)], default=zero))
        value = exp.Case(ifs=[exp.If(this=finite, true=value)])
    found |= {"minimum": exp.Min(this=value.copy()), "maximum": exp.Max(this=value.copy())}
    if is_number(field.type):
        number = exp.cast(value.copy(), "DOUBLE")
        found |= {"mean": exp.Avg(this=number), "deviation": exp.StddevSamp(this=number.copy())}
        points = exp.array(*(exp.Literal.number(str(q)) for q in QUANTILES))
        name = "quantile_cont" if exact else "approx_quantile"
        found["quantiles"] = exp.Anonymous(this=name, expressions=[number.copy(), points])
    return found


def _described(field: pa.Field, total: int, answer: dict[str, Any], number: int) -> ColumnDescription:
    def figure(key: str) -> Any:
        return answer.get(f"f{number}_{key}")

    nulls, infinities = int(figure("nulls") or 0), int(figure("infinities") or 0)
    quantiles = figure("quantiles")
    return ColumnDescription(
        name=field.name,
        type=str(field.type),
        count=total - nulls - infinities,
        nulls=nulls,
        infinities=infinities,
        distinct=figure("distinct"),
        mean=figure("mean"),
        standard_deviation=figure("deviation"),
        minimum=figure("minimum"),
        quantiles=None if quantiles is None else dict(zip(QUANTILES, quantiles, strict=True)),
        maximum=figure("maximum"),
    )


def _correlation(
    rows: Table, columns: Sequence[ColumnDescription], engine: Engine
) -> tuple[tuple[str, ...], Array, int]:
    """Of numeric columns that vary. Rows with a NULL or an infinity in any of them are left out."""
    names = [c.name for c in columns if c.mean is not None and c.minimum != c.maximum]
    if len(names) < 2:
        return tuple(names), np.eye(len(names)), 0
    numeric = Numeric(nulls="drop", infinities="null")
    encoding = Encoding(features=dict.fromkeys(names, numeric)).fit(rows)
    with BlockSource(rows, encoding) as source:
        gram = engine.aggregate(source, Gram(encoding.design))
    with np.errstate(invalid="ignore", divide="ignore"):  # constant among the complete rows: no correlation
        spread = np.sqrt(np.diag(gram.features))
        return tuple(names), gram.features / np.outer(spread, spread), gram.rows


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


def _texts(quantiles: dict[float, Any] | None) -> dict[str, Any] | None:
    return None if quantiles is None else {str(key): value for key, value in quantiles.items()}


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _aligned(lines: list[list[str]]) -> str:
    """Columns of text: the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def row(line: list[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        return "  ".join([line[0].ljust(widths[0]), *cells])

    return "\n".join(map(row, lines))
