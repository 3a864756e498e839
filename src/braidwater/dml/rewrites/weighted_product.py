"""W * (U %*% V) -> sddmm(W, U, V), W * (U %*% V - X) -> sddmm(W, U, V) - W * X: only where W is not zero.

That pays when W is sparse (matrix factorisation on ratings), and costs many times more when it is dense: the price decides.
"""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule, either_way, same_shape
from braidwater.dml.rewrites.chain_order import PRODUCTS


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    for W, inner in either_way(hop):
        if not same_shape(W, inner):
            continue
        if inner.op in PRODUCTS:
            yield dag.node("sddmm", W, *factors(inner, dag))
        elif inner.op == "-" and same_shape(*inner.inputs):
            left, right = inner.inputs
            if left.op in PRODUCTS:
                yield dag.node("-", dag.node("sddmm", W, *factors(left, dag)), dag.node("*", W, right))
            elif right.op in PRODUCTS:
                yield dag.node("-", dag.node("*", W, left), dag.node("sddmm", W, *factors(right, dag)))


def factors(product: Hop, dag: Dag) -> tuple[Hop, Hop]:
    """U and V of a product, U %*% V."""
    A, B = product.inputs
    return (dag.node("t", A) if product.op == "tmatmul" else A), (dag.node("t", B) if product.op == "matmult" else B)


RULE = Rule("weighted product", ("*",), candidates, differs="0 * Inf and 0 * NaN are 0 where W is 0")
