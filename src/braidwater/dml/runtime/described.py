"""What a recorded program is made for, and what it leaves behind: descriptions that later values are compared with."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from braidwater.dml.hops import Facts, Hop
from braidwater.dml.hops.facts import is_csr
from braidwater.dml.plan.signature import bucket

Described: TypeAlias = tuple[type, Any, Any]

DOUBLE = np.dtype(np.float64)
NUMBERS_AND_TEXT = frozenset({float, int, bool, str})


class Result(NamedTuple):
    """A variable that a program leaves, and what kind of number it is; None: a matrix."""

    name: str
    kind: type | None


class Condition(NamedTuple):
    """A number that follows from those that a block finds, and the value that it must have."""

    hop: Hop
    value: Any


def described(value: Any) -> Described:
    """Kind, sizes, and how cells lie (bytes to the next row and column) or how full it is: programs hold for equal ones."""
    kind = type(value)
    if kind in NUMBERS_AND_TEXT:
        return kind, None, None
    if kind is np.ndarray:
        return (np.ndarray, value.shape, value.strides) if value.dtype is DOUBLE else (np.ndarray, None, value.dtype)
    if is_csr(value):
        return kind, value.shape, bucket(Facts.of(value))
    return kind, None, None
