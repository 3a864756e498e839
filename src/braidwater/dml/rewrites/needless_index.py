"""X[1:nrow(X), ] -> X; X[a:b, ][, c:d] and cbind(A, B)[, 1:ncol(A)] without the copy between."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule, is_number, number_of, same_shape


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    X = hop.inputs[0]
    if same_shape(hop, X):  # a range of all rows and columns
        yield X
    if X.op == "cbind" and len(X.inputs) == 2:
        yield from _side(hop, X)


def _side(hop: Hop, bound: Hop) -> Iterator[Hop]:
    """The columns of one of two matrices that were bound together, when they are taken apart again."""
    A, B = bound.inputs
    first, last = (number_of(each) for each in hop.inputs[3:5])
    if not (same_rows(hop, bound) and A.facts.known and B.facts.known):
        return
    if is_number(hop.inputs[3], 1) and last == A.facts.cols and same_shape(hop, A):
        yield A
    if first == (A.facts.cols or 0) + 1 and same_shape(hop, B):
        yield B


def same_rows(one: Hop, other: Hop) -> bool:
    return one.facts.rows is not None and one.facts.rows == other.facts.rows


RULE = Rule("needless index", ("index",), candidates)
