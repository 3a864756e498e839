"""rowSums(X * t(v)) -> X %*% v, colSums(X * y) -> t(y) %*% X: a product in place of a matrix that is summed and dropped."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import OVERFLOW, Rule, either_way, transposed


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    inner = hop.inputs[0]
    if inner.op != "*":
        return
    for X, v in either_way(inner):
        if not (X.facts.is_matrix and v.facts.is_matrix) or X.facts.is_vector:
            continue
        if hop.op == "rowSums" and v.facts.rows == 1 and v.facts.cols == X.facts.cols:
            yield dag.node("matmul", X, v.inputs[0]) if v.op == "t" else dag.node("matmult", X, v)
        if hop.op == "colSums" and v.facts.cols == 1 and v.facts.rows == X.facts.rows:
            yield dag.node("tmatmul", v, X)
        if hop.op == "sum" and v.facts.cols == 1 and v.facts.rows == X.facts.rows:
            yield dag.node("sumprod", v, dag.node("rowSums", X))
        if hop.op == "sum" and v.facts.rows == 1 and v.facts.cols == X.facts.cols:
            yield dag.node("sumprod", transposed(v, dag), transposed(dag.node("colSums", X), dag))


RULE = Rule("sum with a vector", ("rowSums", "colSums", "sum"), candidates, differs=OVERFLOW)
