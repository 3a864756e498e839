"""What one pass over a table can compute, and the contract of everything that does."""

from braidwater.aggregates.base import Aggregate, Iteration
from braidwater.aggregates.class_counts import ClassCount, ClassCounts
from braidwater.aggregates.count import Count
from braidwater.aggregates.gram import Gram, GramResult
from braidwater.aggregates.moments import Moments, MomentsResult

__all__ = [
    "Aggregate",
    "ClassCount",
    "ClassCounts",
    "Count",
    "Gram",
    "GramResult",
    "Iteration",
    "Moments",
    "MomentsResult",
]
