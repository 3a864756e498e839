"""Arithmetic of scalars, with the numbers of the language's reference implementation (64-bit integers and doubles of Java)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from braidwater.dml.interpreter.printing import text_of
from braidwater.dml.operators.cellwise import UNARY
from braidwater.dml.values import Scalar, kind_of, with_article
from braidwater.errors import DMLTypeError

LONGEST = 2**63 - 1
COMPARE: dict[str, Callable[[Scalar, Scalar], bool]] = {
    "<": lambda a, b: a < b,  # type: ignore[operator]
    "<=": lambda a, b: a <= b,  # type: ignore[operator]
    ">": lambda a, b: a > b,  # type: ignore[operator]
    ">=": lambda a, b: a >= b,  # type: ignore[operator]
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def binary(op: str, a: Scalar, b: Scalar) -> Scalar:
    """``a op b``.

    >>> binary("/", 7, 2), binary("%/%", -7, 2), binary("%%", -7, 2), binary("^", 2, 3)
    (3.5, -3, -1, 8.0)
    >>> binary("+", "n = ", 1e7)
    'n = 1.0E7'
    """
    if isinstance(a, str) or isinstance(b, str):
        return _text(op, a, b)
    if op in COMPARE:
        return COMPARE[op](a, b)
    if op in ("&", "|"):
        return bool(a) and bool(b) if op == "&" else bool(a) or bool(b)
    if type(a) is int and type(b) is int and op not in ("/", "^"):
        return _integers(op, a, b)
    return _doubles(op, float(a), float(b))


def _text(op: str, a: Scalar, b: Scalar) -> Scalar:
    if op == "+":
        return text_of(a) + text_of(b)
    if op in COMPARE:
        return COMPARE[op](text_of(a), text_of(b))
    raise DMLTypeError(
        f"'{op}' cannot combine {with_article(kind_of(a))} and {with_article(kind_of(b))}.",
        hint="as.double(s) makes a number of a string.",
    )


def _integers(op: str, a: int, b: int) -> int:
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    if op == "*":
        return a * b
    return to_integer(_doubles(op, float(a), float(b)))


def to_integer(value: float) -> int:
    """Java's cast: towards zero, NaN to 0, what is too large to the largest.

    >>> to_integer(-2.7), to_integer(float("nan")), to_integer(float("-inf"))
    (-2, 0, -9223372036854775808)
    """
    if math.isnan(value):
        return 0
    return int(max(-LONGEST - 1, min(LONGEST, value))) if math.isinf(value) else int(value)


def _doubles(op: str, a: float, b: float) -> float:
    try:
        match op:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
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


def unary(op: str, a: Scalar) -> Scalar:
    """``-a``, ``+a`` or ``!a``."""
    if isinstance(a, str):
        raise DMLTypeError(
            f"'{op}' cannot be applied to the string {a!r}.", hint="as.double(s) makes a number of a string."
        )
    if op == "!":
        return not a
    if op == "-":
        return -a if not isinstance(a, bool) else -float(a)
    return a


def function(name: str, a: Scalar) -> Scalar:
    """A function of one variable of a number."""
    if isinstance(a, str):
        raise DMLTypeError(
            f"{name} needs a number, not the string {a!r}.", hint="as.double(s) makes a number of a string."
        )
    if name == "abs" and type(a) is int:
        return abs(a)
    with np.errstate(all="ignore"):
        found = UNARY[name][0](np.float64(a))
    return bool(found) if name.startswith("is.") else float(found)
