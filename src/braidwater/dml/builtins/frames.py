"""Frames: tables of strings and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.files.metadata import schema_of
from braidwater.dml.values import SCHEMA, Frame, kind_of
from braidwater.errors import DMLShapeError, DMLTypeError


@builtin(
    "frame(data: value, rows: int, cols: int, schema: value = none)",
    "A frame of one value, or of values separated by spaces in a string.",
)
def frame(caller: Caller, data: Any, rows: int, cols: int, schema: Any) -> Frame:
    data = caller.force(data)
    words = data.split() if isinstance(data, str) else [data]
    if len(words) == rows * cols and len(words) != 1:
        cells = np.array(words, dtype=object).reshape(rows, cols)
    elif len(words) <= 1 or not isinstance(data, str):
        cells = np.full((rows, cols), data, dtype=object)
    else:
        raise DMLShapeError(f"{len(words)} values do not make a {rows} x {cols} frame.")
    given = types_of(caller, schema) if schema is not None else None
    kinds = ["string" if isinstance(data, str) else {"integer": "int"}.get(kind_of(data), kind_of(data))] * cols
    if given is not None:
        kinds = list(given) * (cols if len(given) == 1 else 1)
    return Frame.of([_converted(cells[:, place], kind) for place, kind in enumerate(kinds)], types=kinds)


def types_of(caller: Caller, schema: Any) -> list[str]:
    """Column types from a frame of one row (as detectSchema gives), or from a text."""
    if isinstance(schema, Frame):
        return list(schema_of([column[0] for column in schema.columns], "schema"))
    return list(schema_of(caller.force(schema), "schema"))


def _converted(cells: Any, kind: str) -> Any:
    if kind == "string":
        return cells
    if kind == "boolean":
        return np.array([str(cell).upper() in ("TRUE", "1", "1.0") for cell in cells])
    try:
        numbers = np.array([float("nan") if cell in (None, "", "NA") else float(cell) for cell in cells.tolist()])
        return numbers if kind == "double" else numbers.astype(np.int64)
    except ValueError as error:
        raise DMLTypeError(f"A column cannot be made {kind}: {error}.") from None


@builtin("applySchema(target: frame, schema: value)", "A frame with its columns as other types.")
def apply_schema(caller: Caller, target: Frame, schema: Any) -> Frame:
    kinds = types_of(caller, schema)
    if len(kinds) != len(target.names):
        raise DMLShapeError(f"The schema has {len(kinds)} types, and the frame {len(target.names)} columns.")
    columns = [_converted(column.astype(object), kind) for column, kind in zip(target.columns, kinds, strict=True)]
    return Frame.of(columns, target.names, kinds)


@builtin(
    "detectSchema(target: frame)",
    "A frame of one row with each column's narrowest type: BOOLEAN, INT64, FP64 or STRING.",
)
def detect_schema(caller: Caller, target: Frame) -> Frame:
    return Frame.of(
        [[SCHEMA[_narrowest(column)]] for column in target.columns], target.names, ["string"] * len(target.names)
    )


def _narrowest(column: Any) -> str:
    cells = [cell for cell in column.tolist() if cell not in (None, "", "NA") and cell == cell]
    if cells and all(isinstance(cell, bool) or str(cell).upper() in ("TRUE", "FALSE") for cell in cells):
        return "boolean"
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return "string"
    whole = cells and all(number.is_integer() and abs(number) < 2**63 for number in numbers)
    written = (
        all("." not in str(cell) and "e" not in str(cell).lower() for cell in cells)
        if column.dtype == object
        else whole
    )
    return "int" if whole and (written or column.dtype != object) else "double"


@builtin("dropInvalidType(target: frame, schema: value)", "Cells that are not of their column's type made missing.")
def drop_invalid_type(caller: Caller, target: Frame, schema: Any) -> Frame:
    kinds = types_of(caller, schema)
    columns = []
    for column, kind in zip(target.columns, kinds, strict=True):
        columns.append([cell if _fits(cell, kind) else None for cell in column.tolist()])
    return Frame.of(columns, target.names, ["string"] * len(target.names))


def _fits(cell: Any, kind: str) -> bool:
    if kind == "string" or cell is None:
        return True
    if kind == "boolean":
        return str(cell).upper() in ("TRUE", "FALSE", "0", "1")
    try:
        number = float(cell)
    except ValueError:
        return False
    return kind == "double" or number.is_integer()


@builtin("dropInvalidLength(target: frame, lengths: matrix)", "Cells longer than their column's length made missing.")
def drop_invalid_length(caller: Caller, target: Frame, lengths: Any) -> Frame:
    longest = caller.array(lengths).ravel()
    columns = [
        [cell if cell is None or limit < 0 or len(str(cell)) <= limit else None for cell in column.tolist()]
        for column, limit in zip(target.columns, longest, strict=True)
    ]
    return Frame.of(columns, target.names, ["string"] * len(target.names))


@builtin("colnames(target: frame)", "The names of the columns, as a frame of one row.")
def column_names(caller: Caller, target: Frame) -> Frame:
    return Frame.of([[name] for name in target.names], types=["string"] * len(target.names))


@builtin("freplicate(target: frame, count: int)", "The rows of a frame, that many times.")
def replicate(caller: Caller, target: Frame, count: int) -> Frame:
    return Frame.of([np.tile(column, count) for column in target.columns], target.names, target.types)
