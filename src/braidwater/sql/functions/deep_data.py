"""training_preprocessor_dl and validation_preprocessor_dl: rows packed into binary buffers for nets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.blocks.base import Array
from braidwater.errors import DataError, EmptyTableError, OptionError, UnsupportedError
from braidwater.sql.functions.buffers import as_array, buffers
from braidwater.sql.names import Name, match_columns
from braidwater.sql.place import Place, arrow_rows
from braidwater.sql.registry import Columns, Integers, Output, Source, function

MOST = 5  # inputs, and outputs, as in MADlib
BUFFER_BYTES = 64 * 10**6


@function()
def training_preprocessor_dl(
    place: Place,
    source_table: Source,
    output_table: Output,
    dependent_varname: Columns,
    independent_varname: Columns,
    buffer_size: int | None = None,
    normalizing_const: float = 1.0,
    num_classes: Integers | None = None,
    distribution_rules: str = "all_segments",
) -> None:
    """Shuffle and pack rows for training: inputs as float32, classes as arrays of 0 and 1 (int16).

    source_table: the table of the rows.
    output_table: the table to write into; OUT_summary is written beside it.
    dependent_varname: the column of the class, or up to five, by commas. Arrays of numbers are taken to be coded already.
    independent_varname: the column of arrays of numbers, or up to five, by commas.
    buffer_size: rows of a buffer; as many as take 64 MB where it is NULL.
    normalizing_const: what every number of the inputs is divided by, such as 255.0.
    num_classes: how many classes each dependent column is coded with, at least as many as it has.
    distribution_rules: 'all_segments'; there are no others here.
    """
    if normalizing_const == 0 or not np.isfinite(normalizing_const):
        raise OptionError("normalizing_const", normalizing_const, "a finite number other than 0")
    labels, inputs = _columns(place, source_table, dependent_varname, independent_varname)
    if num_classes is not None and len(num_classes) != len(labels):
        raise OptionError("num_classes", num_classes, f"{len(labels)} numbers, one for each dependent column")
    found = {}
    for number, label in enumerate(labels):
        values = _class_values(place, source_table, label)
        if values is not None and num_classes is not None:
            if num_classes[number] < len(values):
                raise OptionError(
                    "num_classes", num_classes[number], f"at least {len(values)}, the classes of {label!r}"
                )
            values = [*values, *[None] * (num_classes[number] - len(values))]
        found[label] = values
    _pack(
        place, source_table, output_table, inputs, found, buffer_size, normalizing_const, num_classes, distribution_rules,
        shuffle=True,
    )  # fmt: skip


@function()
def validation_preprocessor_dl(
    place: Place,
    source_table: Source,
    output_table: Output,
    dependent_varname: Columns,
    independent_varname: Columns,
    training_preprocessor_table: Source,
    buffer_size: int | None = None,
    distribution_rules: str = "all_segments",
) -> None:
    """Pack rows for evaluation as training_preprocessor_dl has packed those for training, in their order.

    source_table: the table of the rows.
    output_table: the table to write into; OUT_summary is written beside it.
    dependent_varname: the column of the class, or up to five, by commas.
    independent_varname: the column of arrays of numbers, or up to five, by commas.
    training_preprocessor_table: what training_preprocessor_dl wrote; classes and the constant are read from its _summary.
    buffer_size: rows of a buffer; as many as take 64 MB where it is NULL.
    distribution_rules: 'all_segments'; there are no others here.
    """
    labels, inputs = _columns(place, source_table, dependent_varname, independent_varname)
    summary = training_preprocessor_table.suffixed("_summary")
    place.schema(summary)
    rows = place.select(exp.select("*").from_(summary.table)).to_pylist()
    trained = [name for name in (rows[0] if rows else {}) if name.endswith("_class_values")]
    if not rows or len(trained) != len(labels):
        raise DataError(
            f"Table {training_preprocessor_table.text} was not written by training_preprocessor_dl for these columns."
        )
    known = {label: rows[0][name] for label, name in zip(labels, trained, strict=True)}
    _pack(
        place, source_table, output_table, inputs, known, buffer_size, float(rows[0]["normalizing_const"]),
        rows[0]["num_classes"], distribution_rules, shuffle=False,
    )  # fmt: skip


def _columns(place: Place, source: Name, labels: Columns, inputs: Columns) -> tuple[tuple[str, ...], tuple[str, ...]]:
    schema = place.schema(source)
    for argument, given in (("dependent_varname", labels), ("independent_varname", inputs)):
        if not given or len(given) > MOST:
            raise OptionError(argument, given, f"one to {MOST} columns")
    return (
        match_columns("dependent_varname", labels or (), schema.names, source.text),
        match_columns("independent_varname", inputs or (), schema.names, source.text),
    )


def _class_values(place: Place, source: Name, label: str) -> list[str | None] | None:
    """The values of a column as text, in their order, NULL first; None for arrays, which are coded already."""
    if pa.types.is_nested(place.schema(source).field(label).type):
        return None
    column = exp.column(label, quoted=True)
    text = exp.cast(column, place.sql_type("text"))
    order = exp.Ordered(this=exp.column("v"), nulls_first=True)
    query = exp.select(text.as_("c"), column.as_("v")).distinct().from_(source.table).order_by(order)
    return list(place.select(query).column("c").to_pylist())


def _pack(
    place: Place,
    source: Name,
    output: Name,
    inputs: tuple[str, ...],
    labels: dict[str, list[str | None] | None],
    buffer_size: int | None,
    constant: float,
    num_classes: list[int] | None,
    rules: str,
    *,
    shuffle: bool,
) -> None:
    if rules != "all_segments":
        raise UnsupportedError(f"distribution_rules={rules!r} is for a cluster of segments; here it is 'all_segments'.")
    if buffer_size is not None and buffer_size < 1:
        raise OptionError("buffer_size", buffer_size, "at least 1")
    summary = output.suffixed("_summary")
    place.refuse_existing(output, summary)
    text = place.sql_type("text")
    selected = [exp.column(name, quoted=True) for name in inputs]
    for label, values in labels.items():
        column = exp.column(label, quoted=True)
        selected.append(column if values is None else exp.cast(column, text).as_(label, quoted=True))
    query = exp.select(*selected).from_(source.table)
    size = buffer_size or _affordable(place, query, inputs)
    types = dict.fromkeys([*inputs, *labels], "bytea") | {f"{name}_shape": "integer[]" for name in [*inputs, *labels]}
    types |= {"buffer_id": "integer"}
    place.create(output, types, [])
    with buffers(place, query, output.suffixed("_braidwater_held"), size, shuffle=shuffle) as parts:
        count = 0
        for count, part in enumerate(parts, start=1):
            row: dict[str, Any] = {"buffer_id": count - 1}
            for name in inputs:
                row |= _binary(name, as_array(part.column(name), name).astype(np.float32) / np.float32(constant))
            for label, values in labels.items():
                row |= _binary(label, _coded(part.column(label), label, values))
            place.insert(output, arrow_rows([row], types))
    if not count:
        raise EmptyTableError(f"Table {source.text} has no rows.")
    names = place.type_names(source)
    about: dict[str, Any] = {
        "source_table": source.text, "output_table": output.text, "dependent_varname": list(labels),
        "independent_varname": list(inputs), "dependent_vartype": [names[label] for label in labels],
        **{f"{label}_class_values": values for label, values in labels.items()},
        "buffer_size": size, "normalizing_const": constant,
        "num_classes": num_classes or [None if values is None else len(values) for values in labels.values()],
        "distribution_rules": rules, "__internal_gpu_config__": rules,
    }  # fmt: skip
    kinds = {"buffer_size": "integer", "normalizing_const": "float8", "num_classes": "integer[]", "source_table": "text",
             "output_table": "text", "distribution_rules": "text", "__internal_gpu_config__": "text"}  # fmt: skip
    place.create(summary, {name: kinds.get(name, "text[]") for name in about}, [about])


def _affordable(place: Place, query: exp.Select, inputs: tuple[str, ...]) -> int:
    first = place.select(query.copy().limit(1))
    numbers = sum(as_array(first.column(name), name).size for name in inputs) if first.num_rows else 1
    return max(BUFFER_BYTES // (4 * max(numbers, 1)), 1)


def _binary(name: str, values: Array) -> dict[str, Any]:
    return {name: values.tobytes(), f"{name}_shape": list(values.shape)}


def _coded(column: pa.ChunkedArray, label: str, values: list[str | None] | None) -> Array:
    if values is None:
        return as_array(column, label).astype(np.int16)
    places = {value: place for place, value in reversed(list(enumerate(values)))}
    found = column.to_pylist()
    strange = [one for one in found if one not in places]
    if strange:
        raise DataError(f"Column {label!r} has the value {strange[0]!r}, which the training rows do not have.")
    coded = np.zeros((len(found), len(values)), np.int16)
    coded[np.arange(len(found)), [places[one] for one in found]] = 1
    return coded
