"""Arithmetic of single numbers, as the language's reference implementation does it (64-bit integers and doubles of Java).

`NUMBERS` are the operators of it that do not give a double, for statements that are recorded (see
`braidwater.dml.interpreter.recording`): a script's whole numbers stay exact, and its truth values truth values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from braidwater.dml.operators.base import Attributes, Kernel, Operator, scalar_facts
from braidwater.errors import DMLTypeError

Number: TypeAlias = float | int | bool

LONGEST = 2**63 - 1
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}

ARITHMETIC = frozenset({*COMPARE, "&", "|", "+", "-", "*", "/", "^", "%%", "%/%"})


def arithmetic(op: str, a: Number, b: Number) -> Number:
    """``a op b``.

    >>> arithmetic("/", 7, 2), arithmetic("%/%", -7, 2), arithmetic("%%", -7, 2), arithmetic("^", 2, 3)
    (3.5, -3, -1, 8.0)
    """
    if op in COMPARE:
        return COMPARE[op](a, b)
    if op in ("&", "|"):
        return bool(a) and bool(b) if op == "&" else bool(a) or bool(b)
    if type(a) is int and type(b) is int and op not in ("/", "^"):
        return _integers(op, a, b)
    return _doubles(op, float(a), float(b))


def kind_of_result(op: str, a: type, b: type) -> type:
    """Whether ``a op b`` of two kinds of numbers is a truth value, a whole number or a double."""
    if op in COMPARE or op in ("&", "|"):
        return bool
    return int if a is int and b is int and op not in ("/", "^") else float


def to_integer(value: float) -> int:
    """Java's cast: towards zero, NaN to 0, what is too large to the largest.

    >>> to_integer(-2.7), to_integer(float("nan")), to_integer(float("-inf"))
    (-2, 0, -9223372036854775808)
    """
    if math.isnan(value):
        return 0
    return int(max(-LONGEST - 1, min(LONGEST, value))) if math.isinf(value) else int(value)


def _integers(op: str, a: int, b: int) -> int:
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    if op == "*":
        return a * b
    return to_integer(_doubles(op, float(a), float(b)))


def _doubles(op: str, a: float, b: float) -> float:
    try:
        match op:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
            case "/" if b:  # numpy's way, which divides by zero too, takes a hundred times as long
                return a / b
    except OverflowError:
        return math.inf
    with np.errstate(all="ignore"):
        x, y = np.float64(a), np.float64(b)
        match op:
            case "/":
                return float(x / y)
            case "^":
                return float(x**y)
            case "%%":
                return float(np.fmod(x, y))
            case "%/%":
                return float(np.trunc(x / y))
    raise DMLTypeError(f"'{op}' is no operator of numbers.")


def _kernel(op: str) -> Kernel:
    def run(values: Sequence[Any], attributes: Attributes) -> Number:
        return arithmetic(op, values[0], values[1])

    return run


NUMBERS: Mapping[str, Operator] = {
    f"number {op}": Operator(f"number {op}", scalar_facts, _kernel(op), f"{op} of whole numbers or truth values.")
    for op in sorted(ARITHMETIC - {"/", "^"})
}
