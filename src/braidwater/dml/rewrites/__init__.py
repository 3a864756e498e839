"""Equalities between expressions, each applied where it lowers the estimated cost: `RULES`, one file each."""

from collections.abc import Callable

from braidwater.dml.hops import Hop
from braidwater.dml.rewrites import (
    chain_order,
    constant_folding,
    diagonal_product,
    inverse_product,
    needless_index,
    needless_operation,
    needless_transpose,
    scaled_product,
    sum_of_cells,
    sum_of_product,
    sum_of_scaled,
    sum_of_sums,
    sum_with_vector,
    symmetric_product,
    trace_of_product,
    transposed_product,
    weighted_loss,
    weighted_product,
)
from braidwater.dml.rewrites.base import Rule
from braidwater.dml.rewrites.fused import FUSED, Fused
from braidwater.dml.rewrites.optimiser import Choice, Weighed, optimise, total

RULES: tuple[Rule, ...] = (
    constant_folding.RULE,
    needless_operation.RULE,
    needless_index.RULE,
    needless_transpose.RULE,
    transposed_product.RULE,
    symmetric_product.RULE,
    sum_of_product.RULE,
    trace_of_product.RULE,
    sum_of_scaled.RULE,
    scaled_product.RULE,
    sum_with_vector.RULE,
    sum_of_cells.RULE,
    sum_of_sums.RULE,
    diagonal_product.RULE,
    inverse_product.RULE,
    weighted_product.RULE,
    weighted_loss.RULE,
)


def rules(price: Callable[[Hop], float]) -> tuple[Rule, ...]:
    """All rules: `RULES`, and the order of chains, which needs the price of a product."""
    return (*RULES, chain_order.rule(price))


__all__ = ["FUSED", "RULES", "Choice", "Fused", "Rule", "Weighed", "optimise", "rules", "total"]
