"""Frames: tables of strings and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.files.metadata import schema_of
from braidwater.dml.interpreter.printing import text_of
from braidwater.dml.interpreter.scalars import to_integer
from braidwater.dml.values import SCHEMA, Frame, ListValue
from braidwater.errors import DMLShapeError, DMLTypeError


@builtin("frame(data: value, rows: int, cols: int, schema: value = none)",
         'A frame (of strings, without a schema) full of one value, or of the values of a list row by row: '
         'frame(["a", "b"], rows=1, cols=2). A string of as many words as there are cells stands for them.')  # fmt: skip
def frame(caller: Caller, data: Any, rows: int, cols: int, schema: Any) -> Frame:
    items = data.items if isinstance(data, ListValue) else (data,)
    values = [text_of(value) if isinstance(value, bool) else value for value in map(caller.force, items)] or [""]
    if len(values) == 1 and isinstance(values[0], str) and len(values[0].split()) == rows * cols > 1:
        values = values[0].split()
    if len(values) not in (1, rows * cols):
        raise DMLShapeError(f"{len(values)} values do not make a {rows} x {cols} frame.")
    cells = np.empty(rows * cols, dtype=object)
    cells[:] = values * (rows * cols if len(values) == 1 else 1)
    given = types_of(caller, schema) if schema is not None else None
    kinds = list(given or ["string"]) * (cols if given is None or len(given) == 1 else 1)
    return Frame.of([_converted(cells[place::cols], kind) for place, kind in enumerate(kinds)], types=kinds)


def types_of(caller: Caller, schema: Any) -> list[str]:
    """Column types from a frame of one row (as detectSchema gives), a list, or a text."""
    if isinstance(schema, Frame):
        return list(schema_of([column[0] for column in schema.columns], "schema"))
    if isinstance(schema, ListValue):
        return list(schema_of([caller.force(item) for item in schema.items], "schema"))
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


@builtin("freplicate(target: frame, row: value)",
         "The frame with every row replaced by a frame of one row; with a number, its rows that many times.")  # fmt: skip
def replicate(caller: Caller, target: Frame, row: Any) -> Frame:
    if isinstance(row, Frame):
        if row.shape != (1, target.shape[1]):
            raise DMLShapeError(
                f"freplicate needs one row of {target.shape[1]} cells, and got {row.shape[0]} x {row.shape[1]}."
            )
        return Frame.of([np.repeat(column, target.shape[0]) for column in row.columns], target.names, row.types)
    count = to_integer(float(caller.force(row)))
    return Frame.of([np.tile(column, count) for column in target.columns], target.names, target.types)
