"""The operators that the optimiser knows: facts and plain kernels, one file a family."""

from braidwater.dml.operators import (
    aggregates,
    cellwise,
    constructors,
    cumulative,
    grouping,
    indexing,
    products,
    reorganise,
)
from braidwater.dml.operators.base import OPERATORS, Operator

__all__ = [
    "OPERATORS", "Operator", "aggregates", "cellwise", "constructors", "cumulative", "grouping", "indexing", "products",
    "reorganise",
]  # fmt: skip
