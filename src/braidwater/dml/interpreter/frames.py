"""Cells of frames compared: ``F == G`` and ``F < "m"`` give a frame of TRUE and FALSE."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from braidwater.dml.interpreter.printing import text_of
from braidwater.dml.values import Frame, kind_of, with_article
from braidwater.errors import DMLShapeError, DMLTypeError

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def compared(op: str, a: Any, b: Any) -> Frame:
    """``a op b`` cell by cell, as numbers where both columns hold numbers, else as texts; nothing but ``!=`` holds for a
    missing cell. A frame of one row stands for all rows, a scalar for all cells.

    Raises DMLTypeError for another operator or a matrix, DMLShapeError where shapes differ.
    """
    if op not in COMPARISONS or not all(isinstance(each, Frame | str | float | int) for each in (a, b)):
        hint = "Frames are compared: ==, !=, <, <=, >, >=. as.matrix(F) makes a matrix of a frame of numbers."
        raise DMLTypeError(
            f"'{op}' cannot combine {with_article(kind_of(a))} and {with_article(kind_of(b))}.", hint=hint
        )
    frame = a if isinstance(a, Frame) else b
    rows, cols = max(each.shape for each in (a, b) if isinstance(each, Frame))
    left, right = (_columns(each, rows, cols, frame) for each in (a, b))
    made = [_compared(op, first, second) for first, second in zip(left, right, strict=True)]
    return Frame.of(made, frame.names, ["boolean"] * cols)


def _columns(value: Any, rows: int, cols: int, frame: Frame) -> list[Any]:
    if not isinstance(value, Frame):
        return [np.full(rows, value, dtype=object if isinstance(value, str) else None)] * cols
    if value.shape[1] != cols or value.shape[0] not in (1, rows):
        raise DMLShapeError(f"A {value.shape[0]} x {value.shape[1]} and a {rows} x {cols} frame cannot be compared.")
    return [np.resize(column, rows) for column in value.columns]


def _compared(op: str, first: Any, second: Any) -> Any:
    if first.dtype != object and second.dtype != object:
        return COMPARISONS[op](first, second)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return np.array(
        [op == "!=" if None in pair else COMPARISONS[op](*map(text_of, pair)) for pair in pairs], dtype=bool
    )
