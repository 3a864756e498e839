"""t(t(X)) -> X, t(A %*% B) -> t(B) %*% t(A) where that is cheaper, sum(t(X)) -> sum(X)."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule, is_scalar, transposed

ALIKE = {
    "sum": "sum",
    "mean": "mean",
    "min": "min",
    "max": "max",
    "sumsq": "sumsq",
    "length": "length",
    "trace": "trace",
}
TURNED = {"rowSums": "colSums", "rowMeans": "colMeans", "rowMins": "colMins", "rowMaxs": "colMaxs"}
TURNED |= {col: row for row, col in TURNED.items()}
CELLWISE = ("+", "-", "*", "/")


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    inner = hop.inputs[0]
    if hop.op == "t":
        yield from _outer(inner, dag)
    elif hop.op in CELLWISE:
        yield from _both(hop, dag)
    elif inner.op == "t":
        X = inner.inputs[0]
        yield dag.node(ALIKE[hop.op], X) if hop.op in ALIKE else dag.node("t", dag.node(TURNED[hop.op], X))


def _outer(inner: Hop, dag: Dag) -> Iterator[Hop]:
    if inner.op == "t":
        yield inner.inputs[0]
    elif inner.op == "matmul":
        A, B = inner.inputs
        yield dag.node("matmul", transposed(B, dag), transposed(A, dag))
    elif inner.op in ("tmatmul", "matmult"):  # t(t(A) %*% B) = t(B) %*% A, and the like
        A, B = inner.inputs
        yield dag.node(inner.op, B, A)
    elif inner.op == "tsmm" or inner.facts.rows == 1 == inner.facts.cols:
        yield inner


def _both(hop: Hop, dag: Dag) -> Iterator[Hop]:
    """t(A) + t(B) = t(A + B), t(A) * c = t(A * c)."""
    left, right = hop.inputs
    if left.op == "t" and right.op == "t":
        yield dag.node("t", dag.node(hop.op, left.inputs[0], right.inputs[0]))
    elif left.op == "t" and is_scalar(right):
        yield dag.node("t", dag.node(hop.op, left.inputs[0], right))
    elif right.op == "t" and is_scalar(left):
        yield dag.node("t", dag.node(hop.op, left, right.inputs[0]))


RULE = Rule("needless transpose", ("t", *ALIKE, *TURNED, *CELLWISE), candidates)
