"""The SQL that packs rows: see `form` for what it makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.engines.postgres.form import EPOCH, NULLS, STORED, PackedColumn
from braidwater.tables.postgres import PostgresTable

_SENT = {
    pa.int16(): "int2", pa.int32(): "int4", pa.int64(): "int8", pa.float32(): "float4", pa.float64(): "float8",
    pa.bool_(): "bool", pa.date32(): "date",
}  # fmt: skip


def packed_columns(table: PostgresTable, names: Sequence[str]) -> tuple[PackedColumn, ...]:
    """The form of `names` of a table."""
    known = table.statistics(names).columns
    found = []
    for name in names:
        arrow = table.schema.field(name).type
        found.append(PackedColumn(name, arrow, _sent(arrow), known[name].nulls != 0))
    return tuple(found)


def _sent(type: pa.DataType) -> str:
    if type in _SENT:
        return _SENT[type]
    if pa.types.is_timestamp(type):
        return "timestamp" if type.tz is None else "timestamptz"
    if pa.types.is_list(type):
        return f"{_SENT[type.value_type]}[]"
    return "bytea" if pa.types.is_binary(type) else "text"


def block_expression(table: PostgresTable, columns: Sequence[PackedColumn]) -> exp.Expression:
    """The SQL that makes one block of all rows of its FROM."""
    parts = [part for column in columns for part in _column_parts(column, table.value(column.name))]
    filled = [exp.Coalesce(this=part, expressions=[_bytes("")]) for part in parts]
    return exp.cast(exp.array(*filled), exp.DataType.build("bytea[]", dialect="postgres"))


def _column_parts(column: PackedColumn, value: exp.Expression) -> list[exp.Expression]:
    sent = column.sent
    if sent in NULLS:
        numbers = _call(f"{sent}send", value)
        return [_joined(_or(numbers, _bytes(NULLS[sent])) if column.nullable else numbers)]
    if sent in STORED:
        suffix = "_send" if sent in EPOCH else "send"
        numbers = _call(f"{sent}{suffix}", value)
        if not column.nullable:
            return [_joined(numbers)]
        zero = _bytes("00" * np.dtype(STORED[sent]).itemsize)
        known = _call("boolsend", exp.Not(this=exp.Is(this=value.copy(), expression=exp.null())))
        gaps = exp.LT(this=exp.Count(this=value.copy()), expression=exp.Count(this=exp.Star()))
        return [_joined(_or(numbers, zero)), exp.Case(ifs=[exp.If(this=gaps, true=_joined(known))])]
    if sent == "text":
        value = _call("convert_to", exp.cast(value, "TEXT"), exp.Literal.string("UTF8"))
    length = _call("cardinality" if sent.endswith("[]") else "octet_length", value)
    data = _call("array_send", value.copy()) if sent.endswith("[]") else value.copy()
    return [_joined(_call("int4send", _or(length, exp.Literal.number(-1)))), _joined(data)]


def _call(name: str, *arguments: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this=name, expressions=[argument.copy() for argument in arguments])


def _joined(value: exp.Expression) -> exp.Expression:
    # NULL, as an empty text would be appended to each value
    nothing = exp.cast(exp.null(), exp.DataType.build("bytea", dialect="postgres"))
    return _call("string_agg", value, nothing)


def _or(value: exp.Expression, other: exp.Expression) -> exp.Expression:
    return exp.Coalesce(this=value, expressions=[other])


def _bytes(digits: str) -> exp.Expression:
    return exp.cast(exp.Literal.string(f"\\x{digits}"), exp.DataType.build("bytea", dialect="postgres"))
