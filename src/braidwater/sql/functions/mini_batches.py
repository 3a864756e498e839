"""minibatch_preprocessor: rows shuffled, standardised and packed by the dozen into arrays of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.aggregates import Moments
from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array
from braidwater.encoding import Encoding
from braidwater.encoding.selectors import is_text
from braidwater.engines import default_engine
from braidwater.errors import ColumnTypeError, OptionError
from braidwater.sql.functions.buffers import as_array, buffers
from braidwater.sql.names import match_columns
from braidwater.sql.place import Place, arrow_rows
from braidwater.sql.registry import Columns, Expression, Output, Source, function
from braidwater.sql.rows import Features, TrainingRows, check_columns, of_groups, training_rows

PACKED = {"__id__": "bigint", "dependent_varname": "float8[][]", "independent_varname": "float8[][]"}
SUMMARY = {
    "source_table": "text", "output_table": "text", "dependent_varname": "text", "independent_varname": "text",
    "buffer_size": "integer", "class_values": "text[]", "num_rows_processed": "bigint", "num_missing_rows_skipped": "bigint",
    "grouping_cols": "text",
}  # fmt: skip
# MADlib packs a million rows into one array; that is 1.3 GB for 20 numbers a row, beyond what a cell may hold
BUFFER_BYTES = 64 * 10**6


@function()
def minibatch_preprocessor(
    place: Place,
    source_table: Source,
    output_table: Output,
    dependent_varname: Expression,
    independent_varname: Expression,
    grouping_col: Columns = None,
    buffer_size: int | None = None,
    one_hot_encode_int_dep_var: bool = False,
) -> None:
    """Shuffle, standardise and pack rows into arrays, for trainers that take mini-batches.

    source_table: the table of the rows; those with a NULL in a variable are left out.
    output_table: the table to write into; OUT_summary and OUT_standardization are written beside it.
    dependent_varname: the label, an expression; texts and truth values become arrays of 0 and 1.
    independent_varname: the numbers to learn from: ARRAY[a, b], or a column of arrays.
    grouping_col: columns; each group of rows that agree in them is standardised and packed on its own.
    buffer_size: rows of an array; as many as take 64 MB where it is NULL.
    one_hot_encode_int_dep_var: whether an integer label is a class too.
    """
    summary, scales = output_table.suffixed("_summary"), output_table.suffixed("_standardization")
    place.refuse_existing(output_table, summary, scales)
    if buffer_size is not None and buffer_size < 1:
        raise OptionError("buffer_size", buffer_size, "at least 1")
    schema = place.schema(source_table)
    groups = match_columns("grouping_col", grouping_col or (), schema.names, source_table.text)
    features = Features.of(independent_varname, constant=False)
    label = check_columns(place, dependent_varname, source_table)
    known = exp.not_(exp.Is(this=exp.paren(label.copy()), expression=exp.null()))
    probe = (
        place.select(exp.select(label.as_("y")).from_(source_table.table).where(known).limit(1)).schema.field("y").type
    )
    classes = _classes(place, source_table, label, probe, integers=one_hot_encode_int_dep_var)
    columns = _columns(probe, classes)
    standardised: list[dict[str, Any]] = []
    processed = skipped = largest = 0
    place.create(output_table, columns, [], keys=groups, of=source_table)
    for key, where in of_groups(place, source_table, groups):
        kind = "text" if classes is not None else "float8[]" if pa.types.is_nested(probe) else "float8"
        rows = training_rows(place, source_table, features, label=dependent_varname, label_type=kind, where=where)
        mean, deviation = _moments(place, rows)
        size = buffer_size or max(BUFFER_BYTES // (8 * len(mean)), 1)
        named = dict(zip(groups, key, strict=True))
        standardised.append(named | {"mean": mean, "std": deviation})
        processed, skipped, largest = processed + rows.used, skipped + rows.skipped, max(largest, min(size, rows.used))
        held = output_table.suffixed("_braidwater_held")
        with buffers(place, rows.query, held, size, shuffle=True) as parts:
            for number, part in enumerate(parts):
                packed = _packed(part, rows, classes, mean, deviation) | {"__id__": number}
                place.insert(output_table, arrow_rows([named | packed], columns, keys=groups))
    place.create(scales, {"mean": "float8[]", "std": "float8[]"}, standardised, keys=groups, of=source_table)
    about = {
        "source_table": source_table.text, "output_table": output_table.text,
        "dependent_varname": dependent_varname.sql("postgres"), "independent_varname": independent_varname.sql("postgres"),
        "buffer_size": largest, "class_values": classes, "num_rows_processed": processed,
        "num_missing_rows_skipped": skipped, "grouping_cols": ", ".join(groups) or None,
    }  # fmt: skip
    place.create(summary, SUMMARY, [about])


def _classes(place: Place, source: Source, label: Expression, type: pa.DataType, *, integers: bool) -> list[str] | None:
    """The classes as text, in their order; None where the label is a number."""
    if pa.types.is_nested(type):
        return None
    categorical = is_text(type) or pa.types.is_boolean(type) or (pa.types.is_integer(type) and integers)
    if not categorical:
        if not (pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type)):
            raise ColumnTypeError(f"The dependent variable is {type}; cast it to text or to a number.")
        return None
    query = exp.select(
        exp.cast(exp.paren(label.copy()), place.sql_type("text")).as_("c"), exp.paren(label.copy()).as_("y")
    )
    query = (
        query.distinct()
        .from_(source.table)
        .where(exp.not_(exp.Is(this=exp.paren(label.copy()), expression=exp.null())))
    )
    return [str(one) for one in place.select(query.order_by("y")).column("c").to_pylist()]


def _moments(place: Place, rows: TrainingRows) -> tuple[Array, Array]:
    encoding = Encoding(features=list(rows.features)).fit(rows.table)
    with BlockSource(rows.table, encoding) as source:
        found = (place.engine or default_engine()).aggregate(source, Moments(encoding.design))
    return found.mean, np.sqrt(found.variance)


def _packed(
    part: pa.Table, rows: TrainingRows, classes: list[str] | None, mean: Array, deviation: Array
) -> dict[str, Any]:
    arrays = [as_array(part.column(name), name) for name in rows.features]
    matrix = arrays[0] if arrays[0].ndim > 1 else np.column_stack(arrays)
    assert rows.label is not None
    labels: Any = part.column(rows.label).to_pylist()
    if classes is not None:
        codes = {name: code for code, name in enumerate(classes)}
        labels = list(np.eye(len(classes))[[codes[one] for one in labels]])
    return {
        "dependent_varname": labels,
        "independent_varname": list((matrix - mean) / np.where(deviation > 0, deviation, 1.0)),
    }


def _columns(type: pa.DataType, classes: list[str] | None) -> dict[str, str]:
    flat = classes is None and not pa.types.is_nested(type)
    return PACKED | ({"dependent_varname": "float8[]"} if flat else {})
