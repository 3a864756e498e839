"""sum(X * Y) -> sumprod(X, Y), sum(X ^ 2) -> sumsquares(X), t(v) %*% w -> sumprod: products that are summed as they come."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule, is_number, same_shape


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    inner = hop.inputs[0]
    if hop.op == "sumprod":
        if inner is hop.inputs[1]:
            yield dag.node("sumsquares", inner)
    elif hop.op == "as.scalar":
        if inner.op == "tmatmul" and inner.inputs[0].facts.cols == 1 == inner.inputs[1].facts.cols:
            yield dag.node("sumprod", *inner.inputs)
        elif inner.op == "tsmm" and inner.inputs[0].facts.cols == 1:
            yield dag.node("sumsquares", inner.inputs[0])
    elif inner.op == "^" and is_number(inner.inputs[1], 2):
        yield dag.node("sumsquares", inner.inputs[0])
    elif inner.op == "*" and same_shape(*inner.inputs):
        yield dag.node("sumprod", *inner.inputs)


RULE = Rule("sum of cells", ("sum", "sumprod", "as.scalar"), candidates)
