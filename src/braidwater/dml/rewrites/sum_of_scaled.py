"""sum(c * X) -> c * sum(X), for sums and means of rows, of columns and of all."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule, either_way, is_scalar

SUMS = ("sum", "mean", "rowSums", "colSums", "rowMeans", "colMeans")


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    inner = hop.inputs[0]
    if inner.op == "neg":
        yield dag.node("neg", dag.node(hop.op, inner.inputs[0]))
    elif inner.op == "*":
        for factor, X in either_way(inner):
            if is_scalar(factor) and X.facts.is_matrix:
                yield dag.node("*", factor, dag.node(hop.op, X))
    elif inner.op == "/" and is_scalar(inner.inputs[1]):
        yield dag.node("/", dag.node(hop.op, inner.inputs[0]), inner.inputs[1])


RULE = Rule("sum of scaled", SUMS, candidates, differs="infinity and zero: 0 * Inf is NaN once, not once a cell")
