"""A function of the cells of a frame, in the few words of Java that scripts use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.builtins.java import compile_lambda
from braidwater.dml.builtins.java_library import java_text
from braidwater.dml.builtins.patterns import replace_uncommon
from braidwater.dml.builtins.smoothing import smooth
from braidwater.dml.values import Frame
from braidwater.errors import DMLShapeError, DMLValueError, UnsupportedError


@builtin("map(target: frame, function: string, margin: int = 0)",
         'Each cell by a function written "x -> x.toLowerCase()"; margin 1: each row as an array x, 2: each column.')  # fmt: skip
def map_cells(caller: Caller, target: Frame, function: str, margin: int) -> Frame:
    if "->" not in function:
        return _whole(target, function)
    if margin not in (0, 1, 2):
        raise DMLValueError(f"margin={margin} is not possible; it must be 0 (cells), 1 (rows) or 2 (columns).")
    apply = compile_lambda(function)
    if "jaccardSim" in function:
        return _pairs(target, apply)
    if margin == 0:
        return _texts(
            [[None if cell is None else apply(_text(cell)) for cell in each.tolist()] for each in target.columns],
            target,
        )
    columns = [[_text(cell) for cell in column.tolist()] for column in target.columns]
    if margin == 2:
        return _texts([_array(apply(column), len(column), function) for column in columns], target)
    rows = [_array(apply(list(row)), len(columns), function) for row in zip(*columns, strict=True)]
    return _texts([list(column) for column in zip(*rows, strict=True)], target)


def _whole(target: Frame, function: str) -> Frame:
    """The two functions of SystemDS that take all of a frame."""
    name, _, inside = function.removeprefix("UtilFunctions.").partition("(")
    given = inside.rstrip(") ")
    if name == "syntacticalPatternDiscovery":
        threshold, replacement = given.split(",")
        return replace_uncommon(target, float(threshold), replacement)
    if name == "exponentialMovingAverageImputation":
        _, mode, period, *weights = given.split(";")
        return smooth(target, mode, int(period), [float(weight) for weight in weights])
    raise UnsupportedError(f'map cannot run {function!r}. A function is written "x -> x.toLowerCase()".')


def _pairs(target: Frame, apply: Callable[..., Any]) -> Frame:
    """A function of each pair of a column's cells, above the diagonal; 0.0 elsewhere."""
    cells = target.columns[0].tolist()
    made = np.full((len(cells), len(cells)), "0.0", dtype=object)
    for row, first in enumerate(cells):
        for column in range(row + 1, len(cells)):
            if first is not None and cells[column] is not None:
                made[row, column] = apply(_text(first), _text(cells[column]))
    return Frame.of(list(made.T), types=["string"] * len(cells))


def _array(found: Any, count: int, function: str) -> list[str]:
    if not isinstance(found, list) or len(found) != count:
        raise DMLShapeError(f"{function!r} must give an array of {count}: new String[]{{...}}.")
    return found


def _text(cell: Any) -> str:
    return "null" if cell is None else cell if isinstance(cell, str) else java_text(cell)


def _texts(columns: list[Any], target: Frame) -> Frame:
    return Frame.of(columns, target.names, ["string"] * len(target.names))
