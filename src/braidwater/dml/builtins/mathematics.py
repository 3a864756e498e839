"""Functions of each cell, and the smaller and larger of several values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.interpreter import scalars
from braidwater.dml.interpreter.lazy import Lazy, is_matrix_value
from braidwater.dml.operators.cellwise import BINARY, UNARY
from braidwater.dml.values import Frame, ListValue, kind_of, with_article
from braidwater.errors import DMLTypeError

NAMED = ("abs", "sqrt", "exp", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "sign", "floor", "ceil",
         "round", "sigmoid", "is.nan", "is.infinite")  # fmt: skip
ALIASES = {"ceil": ("ceiling",), "is.nan": ("isNaN",), "is.infinite": ("isInf",)}


def cellwise(caller: Caller, name: str, value: Any) -> Any:
    """A function of one variable of a matrix or number."""
    if isinstance(value, Frame | ListValue):
        raise DMLTypeError(f"{caller.name} needs a matrix or a number, and got {with_article(kind_of(value))}.")
    if isinstance(value, Lazy) and not value.is_matrix and name.startswith("is."):
        value = caller.force(value)
    if isinstance(value, Lazy) or is_matrix_value(value):
        return caller.node(name, value)
    return scalars.function(name, value)


def _declare(name: str) -> None:
    @builtin(f"{name}(X: value)", f"Of each cell: {UNARY[name][1]}.", *ALIASES.get(name, ()))
    def run(caller: Caller, X: Any) -> Any:
        return cellwise(caller, name, X)


for _name in NAMED:
    _declare(_name)


@builtin("is.na(X: value)", "TRUE (1 in a matrix) where a value is missing: NaN, or an empty cell of a frame.", "isNA")
def is_na(caller: Caller, X: Any) -> Any:
    if isinstance(X, Frame):
        return Frame.of(
            [[cell is None or cell != cell or cell == "" for cell in column.tolist()] for column in X.columns],
            X.names,
            ["boolean"] * len(X.names),
        )
    if isinstance(X, str):
        return X in ("", "NA")
    return cellwise(caller, "is.na", X)


@builtin("log(X: value, base: number = none)", "Natural logarithm, or to a base; -Inf at zero, NaN below.")
def log(caller: Caller, X: Any, base: Any) -> Any:
    if base is None:
        return cellwise(caller, "log", X)
    if isinstance(X, float | int) and isinstance(base, float | int):
        # log2 and log10 are exact where the quotient of two logarithms is not
        exact = {2.0: "log2", 10.0: "log10"}.get(float(base))
        with np.errstate(all="ignore"):
            return float(getattr(np, exact)(float(X)) if exact else np.log(float(X)) / np.log(float(base)))
    return caller.node("logbase", X, base)


def _extreme(name: str) -> Callable[..., Any]:
    def run(caller: Caller, items: list[tuple[str | None, Any]]) -> Any:
        values = [value for _, value in items]
        if not values:
            raise DMLTypeError(f"{name} needs at least one argument.")
        if len(values) == 1:
            return caller.node(name, values[0]) if is_matrix_value(values[0]) else caller.force(values[0])
        if not any(isinstance(value, Lazy) or is_matrix_value(value) for value in values):
            return _of_scalars(name, values)
        found = values[0]
        for value in values[1:]:
            found = caller.node(f"p{name}", found, value)
        return found

    return run


def _of_scalars(name: str, values: list[Any]) -> float | int:
    for value in values:
        if isinstance(value, str | Frame | ListValue):
            raise DMLTypeError(f"{name} needs numbers, and got {with_article(kind_of(value))}.")
    if len(values) == 2 and all(type(value) is int for value in values):
        return int((min if name == "min" else max)(values))
    missing = next((float(value) for value in values if value != value), None)
    return missing if missing is not None else float((min if name == "min" else max)(values))


for _name, _what in (("min", "least"), ("max", "greatest")):
    builtin(
        f"{_name}(items...: value)",
        f"The {_what} cell of a matrix; of several matrices and numbers, cell by cell.",
        f"p{_name}",
    )(_extreme(_name))


@builtin("ifelse(test: value, yes: value, no: value)", "Cell by cell yes where test is not 0, else no.")
def ifelse(caller: Caller, test: Any, yes: Any, no: Any) -> Any:
    if not is_matrix_value(test) and not is_matrix_value(yes) and not is_matrix_value(no):
        return yes if caller.force(test) else no
    if not is_matrix_value(test) and is_matrix_value(yes) and is_matrix_value(no):
        chosen = yes if caller.force(test) else no
        if caller.shape(yes) == caller.shape(no):
            return chosen
    for value in (test, yes, no):
        if isinstance(value, str | Frame | ListValue):
            raise DMLTypeError(f"ifelse needs matrices or numbers, and got {with_article(kind_of(value))}.")
    return caller.node("ifelse", test, yes, no)


def _declare_binary(name: str) -> None:
    @builtin(f"{name}(X: value, Y: value)", f"Cell by cell: {BINARY[name][1]}.")
    def run(caller: Caller, X: Any, Y: Any) -> Any:
        if is_matrix_value(X) or is_matrix_value(Y):
            return caller.node(name, X, Y)
        found = BINARY[name][0](caller.force(X), caller.force(Y))
        return bool(found) if name == "xor" else int(found)


for _name in ("xor", "bitwAnd", "bitwOr", "bitwXor", "bitwShiftL", "bitwShiftR"):
    _declare_binary(_name)


@builtin(
    "ppred(X: value, Y: value, op: string)",
    'Cell by cell comparison by an operator: ppred(X, 0, ">"). Old scripts use it.',
)
def ppred(caller: Caller, X: Any, Y: Any, op: str) -> Any:
    return caller.interpreter.expressions.binary(op, X, Y, caller.span)
