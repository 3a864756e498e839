"""What is asked of each of many files: many at a time, for on network storage every question is a wait."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from braidwater.errors import TableError

Answer = TypeVar("Answer")

ASKING = 16  # threads, which wait more than they compute
AT_MOST = 32  # files that a thread takes at a time: handing over costs as much as asking a local disk


def of_each(ask: Callable[[str], Answer], files: Sequence[str]) -> list[Answer]:
    """``list(map(ask, files))``, for files many at a time; the error, if any, is that of the first file that has one.

    >>> of_each(len, ["a.parquet", "ab.parquet"])
    [9, 10]
    """
    if len(files) < ASKING:
        return list(map(ask, files))
    step = min(-(-len(files) // ASKING), AT_MOST)
    shares = [files[begin : begin + step] for begin in range(0, len(files), step)]
    with ThreadPoolExecutor(ASKING, "braidwater-files") as pool:
        return [answer for share in pool.map(lambda share: list(map(ask, share)), shares) for answer in share]


def one_schema(files: Sequence[str], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The schema of all files; `TableError` names one that has another."""
    for file, schema in zip(files, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise TableError(f"The columns of {file!r} differ from those of {files[0]!r}; give files of one schema.")
    return schemas[0]


def fingerprint_files(files: Sequence[str]) -> str:
    """Paths, sizes and times of last change."""
    folders = {folder: str(Path(folder).resolve()) for folder in {os.path.dirname(file) for file in files}}

    def facts(file: str) -> str:
        folder, name = os.path.split(file)
        path = os.path.realpath(file) if os.path.islink(file) else os.path.join(folders[folder], name)
        status = os.stat(file)
        return f"{path}:{status.st_size}:{status.st_mtime_ns}"

    return "|".join(of_each(facts, files))
