"""X * 1 -> X, X + 0 -> X, --X -> X: an operation that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule, is_number, same_shape

# the right side that changes nothing, and whether the left one does not either
NEUTRAL = {"*": (1, True), "+": (0, True), "-": (0, False), "/": (1, False), "^": (1, False)}


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    if hop.op == "neg":
        inner = hop.inputs[0]
        if inner.op == "neg":
            yield inner.inputs[0]
        elif inner.op == "-" and len(inner.inputs) == 2:  # -(A - B) = B - A, where shapes stay what they are
            A, B = inner.inputs
            if same_shape(A, B):
                yield dag.node("-", B, A)
        return
    number, commutes = NEUTRAL[hop.op]
    left, right = hop.inputs
    if is_number(right, number) and left.facts.is_matrix:
        yield left
    if commutes and is_number(left, number) and right.facts.is_matrix:
        yield right
    if hop.op in ("+", "-") and right.op == "neg" and right.facts.is_matrix:  # A + -B = A - B, A - -B = A + B
        yield dag.node("-" if hop.op == "+" else "+", left, right.inputs[0])


RULE = Rule("needless operation", (*NEUTRAL, "neg"), candidates)
