"""sum(W * (X - U %*% V) ^ 2) -> wsloss(W, X, U, V): only where W is not zero."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule, is_number, same_shape
from braidwater.dml.rewrites.chain_order import PRODUCTS
from braidwater.dml.rewrites.weighted_product import factors


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    inner = hop.inputs[0]
    pair = hop.inputs if hop.op == "sumprod" else inner.inputs if inner.op == "*" else ()
    for W, squares in (pair, pair[::-1]) if len(pair) == 2 else ():
        gap = _squared(squares)
        if gap is None or gap.op != "-" or not (same_shape(W, gap) and same_shape(*gap.inputs)):
            continue
        for X, product in (gap.inputs, gap.inputs[::-1]):
            if product.op in PRODUCTS:
                yield dag.node("wsloss", W, X, *factors(product, dag))


def _squared(hop: Hop) -> Hop | None:
    if hop.op == "^" and is_number(hop.inputs[1], 2):
        return hop.inputs[0]
    return hop.inputs[0] if hop.op == "*" and hop.inputs[0] is hop.inputs[1] else None


RULE = Rule("weighted loss", ("sum", "sumprod"), candidates, differs="0 * Inf and 0 * NaN are 0 where W is 0")
