"""Bounds of an index for every turn of a loop at once: an expression's least and greatest value, turn by turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from braidwater.dml.syntax.nodes import Binary, Call, Constant, Expression, Name, Unary

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Interval:
    """For each turn the least and the greatest value; infinite where nothing is known."""

    low: Array
    high: Array

    @staticmethod
    def exactly(values: Array | float) -> Interval:
        array = np.asarray(values, dtype=np.float64)
        return Interval(array, array)

    @staticmethod
    def unknown() -> Interval:
        return Interval(np.asarray(-np.inf), np.asarray(np.inf))

    def hull(self, other: Interval) -> Interval:
        return Interval(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())


def bound(node: Expression | None, known: Mapping[str, Interval]) -> Interval:
    """The interval of an expression over variables with known ones (Moore 1966); unknown for what is no plain arithmetic."""
    match node:
        case Constant(value=value) if isinstance(value, float | int):
            return Interval.exactly(value)
        case Name(name=name):
            return known.get(name, Interval.unknown())
        case Unary(op="-", operand=operand):
            inner = bound(operand, known)
            return Interval(-inner.high, -inner.low)
        case Binary(op=op, left=left, right=right) if op in ("+", "-", "*", "/", "%/%"):
            return _combined(op, bound(left, known), bound(right, known))
        case Call(name=name, arguments=arguments) if (
            name in ("as.integer", "as.double", "floor", "as.scalar") and len(arguments) == 1
        ):
            inner = bound(arguments[0].value, known)
            return Interval(np.floor(inner.low), inner.high)
        case Call(name=name, arguments=arguments) if name in ("min", "max") and len(arguments) == 2:
            a, b = (bound(given.value, known) for given in arguments)
            choose = np.minimum if name == "min" else np.maximum
            return Interval(choose(a.low, b.low), choose(a.high, b.high))
    return Interval.unknown()


def _combined(op: str, a: Interval, b: Interval) -> Interval:
    if op == "+":
        return Interval(a.low + b.low, a.high + b.high)
    if op == "-":
        return Interval(a.low - b.high, a.high - b.low)
    if op in ("/", "%/%") and not (np.all(b.low > 0) or np.all(b.high < 0)):
        return Interval.unknown()
    if not (a.known and b.known):
        return Interval.unknown()
    corners = [_corner(op, x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    low, high = np.minimum.reduce(np.broadcast_arrays(*corners)), np.maximum.reduce(np.broadcast_arrays(*corners))
    return Interval(np.trunc(low), np.trunc(high)) if op == "%/%" else Interval(low, high)


def _corner(op: str, x: Array, y: Array) -> Array:
    return x * y if op == "*" else x / y


def overlaps(first: Interval, second: Interval, turns: int) -> bool:
    """Whether in two different turns, of an inclusive range of cells in each, the ranges meet. Cost: a sort."""
    a_low, a_high = (np.broadcast_to(end, turns) for end in (first.low, first.high))
    b_low, b_high = (np.broadcast_to(end, turns) for end in (second.low, second.high))
    # pairs that meet = all pairs less those where b begins after a ends, or ends before a begins
    begun = np.searchsorted(np.sort(b_low), a_high, side="right")
    ended = np.searchsorted(np.sort(b_high), a_low, side="left")
    same_turn = (b_low <= a_high) & (b_high >= a_low)
    return bool((begun - ended).sum() > same_turn.sum())
