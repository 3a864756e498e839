"""Estimators: scikit-learn's interface over tables that may be larger than memory.

Importing this package is light: an estimator (and scikit-learn with it) is imported when its name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braidwater.estimators.base import TableEstimator
    from braidwater.estimators.k_means import KMeans
    from braidwater.estimators.linear_regression import LinearRegression
    from braidwater.estimators.logistic_regression import LogisticRegression
    from braidwater.estimators.pca import PCA

_PLACES = {
    "KMeans": "k_means",
    "LinearRegression": "linear_regression",
    "LogisticRegression": "logistic_regression",
    "PCA": "pca",
    "TableEstimator": "base",
}
__all__ = ["PCA", "KMeans", "LinearRegression", "LogisticRegression", "TableEstimator"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"braidwater.estimators.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
