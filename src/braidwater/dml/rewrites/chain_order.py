"""(A %*% B) %*% C -> A %*% (B %*% C) where that is cheaper: the order of a chain of products by dynamic programming.

The recurrence is that of Hu and Shing's problem as every textbook has it (Cormen et al., section 15.2), with the price of a
product from the planner's cost model, which knows sparsity, in place of the number of multiplications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import OVERFLOW, Rule, transposed

PRODUCTS = ("matmul", "tmatmul", "matmult")
LONGEST = 30  # factors; longer chains cost more to order (cube of the length) than blocks of scripts are worth


def rule(price: Callable[[Hop], float]) -> Rule:
    """The rule, with the seconds of one product given its hop."""

    def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
        factors = _factors(hop, dag)
        if 2 < len(factors) <= LONGEST and all(factor.facts.known for factor in factors):
            yield _cheapest(factors, dag, price)

    return Rule("chain order", PRODUCTS, candidates, differs=OVERFLOW)


def _factors(hop: Hop, dag: Dag) -> list[Hop]:
    """The factors of a product of products, transposes pushed down to them."""
    if hop.op == "matmul":
        return [*_factors(hop.inputs[0], dag), *_factors(hop.inputs[1], dag)]
    if hop.op == "tmatmul":
        return [*_turned(hop.inputs[0], dag), *_factors(hop.inputs[1], dag)]
    if hop.op == "matmult":
        return [*_factors(hop.inputs[0], dag), *_turned(hop.inputs[1], dag)]
    if hop.op == "tsmm":
        return [*_turned(hop.inputs[0], dag), hop.inputs[0]]
    if hop.op == "t" and hop.inputs[0].op in (*PRODUCTS, "tsmm"):
        return _turned(hop.inputs[0], dag)
    return [hop]


def _turned(hop: Hop, dag: Dag) -> list[Hop]:
    return [transposed(factor, dag) for factor in reversed(_factors(hop, dag))]


def _cheapest(factors: list[Hop], dag: Dag, price: Callable[[Hop], float]) -> Hop:
    best: dict[tuple[int, int], tuple[float, Hop]] = {(i, i): (0.0, factor) for i, factor in enumerate(factors)}
    for length in range(1, len(factors)):
        for begin in range(len(factors) - length):
            end = begin + length
            options = []
            for cut in range(begin, end):
                (left_price, left), (right_price, right) = best[begin, cut], best[cut + 1, end]
                product = _product(left, right, dag)
                options.append((left_price + right_price + price(product), product))
            best[begin, end] = min(options, key=lambda option: option[0])
    return best[0, len(factors) - 1][1]


def _product(left: Hop, right: Hop, dag: Dag) -> Hop:
    if left.op == "t" and left.inputs[0] is right:
        return dag.node("tsmm", right)
    if left.op == "t":
        return dag.node("tmatmul", left.inputs[0], right)
    return dag.node("matmult", left, right.inputs[0]) if right.op == "t" else dag.node("matmul", left, right)
