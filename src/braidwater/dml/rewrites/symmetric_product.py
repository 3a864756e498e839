"""t(X) %*% X -> tsmm(X): half of the products are computed."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    A, B = hop.inputs
    if hop.op == "tmatmul" and A is B:
        yield dag.node("tsmm", A)
    elif hop.op == "matmul" and A.op == "t" and A.inputs[0] is B:
        yield dag.node("tsmm", B)


RULE = Rule("symmetric product", ("tmatmul", "matmul"), candidates)
