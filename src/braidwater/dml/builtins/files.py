"""Reading and writing."""

from __future__ import annotations

from typing import Any

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.interpreter.lazy import settled
from braidwater.dml.interpreter.printing import text_of
from braidwater.dml.values import Frame, ListValue

NAMES = ("format", "rows", "cols", "header", "sep", "data_type", "value_type", "schema", "fill", "default", "naStrings",
         "rows_in_block", "cols_in_block", "nnz", "sparse", "dataset", "description", "author")  # fmt: skip
OPTIONS = ", ".join(f"{name}: {'value' if name in ('schema', 'naStrings') else 'scalar'} = none" for name in NAMES)
_RENAMED = {"naStrings": "na.strings"}


@builtin(f"read(path: string, {OPTIONS})",
         "A matrix, frame, scalar or list from a file (csv, text, mm, binary, libsvm, hdf5, json, parquet) or any address of "
         "a table; <path>.mtd describes it. Of several data sets in an HDF5 file `dataset` says which.")  # fmt: skip
def read(caller: Caller, path: str, **options: Any) -> Any:
    from braidwater.dml.files.reading import read_value

    return read_value(path, _said(options), caller.context)


@builtin(f"write(value: value, path: string, {OPTIONS})",
         "Write a matrix, frame, scalar or list (a folder), and <path>.mtd beside it; format is csv, text, mm, binary, "
         "libsvm, hdf5, json (an object a line) or parquet.")  # fmt: skip
def write(caller: Caller, value: Any, path: str, **options: Any) -> None:
    from braidwater.dml.files.writing import write_value

    write_value(_gathered(caller, value), path, _said(options), caller.context)


def _gathered(caller: Caller, value: Any) -> Any:
    if isinstance(value, ListValue):
        return ListValue([_gathered(caller, settled(item)) for item in value.items], value.names)
    return caller.gathered(value)


def _said(options: dict[str, Any]) -> dict[str, Any]:
    found = {_RENAMED.get(name, name): value for name, value in options.items() if value is not None}
    for name, value in found.items():
        if isinstance(value, ListValue):
            found[name] = [text_of(item) for item in value.items]
        elif isinstance(value, Frame):
            found[name] = [text_of(column[0]) for column in value.columns]
    return found


@builtin("setwd(path: string)", "The folder that relative paths begin at.")
def set_directory(caller: Caller, path: str) -> None:
    caller.context.directory = caller.context.directory / path
