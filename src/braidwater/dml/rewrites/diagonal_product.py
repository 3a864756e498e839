"""diag(w) %*% X -> w * X, X %*% diag(w) -> X * t(w): the square matrix of zeros is not made."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule, transposed


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    A, B = hop.inputs
    if _from_vector(A) and hop.op != "matmult":
        yield dag.node("*", B, A.inputs[0])
    if _from_vector(B) and hop.op != "tmatmul":
        yield dag.node("*", A, transposed(B.inputs[0], dag))


def _from_vector(hop: Hop) -> bool:
    return hop.op == "diag" and hop.inputs[0].facts.cols == 1 and hop.inputs[0].facts.rows is not None


RULE = Rule(
    "diagonal product", ("matmul", "tmatmul", "matmult"), candidates, differs="0 * Inf and 0 * NaN are not added up"
)
