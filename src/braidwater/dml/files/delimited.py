"""CSV files as matrices and frames, read and written by Arrow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from braidwater.dml.files.metadata import Metadata
from braidwater.dml.files.parts import parts_of, replacing
from braidwater.dml.values import Frame, dense
from braidwater.errors import DMLValueError

MISSING = ("", "NA", "NaN", "nan")
_ARROW = {"double": pa.float64(), "int": pa.int64(), "boolean": pa.bool_(), "string": pa.string()}
_BAD_CELL = re.compile(r"CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to \w+: invalid value '(.*)'")


def read_csv_matrix(path: Path, metadata: Metadata) -> Any:
    """A matrix from numbers with separators. Empty cells are `default` where `fill` is set, else refused."""
    parts = []
    for part in parts_of(path):
        width = _width(part, metadata)
        names = [f"C{place + 1}" for place in range(width)]
        found = _read(part, metadata, names, dict.fromkeys(names, pa.float64()), (*MISSING[:1], *metadata.na_strings))
        columns = [_filled(column, name, path, metadata) for name, column in zip(names, found.columns, strict=True)]
        parts.append(_side_by_side(columns, found.num_rows))
    return parts[0] if len(parts) == 1 else np.vstack(parts) if parts else np.zeros((0, 0))


def _side_by_side(columns: list[Any], rows: int) -> Any:
    """Columns of doubles without missing cells as a matrix. Arrow's own way to numpy imports pandas, for half a second."""
    matrix = np.empty((rows, len(columns)))
    for place, column in enumerate(columns):
        begin = 0
        for chunk in column.chunks:
            matrix[begin : begin + len(chunk), place] = np.from_dlpack(chunk)
            begin += len(chunk)
    return matrix


def _filled(column: Any, name: str, path: Path, metadata: Metadata) -> Any:
    if column.null_count:
        if metadata.na_strings:
            column = column.fill_null(float("nan"))
        elif metadata.fill:
            column = column.fill_null(float(metadata.default))
        else:
            raise DMLValueError(
                f"{path.name} has {column.null_count} empty cells in column {name[1:]}.",
                hint="fill=TRUE, default=0 fills them.",
            )
    return column


def read_csv_frame(path: Path, metadata: Metadata) -> Frame:
    """A frame; columns are strings unless a schema says otherwise."""
    parts, names, kinds = [], list[str](), list[str]()
    for part in parts_of(path):
        width = _width(part, metadata)
        names = _header(part, metadata) or [f"C{place + 1}" for place in range(width)]
        kinds = list(metadata.schema) or ["string"] * width
        if len(kinds) != width:
            raise DMLValueError(f"{path.name} has {width} columns, and the schema has {len(kinds)}.")
        unique = [f"C{place + 1}" for place in range(width)]
        types = {name: _ARROW[kind] for name, kind in zip(unique, kinds, strict=True)}
        parts.append(_read(part, metadata, unique, types, (*MISSING[:2], *metadata.na_strings)))
    table = pa.concat_tables(parts) if parts else pa.table({})
    columns = [_frame_column(column, kind) for column, kind in zip(table.columns, kinds, strict=True)]
    return Frame.of(columns, names, kinds)


def _frame_column(column: Any, kind: str) -> Any:
    if kind == "string":
        return np.array([None if cell in ("", None) else cell for cell in column.to_pylist()], dtype=object)
    fill = {"double": float("nan"), "int": 0, "boolean": False}[kind]
    return column.fill_null(fill).to_numpy(zero_copy_only=False)


def _read(part: Path, metadata: Metadata, names: list[str], types: dict[str, Any], missing: tuple[str, ...]) -> Any:
    try:
        return csv.read_csv(
            part,
            read_options=csv.ReadOptions(column_names=names, skip_rows=int(metadata.header), block_size=1 << 22),
            parse_options=csv.ParseOptions(delimiter=_separator(metadata)),
            convert_options=csv.ConvertOptions(
                column_types=types, null_values=list(dict.fromkeys(missing)), strings_can_be_null=False,
                true_values=["TRUE", "true", "1"], false_values=["FALSE", "false", "0"],
            ),
        )  # fmt: skip
    except pa.ArrowInvalid as error:
        raise _unreadable(part, metadata, str(error)) from None


def _unreadable(part: Path, metadata: Metadata, text: str) -> DMLValueError:
    found = _BAD_CELL.search(text)
    if found:
        line = f"line {int(found[2]) + metadata.header}, " if found[2] else ""
        hint = 'header=TRUE leaves the first line out; data_type="frame" reads text.'
        return DMLValueError(
            f"{part.name}, {line}column {int(found[1]) + 1} holds {found[3]!r}, which is no number.", hint=hint
        )
    return DMLValueError(
        f"{part.name} cannot be read as CSV: {text.splitlines()[0]}.",
        hint=f"The separator is {metadata.sep!r}; sep= changes it.",
    )


def _separator(metadata: Metadata) -> str:
    if len(metadata.sep) != 1:
        raise DMLValueError(f"sep={metadata.sep!r} is not possible; it must be one character.")
    return metadata.sep


def _first_line(part: Path) -> str:
    with part.open(encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\r\n")


def _width(part: Path, metadata: Metadata) -> int:
    line = _first_line(part)
    return len(line.split(_separator(metadata))) if line else 0


def _header(part: Path, metadata: Metadata) -> list[str] | None:
    return [word.strip('"') for word in _first_line(part).split(metadata.sep)] if metadata.header else None


def write_csv(value: Any, path: Path, metadata: Metadata) -> None:
    """A matrix (numbers as Python writes them, which read back to the same double) or a frame."""
    columns = (
        [np.ascontiguousarray(column) for column in dense(value).T] if not isinstance(value, Frame) else value.columns
    )
    names = value.names if isinstance(value, Frame) else [f"C{place + 1}" for place in range(len(columns))]
    arrays = [
        pa.array(column, from_pandas=False) if column.dtype != object else pa.array(column.tolist())
        for column in columns
    ]
    options = csv.WriteOptions(
        include_header=metadata.header,
        delimiter=_separator(metadata),
        quoting_style="needed" if isinstance(value, Frame) else "none",
    )
    with replacing(path) as place:
        csv.write_csv(pa.table(arrays, names=names), place, options)
