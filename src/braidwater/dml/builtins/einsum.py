"""Products and sums by Einstein's convention."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.interpreter.lazy import is_matrix_value
from braidwater.errors import DMLShapeError, DMLTypeError, DMLValueError


@builtin("einsum(equation: string, items...: value)",
         'Products summed over the letters that the result lacks: einsum("ij,jk->ik", A, B) is A %*% B. '
         "A matrix of one letter is a vector; a result of one letter is a column, of none a number.")  # fmt: skip
def einsum(caller: Caller, equation: str, items: list[tuple[str | None, Any]]) -> Any:
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or not all(term.isalpha() for term in terms) or not (output.isalpha() or not output):
        raise DMLValueError(f"{equation!r} is no equation of einsum.", hint='It is written as "ij,jk->ik".')
    if len(output) > 2 or any(len(term) > 2 for term in terms):
        raise DMLValueError(f"{equation!r} has more than two letters for a matrix.")
    if len(terms) != len(items):
        raise DMLTypeError(f"{equation!r} names {len(terms)} matrices, and {len(items)} are given.")
    arrays = [_operand(caller, value, term) for term, (_, value) in zip(terms, items, strict=True)]
    _check_sizes(terms, arrays, output, equation)
    found = np.einsum(f"{inputs}->{output}", *arrays, optimize="greedy")
    return float(found) if not output else np.array(found.reshape(found.shape[0], -1), order="C")


def _operand(caller: Caller, value: Any, term: str) -> Any:
    if not is_matrix_value(value):
        raise DMLTypeError(f"einsum needs a matrix for {term!r}.")
    array = caller.array(value)
    if len(term) == 2:
        return array
    if 1 not in array.shape:
        raise DMLShapeError(f"{term!r} stands for a vector, and this matrix is {array.shape[0]} x {array.shape[1]}.")
    return array.ravel()


def _check_sizes(terms: list[str], arrays: list[Any], output: str, equation: str) -> None:
    sizes: dict[str, int] = {}
    for term, array in zip(terms, arrays, strict=True):
        for letter, size in zip(term, array.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise DMLShapeError(f"In {equation!r} the letter {letter!r} stands for {sizes[letter]} and for {size}.")
    for letter in output:
        if letter not in sizes:
            raise DMLValueError(f"In {equation!r} no matrix has the letter {letter!r} of the result.")
