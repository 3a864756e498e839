"""(c * X) %*% v -> c * (X %*% v), where the result is smaller than X."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import OVERFLOW, Rule, either_way, is_scalar
from braidwater.dml.rewrites.chain_order import PRODUCTS


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    A, B = hop.inputs
    for place, inner in enumerate((A, B)):
        if inner.op == "*":
            for factor, X in either_way(inner):
                if is_scalar(factor) and X.facts.is_matrix:
                    yield dag.node("*", factor, _with(hop, place, X, dag))
        elif inner.op == "neg":
            yield dag.node("neg", _with(hop, place, inner.inputs[0], dag))


def _with(product: Hop, place: int, factor: Hop, dag: Dag) -> Hop:
    """The product with another factor in place of the first or second."""
    A, B = product.inputs
    return dag.node(product.op, *((factor, B) if place == 0 else (A, factor)))


RULE = Rule("scaled product", PRODUCTS, candidates, differs=OVERFLOW)
