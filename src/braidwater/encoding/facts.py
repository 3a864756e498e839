"""Asking a table for what encoders need to know of its columns: from metadata where it is there, else by its own SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
from sqlglot import exp

from braidwater.encoding.base import ColumnFacts
from braidwater.errors import EmptyTableError
from braidwater.tables.base import Table
from braidwater.tables.missing import missing

MAX_COUNTED = 1_000_000  # more different values than this are not brought out of the table


def gather(table: Table, needs: Mapping[str, frozenset[str]]) -> dict[str, ColumnFacts]:
    """The facts that are needed, by column. One query for all figures, one for the categories of each categorical column."""
    facts = {name: ColumnFacts(name, table.schema.field(name).type) for name in needs}
    open_needs = dict(needs)
    known = table.statistics([name for name, wanted in needs.items() if wanted & {"minimum", "maximum", "nulls"}])
    if known.exact and known.rows == 0:
        raise EmptyTableError(f"Table {table.name!r} has no rows, so there is nothing to fit.")
    for name, column in known.columns.items():
        floating = pa.types.is_floating(facts[name].type)  # its NaNs count as NULLs, and metadata do not know them
        found: dict[str, Any] = {
            "minimum": column.minimum,
            "maximum": column.maximum,
            "nulls": None if floating else column.nulls,
        }
        facts[name] = replace(facts[name], **{k: v for k, v in found.items() if v is not None})
        open_needs[name] = frozenset(want for want in needs[name] if found.get(want) is None)
    _ask_figures(table, open_needs, facts)
    for name, wanted in open_needs.items():
        if wanted & {"categories", "mode"}:
            facts[name] = _with_categories(table, facts[name])
    return facts


def _ask_figures(table: Table, needs: Mapping[str, frozenset[str]], facts: dict[str, ColumnFacts]) -> None:
    asked = [(name, want) for name, wanted in needs.items() for want in sorted(wanted - {"categories", "mode"})]
    if not asked:
        return
    figures = [_figure(name, want, facts[name].type).as_(f"f{i}") for i, (name, want) in enumerate(asked)]
    row = table.select(exp.select(*figures).from_("this")).to_pylist()[0]
    for i, (name, want) in enumerate(asked):
        value = row[f"f{i}"]
        if want in ("mean", "deviation") and value is not None:
            value = float(value)
        changed: dict[str, Any] = {"maximum" if want == "size" else want: value}
        facts[name] = replace(facts[name], **changed)


def _figure(name: str, want: str, type: pa.DataType) -> exp.Expression:
    value: exp.Expression = exp.column(name, quoted=True)
    match want:
        case "nulls":
            return missing(value, type)
        case "size":
            return exp.Max(this=exp.ArraySize(this=value))
        case "minimum":
            return exp.Min(this=value)
        case "maximum":
            return exp.Max(this=value)
    number = exp.cast(value, "DOUBLE")
    if pa.types.is_floating(type):
        finite = exp.Anonymous(this="isfinite", expressions=[value.copy()])
        number = exp.Case(ifs=[exp.If(this=finite, true=number)])
    return exp.Avg(this=number) if want == "mean" else exp.StddevPop(this=number)


def _with_categories(table: Table, facts: ColumnFacts) -> ColumnFacts:
    """The values with their counts, in their order. NaNs and NULLs are left out."""
    value = exp.column(facts.name, quoted=True)
    query = (
        exp.select(value.as_("value"), exp.Count(this=exp.Star()).as_("rows"))
        .from_("this")
        .where(value.copy().is_(exp.null()).not_())
    )
    if pa.types.is_floating(facts.type):
        query = query.where(exp.Anonymous(this="isnan", expressions=[value.copy()]).not_())
    counted = table.select(query.group_by(value.copy()).limit(MAX_COUNTED)).to_pylist()
    pairs = sorted(((row["value"], int(row["rows"])) for row in counted), key=_by_value)
    mode: Any = max(pairs, key=lambda pair: pair[1])[0] if pairs else None
    return replace(facts, categories=pairs, mode=mode)


def _by_value(pair: tuple[Any, int]) -> Any:
    return pair[0]
