"""trace(A %*% B) -> sum(A * t(B)), diag(A %*% B) -> rowSums(A * t(B)): cells off the diagonal are not computed."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule, transposed
from braidwater.dml.rewrites.chain_order import PRODUCTS


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    inner = hop.inputs[0]
    if hop.op == "sum":
        if inner.op != "diag" or inner.facts.cols != 1:
            return
        yield dag.node("trace", inner.inputs[0])
        inner = inner.inputs[0]
    if hop.op == "diag" and hop.facts.cols != 1:
        return
    if inner.op == "tsmm":
        squares = dag.node("*", inner.inputs[0], inner.inputs[0])
        yield (
            transposed(dag.node("colSums", squares), dag)
            if hop.op == "diag"
            else dag.node("sumsquares", inner.inputs[0])
        )
    elif inner.op in PRODUCTS:
        A, B = inner.inputs
        if inner.op == "tmatmul":
            A = transposed(A, dag)
        B = B if inner.op == "matmult" else transposed(B, dag)
        yield dag.node("rowSums", dag.node("*", A, B)) if hop.op == "diag" else dag.node("sumprod", A, B)


RULE = Rule(
    "trace of a product",
    ("trace", "diag", "sum"),
    candidates,
    differs="cells off the diagonal, which are not computed, cannot be NaN",
)
