"""t(A) %*% B -> tmatmul(A, B), A %*% t(B) -> matmult(A, B): the transpose is never written, BLAS reads A the other way."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    A, B = hop.inputs
    if A.op == "t":
        yield dag.node("tmatmul", A.inputs[0], B)
    if B.op == "t":
        yield dag.node("matmult", A, B.inputs[0])


RULE = Rule("transposed product", ("matmul",), candidates)
