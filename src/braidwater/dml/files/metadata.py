"""The JSON file ``<path>.mtd`` beside a matrix or frame: what it is, how large, in which format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from braidwater.dml.values import SCHEMA
from braidwater.errors import DMLValueError

OF_SYSTEMDS = ("proto", "cog", "delta", "federated")
FORMATS = ("csv", "text", "mm", "binary", "libsvm", "parquet", "hdf5", "json", "table")
ALSO = {"jsonl": "json"}
TYPES = {"double": "double", "int": "int", "integer": "int", "boolean": "boolean", "string": "string",
         "fp64": "double", "fp32": "double", "int64": "int", "int32": "int", "uint8": "int", "bitset": "boolean",
         "character": "string", "unknown": "double"}  # fmt: skip


@dataclass(frozen=True)
class Metadata:
    """What is known of a file. None is what nobody said."""

    data_type: str = "matrix"
    value_type: str = "double"
    format: str | None = None
    rows: int | None = None
    cols: int | None = None
    nnz: int | None = None
    header: bool = False
    sep: str = ","
    fill: bool = True
    default: float = 0.0
    na_strings: tuple[str, ...] = ()
    schema: tuple[str, ...] = ()
    dataset: str | None = None
    further: Mapping[str, Any] = field(default_factory=dict)


def read_metadata(path: Path) -> Metadata:
    """What the side file of `path` says; nothing where there is none.

    Raises DMLValueError for a side file that is no JSON object, or says what cannot be.
    """
    side = beside(path)
    if not side.is_file():
        return Metadata()
    try:
        said = json.loads(side.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DMLValueError(f"{side.name} is no JSON: {error}.") from None
    if not isinstance(said, dict):
        raise DMLValueError(f"{side.name} must hold a JSON object.")
    return updated(Metadata(), said, side.name)


def updated(metadata: Metadata, said: Mapping[str, Any], where: str) -> Metadata:
    """`metadata` with what a side file, or the arguments of read and write, say."""
    changes: dict[str, Any] = {}
    further = dict(metadata.further)
    for name, value in said.items():
        name = {"cols_in_block": "", "rows_in_block": "", "na.strings": "na_strings", "sparse": ""}.get(name, name)
        if name in ("rows", "cols", "nnz"):
            changes[name] = _size(name, value, where)
        elif name == "schema":
            changes[name] = schema_of(value, where)
        elif name == "na_strings":
            changes[name] = tuple(value) if isinstance(value, list) else tuple(str(value).split("\u00b7"))
        elif name == "value_type":
            changes[name] = TYPES.get(str(value).lower(), "double")
        elif name in ("header", "fill"):
            changes[name] = value if isinstance(value, bool) else str(value).upper() == "TRUE"
        elif name == "format":
            changes[name] = ALSO.get(str(value), str(value))
        elif name in ("sep", "data_type", "dataset"):
            changes[name] = str(value)
        elif name in Metadata.__dataclass_fields__ and name != "further":
            changes[name] = value
        elif name:
            further[name] = value
    made = replace(metadata, **changes, further=further)
    if made.format is not None and made.format not in FORMATS:
        elsewhere = made.format in OF_SYSTEMDS
        hint = "Write the data as Parquet or csv instead." if elsewhere else f"Formats are {', '.join(FORMATS)}."
        known = ", which is SystemDS's and is not there" if elsewhere else ""
        raise DMLValueError(f"{where} says format {made.format!r}{known}.", hint=hint)
    if made.data_type not in ("matrix", "frame", "scalar", "list"):
        raise DMLValueError(
            f"{where} says data_type {made.data_type!r}.", hint="Data types are matrix, frame, scalar, list."
        )
    return made


def _size(name: str, value: Any, where: str) -> int | None:
    try:
        size = int(value)
    except (TypeError, ValueError):
        raise DMLValueError(f"{where} says {name}={value!r}, which is no number.") from None
    return None if size < 0 else size


def schema_of(value: Any, where: str) -> tuple[str, ...]:
    """Types of columns, from ``"STRING,DOUBLE"`` or a list."""
    words = value if isinstance(value, list | tuple) else str(value).split(",")
    found = []
    for word in words:
        kind = TYPES.get(str(word).strip().lower())
        if kind is None:
            raise DMLValueError(
                f"{where} has the type {word!r} in its schema.", hint="Types are DOUBLE, INT, BOOLEAN, STRING."
            )
        found.append("string" if str(word).strip().lower() == "unknown" else kind)
    return tuple(found)


def write_metadata(path: Path, metadata: Metadata) -> None:
    """The side file, so that `read` needs nothing but the path."""
    said: dict[str, Any] = {"data_type": metadata.data_type}
    said["value_type"] = metadata.value_type
    if metadata.rows is not None:
        said |= {"rows": metadata.rows, "cols": metadata.cols}
    if metadata.nnz is not None:
        said["nnz"] = metadata.nnz
    said["format"] = metadata.format
    if metadata.format == "csv":
        said |= {"header": metadata.header, "sep": metadata.sep}
    if metadata.dataset is not None:
        said["dataset"] = metadata.dataset
    if metadata.schema:
        said["schema"] = ",".join(SCHEMA[kind] for kind in metadata.schema)
    beside(path).write_text(json.dumps(said | dict(metadata.further), indent=2) + "\n", encoding="utf-8")


def beside(path: Path) -> Path:
    return path.with_name(path.name + ".mtd")


def checked(path: Path, metadata: Metadata, shape: tuple[int, int]) -> None:
    """Raise DMLValueError where a file is of another size than was said."""
    for said, found, what in ((metadata.rows, shape[0], "rows"), (metadata.cols, shape[1], "columns")):
        if said is not None and said != found:
            raise DMLValueError(
                f"{path.name} has {found} {what}, and {said} were said.",
                hint=f"Correct rows and cols in the call of read or in {beside(path).name}.",
            )
