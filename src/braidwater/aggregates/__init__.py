"""What one pass over a table can compute, and the contract of everything that does."""

from braidwater.aggregates.averaged_sgd import AveragedSgd, SgdResult
from braidwater.aggregates.base import Aggregate, Iteration
from braidwater.aggregates.both import Both
from braidwater.aggregates.class_counts import ClassCount, ClassCounts
from braidwater.aggregates.count import Count
from braidwater.aggregates.gram import Gram, GramResult
from braidwater.aggregates.logistic_gradient import LogisticGradient, LossResult
from braidwater.aggregates.logistic_hessian import HessianResult, LogisticHessian
from braidwater.aggregates.moments import Moments, MomentsResult
from braidwater.aggregates.nearest_centers import DrawnRows, NearestCenters
from braidwater.aggregates.projected_products import ProjectedProducts
from braidwater.aggregates.robust_products import RobustProducts
from braidwater.aggregates.several import Several

__all__ = [
    "Aggregate",
    "AveragedSgd",
    "Both",
    "ClassCount",
    "ClassCounts",
    "Count",
    "DrawnRows",
    "Gram",
    "GramResult",
    "HessianResult",
    "Iteration",
    "LogisticGradient",
    "LogisticHessian",
    "LossResult",
    "Moments",
    "MomentsResult",
    "NearestCenters",
    "ProjectedProducts",
    "RobustProducts",
    "Several",
    "SgdResult",
]
