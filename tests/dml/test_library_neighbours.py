"""Neighbours, density clusters, Gaussian classes, the lasso and scores of the library against scikit-learn and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from library_calls import DIABETES, IRIS, call, column
from numpy.testing import assert_allclose
from scipy.sparse.csgraph import connected_components
from sklearn import metrics
from sklearn.cluster import DBSCAN
from sklearn.linear_model import Lasso
from sklearn.neighbors import NearestNeighbors

from braidwater import dml
from braidwater.errors import DMLStopped


@pytest.mark.parametrize("tau", [5.0, 200.0, 3000.0])
def test_the_lasso_is_that_of_scikit_learn(tau):
    X, y = DIABETES
    X = X * 100
    reference = Lasso(alpha=tau / len(y), fit_intercept=False, tol=1e-12, max_iter=100_000).fit(X, y)
    w = call("lasso", X=X, y=column(y), tau=tau, maxi=20_000, verbose=False)
    assert_allclose(w[:, 0], reference.coef_, rtol=1e-4, atol=1e-5)
    assert ((w[:, 0] == 0) == (reference.coef_ == 0)).all()


def test_a_penalty_above_all_correlations_leaves_no_weight():
    X, y = DIABETES
    w = call("lasso", X=X, y=column(y), tau=float(np.abs(X.T @ y).max()) * 1.001, verbose=False)
    assert not w.any()


def test_the_nearest_rows_are_those_of_scikit_learn(rng):
    X, T = rng.normal(size=(300, 4)), rng.normal(size=(520, 4))  # three blocks of queries
    _, wanted = NearestNeighbors(n_neighbors=6).fit(X).kneighbors(T)
    assert_allclose(call("knnbf", X=X, T=T, k_value=6), wanted + 1)
    same = np.zeros((5, 2))
    assert_allclose(call("knnbf", X=same, T=same[:1], k_value=3), [[1, 2, 3]])
    with pytest.raises(DMLStopped, match="k_value=301"):
        call("knnbf", X=X, T=T, k_value=301)


@pytest.mark.parametrize(("eps", "least"), [(0.43, 4), (0.62, 8), (0.83, 1)])
def test_density_clusters_are_those_of_scikit_learn(eps, least):
    X, _ = IRIS
    reference = DBSCAN(eps=eps, min_samples=least).fit(X)
    found, model = call("dbscan", X=X, eps=eps, minPts=least)
    found = found[:, 0]
    assert ((found == 0) == (reference.labels_ == -1)).all()
    core = reference.core_sample_indices_  # border points may go to either of two clusters
    assert metrics.adjusted_rand_score(reference.labels_[core], found[core]) == 1
    assert_allclose(model, X[found > 0])
    for label in set(found) - {0}:
        assert (
            metrics.pairwise_distances(X[found == label], X[np.intersect1d(core, np.flatnonzero(found == label))])
            .min(1)
            .max()
            <= eps
        )


def test_connected_components_are_those_of_scipy(rng):
    G = np.triu(rng.random((60, 60)) < 0.02, 1)
    G = (G | G.T) * 2.0
    count, labels = connected_components(G)
    found = call("components", G=G, verbose=False)[:, 0]
    assert len(set(found)) == count
    for label in range(count):
        members = np.flatnonzero(labels == label)
        assert (found[members] == members.max() + 1).all()


def test_classes_as_gaussians():
    X, y = IRIS
    script = """
        [priors, means, inverses, determinants] = gaussianClassifier(D = X, C = y, varSmoothing = 1e-12, verbose = FALSE)
        second = as.matrix(inverses[2])"""
    found = dml.run(script, {"X": X, "y": column(y + 1)}, ["priors", "means", "second", "determinants"])
    assert_allclose(found["priors"], np.full((3, 1), 1 / 3))
    assert_allclose(found["means"], [X[y == c].mean(axis=0) for c in range(3)])
    covariances = [np.cov(X[y == c].T) for c in range(3)]
    assert_allclose(found["second"], np.linalg.inv(covariances[1]), rtol=1e-6)
    assert_allclose(found["determinants"][:, 0], [np.linalg.det(each) for each in covariances], rtol=1e-6)


def test_the_coefficient_of_matthews(rng):
    y, p = rng.integers(0, 2, (2, 80))
    assert_allclose(call("mcc", predictions=column(p), labels=column(y)), metrics.matthews_corrcoef(y, p))
    assert call("mcc", predictions=column(np.zeros(80)), labels=column(y)) == 0
    with pytest.raises(DMLStopped, match="classes are 0 and 1"):
        call("mcc", predictions=column(p + 1), labels=column(y))


def test_the_cell_farthest_from_the_mean():
    X = np.array([[1.0, -9.0], [2.0, 1.0], [9.0, 2.0]])
    assert_allclose(call("outlier", X=X, opposite=False), [[9, -9]])
    assert_allclose(call("outlier", X=X, opposite=True), [[1, 2]])
