"""Lists as folders: a file for each item, of its number (from 0) and its name, as SystemDS writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from braidwater.dml.files.metadata import Metadata, beside, write_metadata
from braidwater.dml.files.parts import replacing
from braidwater.dml.values import ListValue
from braidwater.errors import DMLValueError

NAMELESS = "null"
_FILE = re.compile(r"(\d+)_(.+)")

Read = Callable[[str, Mapping[str, Any]], Any]
Write = Callable[[Any, str, Mapping[str, Any]], None]


def write_list(value: ListValue, path: Path, said: Mapping[str, Any], write: Write) -> None:
    """Each item by `write`, in the format that is said; items that are no matrices are scalars, frames and lists again."""
    with replacing(path) as place:
        place.mkdir()
        for number, (item, name) in enumerate(zip(value.items, value.names, strict=True)):
            write(item, str(place / f"{number}_{name or NAMELESS}"), said)
    write_metadata(path, Metadata("list", "unknown", said.get("format") or "text", rows=len(value), cols=1))


def read_list(path: Path, metadata: Metadata, read: Read) -> ListValue:
    """The items of a folder in the order of their numbers, by `read`.

    Raises DMLValueError where there are others than the numbers 0, 1, ... up to the rows that the side file says.
    """
    found = {}
    for file in path.iterdir() if path.is_dir() else ():
        match = _FILE.fullmatch(file.name)
        if match and file.suffix != ".mtd":
            found[int(match[1])] = (file, match[2])
    count = len(found) if metadata.rows is None else metadata.rows
    if sorted(found) != list(range(count)):
        hint = f"{beside(path).name} says how many; their files are named 0_name, 1_name, ..."
        raise DMLValueError(f"The folder {path.name} holds {len(found)} of the {count} items of a list.", hint=hint)
    files = [found[number] for number in range(count)]
    return ListValue(
        [read(str(file), {}) for file, _ in files], [None if name == NAMELESS else name for _, name in files]
    )
