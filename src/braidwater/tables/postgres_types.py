"""Words and types of PostgreSQL: what is selected of a column, and queries in its SQL."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from braidwater.errors import TableError
from braidwater.tables.duckdb import parse_query

_LISTED = (pa.types.is_integer, pa.types.is_floating)


@dataclass(frozen=True)
class Field:
    """A column: its Arrow type, the expression that is selected for it, and whether text comes for a decimal."""

    name: str
    type: pa.DataType
    value: exp.Expression

    @cached_property
    def text(self) -> str:
        return str(self.value.sql())

    @staticmethod
    def of(field: pa.Field) -> Field:
        column = exp.column(field.name, quoted=True)
        if not isinstance(field.type, pa.BaseExtensionType):
            wide = pa.types.is_nested(field.type) and not any(known(field.type.value_type) for known in _LISTED)
            if wide or pa.types.is_interval(field.type):
                return Field(field.name, pa.string(), exp.cast(column, "TEXT"))
            return Field(field.name, _without_names(field.type), column)
        numeric = getattr(field.type, "type_name", "") == "numeric"
        digits = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1")) - 4
        precision, scale = digits >> 16, digits & 0x7FF
        if numeric and digits >= 0 and precision <= 38 and scale <= precision:
            return Field(field.name, pa.decimal128(precision, scale), exp.cast(column, "TEXT"))
        if numeric:
            return Field(field.name, pa.float64(), _double(column))
        return Field(field.name, pa.string(), exp.cast(column, "TEXT"))

    def decode(self, values: pa.Array) -> pa.Array:
        return values if values.type == self.type else pc.cast(values, self.type)


def _without_names(type: pa.DataType) -> pa.DataType:
    return pa.list_(type.value_type) if pa.types.is_list(type) else type


def plain_values(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Sums of integers come as NUMERIC, which the driver gives as text."""
    if not isinstance(values.type, pa.BaseExtensionType):
        return values
    stored = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    if getattr(values.type, "type_name", "") != "numeric":
        return stored
    try:
        return pc.cast(stored, pa.int64())
    except pa.ArrowInvalid:
        return pc.cast(stored, pa.float64())


def in_postgres(query: exp.Select) -> exp.Select:
    """What other engines call by a function of its own, in words that PostgreSQL has."""

    def turned(node: exp.Expression) -> exp.Expression:
        name = node.name.lower() if isinstance(node, exp.Anonymous) else ""
        arguments = node.expressions if name else []
        if name == "isnan" or isinstance(node, exp.IsNan):
            return exp.EQ(this=_double(arguments[0] if name else node.this), expression=_number("NaN"))
        if name in ("isfinite", "isinf") or isinstance(node, exp.IsInf):
            value = _double(arguments[0] if name else node.this)
            infinite = exp.In(this=value, expressions=[_number("Infinity"), _number("-Infinity")])
            if name != "isfinite":
                return infinite
            return exp.Not(this=exp.In(this=value, expressions=[*infinite.expressions, _number("NaN")]))
        if name in ("quantile_cont", "approx_quantile", "quantile"):
            points = exp.cast(arguments[1].copy(), exp.DataType.build("double precision[]", dialect="postgres"))
            function = exp.Anonymous(this="percentile_cont", expressions=[points])
            return exp.WithinGroup(this=function, expression=exp.Order(expressions=[exp.Ordered(this=arguments[0])]))
        if isinstance(node, exp.ApproxDistinct):
            return exp.Count(this=exp.Distinct(expressions=[node.this]))
        return node

    return query.transform(turned)


def _double(value: exp.Expression) -> exp.Expression:
    return exp.cast(value.copy(), "DOUBLE")


def _number(text: str) -> exp.Expression:
    return exp.cast(exp.Literal.string(text), "DOUBLE")


def parsed(query: str) -> exp.Query:
    parsed = parse_query(query, dialect="postgres")
    for table in parsed.find_all(exp.Table):  # names fold to lower case here, and are quoted when they are sent
        for part in (table.this, table.args.get("db"), table.args.get("catalog")):
            if isinstance(part, exp.Identifier) and not part.quoted:
                part.set("this", part.this.lower())
    return parsed


def table_of(name: str) -> exp.Table:
    """A table name as it is written in SQL, in quotes where it has to be."""
    source = parsed(name)
    found = source.find(exp.Table)
    if found is None or not isinstance(found.this, exp.Identifier) or len(source.sql()) > len(found.sql()) + 16:
        raise TableError(f"{name!r} is no name of a table to write to.")
    for part in (found.this, found.args.get("db")):
        if part is not None:
            part.set("quoted", True)
    return found
