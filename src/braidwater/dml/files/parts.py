"""Files that are one file or a folder of parts, and files that are replaced in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from braidwater.errors import DMLNameError


def parts_of(path: Path) -> list[Path]:
    """The file, or the parts in a folder (those that Hadoop leaves out begin with _ or a dot).

    Raises DMLNameError where there is nothing.
    """
    if path.is_dir():
        return sorted(
            part for part in path.iterdir() if part.is_file() and part.name[0] not in "._" and part.suffix != ".crc"
        )
    if not path.is_file():
        raise missing(path)
    return [path]


def missing(path: Path) -> DMLNameError:
    """The error of a file that is not there."""
    folder = path.parent
    hint = (
        f"The folder {str(folder)!r} is not there."
        if not folder.is_dir()
        else f"Relative paths begin in {os.getcwd()!r}."
    )
    return DMLNameError(f"There is no file {str(path)!r}.", hint=hint)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place to write a file or folder to.

    What was written takes `path`'s place when all is well, and otherwise nothing has changed.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        yield place
        if path.is_dir() or place.is_dir():  # no folder takes the place of anything but an empty one
            _removed(path)
        os.replace(place, path)
    finally:
        _removed(place)


def _removed(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
