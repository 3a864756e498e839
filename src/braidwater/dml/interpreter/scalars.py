"""Operators of scalars, strings among them; the arithmetic is `braidwater.dml.operators.numbers`."""

from __future__ import annotations

import numpy as np

from braidwater.dml.interpreter.printing import text_of
from braidwater.dml.operators.cellwise import UNARY
from braidwater.dml.operators.numbers import COMPARE, arithmetic, to_integer
from braidwater.dml.values import Scalar, kind_of, with_article
from braidwater.errors import DMLTypeError

__all__ = ["binary", "function", "to_integer", "unary"]


def binary(op: str, a: Scalar, b: Scalar) -> Scalar:
    """``a op b``.

    >>> binary("/", 7, 2), binary("%/%", -7, 2), binary("%%", -7, 2), binary("^", 2, 3)
    (3.5, -3, -1, 8.0)
    >>> binary("+", "n = ", 1e7)
    'n = 1.0E7'
    """
    if isinstance(a, str) or isinstance(b, str):
        return _text(op, a, b)
    return arithmetic(op, a, b)


def _text(op: str, a: Scalar, b: Scalar) -> Scalar:
    if op == "+":
        return text_of(a) + text_of(b)
    if op in COMPARE:
        return COMPARE[op](text_of(a), text_of(b))
    raise DMLTypeError(
        f"'{op}' cannot combine {with_article(kind_of(a))} and {with_article(kind_of(b))}.",
        hint="as.double(s) makes a number of a string.",
    )


def number_in(text: str) -> float | None:
    """The number that a text holds, as the cells of frames do that were read without a schema; None where it holds none.

    >>> number_in("1e3"), number_in("graz")
    (1000.0, None)
    """
    try:
        return float(text)
    except ValueError:
        return None


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
