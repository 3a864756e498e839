"""Frames as JSON: an object a line, or one array of objects; a column for each key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from braidwater.dml.files.metadata import Metadata
from braidwater.dml.files.parts import parts_of, replacing
from braidwater.dml.interpreter.printing import text_of
from braidwater.dml.values import Frame, dense
from braidwater.errors import DMLValueError

KINDS = {frozenset({bool}): "boolean", frozenset({int}): "int", frozenset({float}): "double",
         frozenset({int, float}): "double"}  # fmt: skip
"""The type of a column by the types of its cells; of any others it is string."""


def read_json(path: Path, metadata: Metadata) -> Frame:
    """A frame from the objects of a file, or of the parts in a folder. A key that an object lacks, and null, are missing.

    Columns have the types of a schema, or those of their cells: boolean, int, double, else string.

    Raises DMLValueError for what is no JSON, no object, or a cell that is an array or object.
    """
    rows = [row for part in parts_of(path) for row in _objects(part)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    if metadata.schema and len(metadata.schema) != len(names):
        raise DMLValueError(f"{path.name} has {len(names)} keys, and the schema {len(metadata.schema)} types.")
    columns = [[row.get(name) for row in rows] for name in names]
    kinds = list(metadata.schema) or [_kind(column) for column in columns]
    return Frame.of([_stored(column, kind) for column, kind in zip(columns, kinds, strict=True)], names, kinds)


def _objects(part: Path) -> Iterator[dict[str, Any]]:
    for place, row in _values(part):
        if not isinstance(row, dict):
            raise DMLValueError(f"{part.name}, {place}, is no JSON object.")
        for name, cell in row.items():
            if isinstance(cell, dict | list):
                hint = "A frame has one value a cell."
                raise DMLValueError(f"{part.name}, {place}, holds an array or object as {name!r}.", hint=hint)
        yield row


def _values(part: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = part.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DMLValueError(f"{part.name} is no JSON: {error}.") from None
    if text.lstrip().startswith("["):
        yield from ((f"object {place}", row) for place, row in enumerate(_parsed(text, part, ""), 1))
        return
    for place, line in enumerate(text.split("\n"), 1):  # splitlines would cut texts at U+2028 too
        if line.strip():
            yield f"line {place}", _parsed(line, part, f", line {place},")


def _parsed(text: str, part: Path, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DMLValueError(f"{part.name}{place} is no JSON: {error}.") from None


def _kind(column: list[Any]) -> str:
    held = frozenset(type(cell) for cell in column if cell is not None)
    kind = KINDS.get(held, "string")
    # columns of integers and of truth values have no missing cells
    return {"int": "double", "boolean": "string"}.get(kind, kind) if None in column else kind


def _stored(column: list[Any], kind: str) -> Any:
    if kind == "string":
        column = [None if cell is None else text_of(cell) for cell in column]
    elif kind == "double":
        column = [np.nan if cell is None else cell for cell in column]
    return np.array(column, dtype=object)


def write_json(value: Any, path: Path) -> None:
    """A frame or matrix, an object a line. Missing cells, which JSON has no numbers for, are null; so is Inf."""
    frame = value if isinstance(value, Frame) else Frame.of(dense(value).T)
    with replacing(path) as place, place.open("w", encoding="utf-8") as file:
        for row in frame.rows():
            cells = {name: _written(cell) for name, cell in zip(frame.names, row, strict=True)}
            file.write(json.dumps(cells, ensure_ascii=False) + "\n")


def _written(cell: Any) -> Any:
    return None if isinstance(cell, float) and not np.isfinite(cell) else cell
