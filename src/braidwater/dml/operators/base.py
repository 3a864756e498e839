"""What an operator is: a rule for the facts of its result, and a kernel that computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from braidwater.dml.hops.facts import Facts

Attributes: TypeAlias = Mapping[str, Any]
FactsRule: TypeAlias = Callable[[Sequence[Facts], Attributes], Facts]
Kernel: TypeAlias = Callable[[Sequence[Any], Attributes], Any]


@dataclass(frozen=True)
class Operator:
    """A function of matrices and scalars that the optimiser knows.

    `facts(inputs' facts, attributes)` infers sizes without computing and raises DMLShapeError where they do not go together;
    what it does not know is None, and `kernel(values, attributes)` checks it again on actual values. A kernel changes none of
    its inputs, takes dense and sparse matrices alike, and gives the same numbers for both.
    """

    name: str
    facts: FactsRule
    kernel: Kernel
    doc: str


OPERATORS: dict[str, Operator] = {}
"""All operators by name."""


def operator(name: str, facts: FactsRule, doc: str) -> Callable[[Kernel], Kernel]:
    """Declare the decorated kernel as the operator `name`."""

    def declare(kernel: Kernel) -> Kernel:
        OPERATORS[name] = Operator(name, facts, kernel, doc)
        return kernel

    return declare


def scalar_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    """The result is a number that nobody knows yet."""
    return Facts.scalar()


def same_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    """The result has the shape of the first input."""
    return Facts.matrix(inputs[0].rows, inputs[0].cols)


def unknown_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    """The result is a matrix whose sizes depend on its inputs' cells."""
    return Facts.matrix(None, None)


def of_shape(facts: Facts) -> str:
    """How messages write a shape."""
    rows, cols = ("?" if size is None else str(size) for size in (facts.rows, facts.cols))
    return "a scalar" if facts.kind == "scalar" else f"{rows} x {cols}"


def differ(first: int | None, second: int | None) -> bool:
    """Whether two sizes are known and not the same."""
    return first is not None and second is not None and first != second
