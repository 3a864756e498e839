"""Values as text, as scripts print them: doubles as Java writes them, matrices in rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from braidwater.dml.scipy_on_demand import sparse
from braidwater.dml.values import SCHEMA, Frame, ListValue, is_matrix, is_sparse


def text_of(value: Any) -> str:
    """A value as ``print`` and string concatenation show it."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return java_double(value)
    if is_matrix(value) or isinstance(value, Frame | ListValue):
        return to_string(value)
    return str(value)


def java_double(value: float) -> str:
    """A double as Java's ``Double.toString`` writes it: the shortest digits, plain from 0.001 up to 10 million.

    >>> [java_double(x) for x in (1.0, 1e6, 1e7, 0.001, 1e-4, 123456789.125, float("inf"), -0.0)]
    ['1.0', '1000000.0', '1.0E7', '0.001', '1.0E-4', '1.23456789125E8', 'Infinity', '-0.0']
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    size = abs(value)
    if value == 0 or 1e-3 <= size < 1e7:
        return repr(float(value))
    digits, exponent = np.format_float_scientific(value, trim="0").split("e")
    return f"{digits}E{int(exponent)}"


def to_string(
    value: Any,
    rows: int = 100,
    cols: int = 100,
    decimal: int = 3,
    sparse_form: bool = False,
    sep: str = " ",
    linesep: str = "\n",
) -> str:
    """What the built-in ``toString`` gives.

    >>> to_string(np.array([[1.0, 0.5], [-2.25, 1e10]]))
    '1.000 0.500\\n-2.250 10000000000.000\\n'
    """
    if isinstance(value, ListValue):
        return _list(value, rows, cols, decimal)
    if isinstance(value, Frame):
        return _frame(value, rows, cols, decimal, sep, linesep)
    if not is_matrix(value):
        return text_of(value)
    part = value[:rows, :cols]
    if sparse_form:
        entries = sparse.coo_array(part)
        places = sorted(zip(entries.row.tolist(), entries.col.tolist(), entries.data.tolist(), strict=True))
        return "".join(f"{i + 1}{sep}{j + 1}{sep}{_decimal(x, decimal)}{linesep}" for i, j, x in places if x != 0)
    array = part.toarray() if is_sparse(part) else part
    return "".join(sep.join(_decimal(cell, decimal) for cell in row) + linesep for row in array.tolist())


def _decimal(value: float, digits: int) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:.{digits}f}"


def _frame(frame: Frame, rows: int, cols: int, decimal: int, sep: str, linesep: str) -> str:
    shown = frame.take(slice(0, rows), range(min(cols, len(frame.names))))
    height, width = frame.shape
    head = f"# FRAME: nrow = {height}, ncol = {width}{linesep}# {sep.join(shown.names)}{linesep}"
    kinds = f"# {sep.join(SCHEMA[kind] for kind in shown.types)}{linesep}"
    return head + kinds + "".join(sep.join(_cell(cell, decimal) for cell in row) + linesep for row in shown.rows())


def _cell(cell: Any, decimal: int) -> str:
    return _decimal(cell, decimal) if isinstance(cell, float) else "" if cell is None else text_of(cell)


def _list(value: ListValue, rows: int, cols: int, decimal: int) -> str:
    lines = ["List containing:"]
    for place, (name, item) in enumerate(zip(value.names, value.items, strict=True), 1):
        text = to_string(item, rows, cols, decimal)
        lines.append(
            f"{name or f'[{place}]'}: {text}" if "\n" not in text else f"{name or f'[{place}]'}:\n{text.rstrip()}"
        )
    return "\n".join(lines) + "\n"
