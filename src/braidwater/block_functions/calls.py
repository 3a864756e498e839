"""A function of named arrays: where each argument comes from, what it gives, and what does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from braidwater.block_functions.arrays import Array, block_array, cells, dtype_of
from braidwater.errors import ColumnNotFoundError, ColumnTypeError, OptionError
from braidwater.tables import Table

Arrays = Literal["auto", "numpy", "torch"]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Arguments:
    """The arguments of a function: `columns` maps those that are columns to their names, `constants` are the others."""

    function: Function
    columns: Mapping[str, str]
    constants: Mapping[str, Any]
    torch: bool

    def of_block(self, batch: pa.RecordBatch) -> dict[str, Array]:
        """The columns as whole arrays ``(rows, *shape)``, by argument."""
        taken = {column: block_array(batch.column(column), column) for column in set(self.columns.values())}
        return {name: taken[column] for name, column in self.columns.items()}

    def of_rows(self, batch: pa.RecordBatch) -> list[dict[str, Array]]:
        """The cells of each row, by argument."""
        taken = {column: cells(batch.column(column), column) for column in set(self.columns.values())}
        return [{name: taken[column][row] for name, column in self.columns.items()} for row in range(batch.num_rows)]

    def call(self, arrays: Mapping[str, Array]) -> Any:
        """The function's answer, its tensors as arrays."""
        if not self.torch:
            return self.function(**arrays, **self.constants)
        import torch

        with torch.no_grad():
            tensors = {name: torch.from_numpy(np.require(array, None, "W")) for name, array in arrays.items()}
            return self.function(**tensors, **self.constants)


def bind(
    function: Function,
    rows: Table,
    *,
    feed: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
    arrays: Arrays = "auto",
    endings: Sequence[str] = ("", "_input"),
) -> Arguments:
    """Where the arguments of `function` come from. All that does not fit is an error here, before a row is read.

    An argument is the constant or the column of its name, or the one that `feed` says, or the column whose name has one
    of the `endings` added to it.
    """
    if arrays not in ("auto", "numpy", "torch"):
        raise OptionError("arrays", arrays, "one of auto, numpy, torch")
    feed, constants = dict(feed or {}), dict(constants or {})
    needed, optional = _parameters(function)
    for given, what in ((feed, "feed"), (constants, "constants")):
        for name in given:
            if name not in {*needed, *optional}:
                raise OptionError(what, name, f"an argument of {_name(function)} ({', '.join((*needed, *optional))})")
    columns: dict[str, str] = {}
    for name in (*needed, *optional):
        column = feed.get(name) or _column(name, rows, endings)
        if name in constants:
            continue
        if column is not None:
            rows.require([column])
            columns[name] = column
        elif name in needed:
            raise ColumnNotFoundError(rows.name, name, rows.column_names)
    if not columns:
        raise OptionError("function", _name(function), "a function with at least one argument that is a column")
    for column in columns.values():
        type_ = rows.schema.field(column).type
        if dtype_of(type_) is None:
            raise ColumnTypeError(
                f"Column {column!r} is {type_}, which makes no array: numbers, truth values, text, bytes and lists of numbers "
                "do. Cast it in a SELECT."
            )
    return Arguments(function, columns, constants, _wants_tensors(function) if arrays == "auto" else arrays == "torch")


def outputs(answer: Any, function: Function) -> dict[str, Any]:
    """What a function gave, by the names of the columns to be: a dictionary, or one array under the function's name."""
    found = answer if isinstance(answer, Mapping) else {_name(function): answer}
    if "<lambda>" in found or not found:
        raise OptionError("function", "<lambda>", "one that returns a dictionary of arrays by name, or has a name")
    return {str(name): _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return np.asarray(value)


def _parameters(function: Function) -> tuple[list[str], list[str]]:
    """The names of the arguments that must be given, and of those that have a default."""
    try:
        module = getattr(function, "forward", None)  # torch modules are called by their own __call__(*args)
        told = inspect.signature(function if module is None else module).parameters.values()
    except (TypeError, ValueError) as error:
        raise OptionError("function", function, "one whose arguments have names") from error
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [one for one in told if one.kind in kinds]
    empty = inspect.Parameter.empty
    return [one.name for one in named if one.default is empty], [one.name for one in named if one.default is not empty]


def _column(name: str, rows: Table, endings: Sequence[str]) -> str | None:
    known = set(rows.column_names)
    for ending in endings:
        column = name.removesuffix(ending) if ending else name
        if name.endswith(ending) and column in known:
            return column
    return None


def _wants_tensors(function: Function) -> bool:
    if any(kind.__module__.startswith("torch.nn") for kind in type(function).__mro__):
        return True
    notes = getattr(function, "__annotations__", {})
    return any("Tensor" in str(note) for name, note in notes.items() if name != "return")


def _name(function: Function) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
