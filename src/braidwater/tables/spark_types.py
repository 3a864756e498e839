"""Types of Spark as types of Arrow, and back."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from braidwater.errors import ColumnTypeError


def arrow_schema(schema: Any, table: str) -> pa.Schema:
    """The Arrow schema of a Spark schema. `ColumnTypeError` names the first column that Arrow cannot carry."""
    from pyspark.sql.pandas.types import to_arrow_type

    fields = []
    for field in schema.fields:
        try:
            type_ = to_arrow_type(field.dataType, timezone="UTC")
        except Exception as error:
            raise ColumnTypeError(
                f"Column {field.name!r} of table {table!r} is of Spark's type {field.dataType.simpleString()}, which Arrow "
                f"cannot carry. Leave it out, or cast it in a SELECT, such as CAST({field.name} AS STRING)."
            ) from error
        fields.append(pa.field(field.name, _plain(type_)))
    return pa.schema(fields)


def spark_schema(schema: pa.Schema, table: str) -> Any:
    """The Spark schema that holds an Arrow schema: unsigned integers become wider, fixed lists become lists."""
    from pyspark.sql.pandas.types import from_arrow_schema

    fields = []
    for field in schema:
        widened = pa.field(field.name, _widened(field.type))
        try:
            from_arrow_schema(pa.schema([widened]))
        except Exception as error:
            raise ColumnTypeError(
                f"Column {field.name!r} of table {table!r} is of type {field.type}, which Spark does not have. Leave it out, or "
                "cast it in a SELECT."
            ) from error
        fields.append(widened)
    return from_arrow_schema(pa.schema(fields))


def _plain(type: pa.DataType) -> pa.DataType:
    """Without metadata and names of Spark's, so that types can be compared."""
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        return pa.list_(_plain(type.value_type))
    return type


_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.string_view(): pa.string(),
    pa.binary_view(): pa.binary(),
    pa.date64(): pa.date32(),
}


def _widened(type: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type):
        return _widened(type.value_type)
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        return pa.list_(_widened(type.value_type))
    if pa.types.is_fixed_size_binary(type):
        return pa.binary()
    if pa.types.is_timestamp(type):
        return pa.timestamp("us", type.tz)
    if pa.types.is_duration(type):
        return pa.duration("us")
    return _WIDER.get(type, type)
