"""Every estimator keeps the laws of estimators over tables."""

from __future__ import annotations

import inspect

import pytest
from sklearn.base import BaseEstimator

from braidwater import estimators
from braidwater.estimators import PCA, KMeans, LinearRegression, LogisticRegression
from braidwater.testing.estimators import ESTIMATOR_CHECKS

ESTIMATORS = {
    "linear_regression": LinearRegression,
    "logistic_regression": LogisticRegression,
    "k_means": lambda: KMeans(n_clusters=3, random_state=0),
    "pca": lambda: PCA(n_components=2),
}


@pytest.mark.parametrize("check", ESTIMATOR_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_law(name, check, tmp_path):
    check(ESTIMATORS[name], tmp_path)


def test_no_estimator_is_left_out():
    public = {c for _, c in inspect.getmembers(estimators, inspect.isclass) if issubclass(c, BaseEstimator)}
    assert {type(make()) for make in ESTIMATORS.values()} == public - {estimators.TableEstimator}
