"""Counting NULLs where the rows lie. A NaN in a floating column counts as one."""

from __future__ import annotations

import pyarrow as pa
from sqlglot import exp

from braidwater.tables.base import Table


def missing_count(table: Table, column: str) -> tuple[int, int]:
    """How many rows have a NULL (or NaN) in `column`, and how many rows there are. One scan of that column."""
    value = exp.column(column, quoted=True)
    count = exp.Count(this=exp.Star()).as_("rows")
    query = exp.select(count, missing(value, table.schema.field(column).type).as_("missing")).from_("this")
    row = table.select(query).to_pylist()[0]
    return int(row["missing"] or 0), int(row["rows"])


def missing(value: exp.Expression, type: pa.DataType) -> exp.Expression:
    """The SQL that counts them in a column of this type."""
    condition: exp.Expression = value.copy().is_(exp.null())
    if pa.types.is_floating(type):
        condition = exp.or_(condition, exp.Anonymous(this="isnan", expressions=[value.copy()]))
    return exp.Sum(
        this=exp.Case(ifs=[exp.If(this=condition, true=exp.Literal.number(1))], default=exp.Literal.number(0))
    )
