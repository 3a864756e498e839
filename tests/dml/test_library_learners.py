"""Support vector machines, naive Bayes, clusters, components, factors and trees of the library against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from library_calls import IRIS, call, column
from numpy.testing import assert_allclose
from scipy import stats
from sklearn import metrics
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.naive_bayes import MultinomialNB
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

RNG = np.random.default_rng(7)

# ---- support vector machines and naive Bayes


@pytest.mark.parametrize("intercept", [False, True])
def test_a_support_vector_machine_is_that_of_scikit_learn(intercept):
    X, y = IRIS
    reference = LinearSVC(C=0.25, dual=False, fit_intercept=intercept, tol=1e-12, max_iter=10000)
    reference.fit(X, y == 2)
    expected = np.append(reference.coef_[0], reference.intercept_ if intercept else [])
    W = call("l2svm", X=X, Y=column(y == 2) + 1, intercept=intercept, epsilon=1e-14, reg=2.0, maxIterations=1000)
    assert_allclose(W[:, 0], expected, rtol=1e-4, atol=1e-5)
    _, found = call("l2svmPredict", X=X, W=W)
    assert_allclose(found[:, 0], np.where(reference.predict(X), 1, -1))
    reference.fit(X, y)
    W = call("msvm", X=X, Y=column(y + 1), intercept=intercept, epsilon=1e-14, reg=2.0, maxIterations=1000)
    raw, found = call("msvmPredict", X=X, W=W)
    assert_allclose(raw, reference.decision_function(X), atol=1e-4)
    assert_allclose(found[:, 0], reference.predict(X) + 1)


def test_naive_bayes_is_that_of_scikit_learn(rng):
    D, y = rng.poisson(2, size=(60, 5)), np.arange(60) % 3
    reference = MultinomialNB(alpha=0.5).fit(D, y)
    prior, conditionals = call("naiveBayes", D=D, C=column(y + 1), laplace=0.5, verbose=False)
    assert_allclose(np.log(prior[:, 0]), reference.class_log_prior_)
    assert_allclose(np.log(conditionals), reference.feature_log_prob_)
    raw, found = call("naiveBayesPredict", X=D, P=prior, C=conditionals)
    assert_allclose(raw, reference.predict_joint_log_proba(D))
    assert_allclose(found[:, 0], reference.predict(D) + 1)


# ---- clusters, components, factors


def test_k_means_finds_clusters_that_lie_apart_and_ends_where_no_row_is_nearer_to_another(rng):
    centers = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])
    X = np.repeat(centers, 50, axis=0) + rng.normal(size=(200, 2))
    C, Y = call("kmeans", X=X, k=4, runs=5, seed=3)
    assert_allclose(C[np.lexsort(np.round(C).T)], [X[i : i + 50].mean(axis=0) for i in range(0, 200, 50)], atol=1e-12)
    assert metrics.adjusted_rand_score(Y[:, 0], np.repeat(range(4), 50)) == 1
    assert_allclose(call("kmeansPredict", X=X, C=C), Y)
    again, _ = call("kmeans", X=X, k=4, runs=5, seed=3)
    assert_allclose(again, C, rtol=0)


def test_k_means_is_as_tight_as_that_of_scikit_learn_and_ends_at_the_means_of_its_clusters():
    X = IRIS[0]
    C, Y = call("kmeans", X=X, k=5, runs=20, eps=0.0, seed=3)
    assert_allclose(C, [X[Y[:, 0] == k].mean(axis=0) for k in range(1, 6)])
    best = KMeans(5, n_init=20, random_state=0).fit(X).inertia_
    assert ((X - C[Y[:, 0].astype(int) - 1]) ** 2).sum() <= best * 1.0001


def test_k_means_takes_fewer_distinct_rows_than_clusters():
    X = np.repeat([[0.0, 0], [1, 1]], 5, axis=0)
    C, Y = call("kmeans", X=X, k=3, runs=2, seed=1)
    assert_allclose(C[Y[:, 0].astype(int) - 1], X)


@pytest.mark.parametrize("scale", [False, True])
def test_principal_components_are_those_of_scikit_learn(scale):
    X = IRIS[0]
    Z = X / X.std(0, ddof=1) if scale else X
    reference = PCA(n_components=2).fit(Z)
    reduced, components, centering, factor = call("pca", X=X, K=2, scale=scale)
    signs = np.sign((reference.components_.T * components).sum(axis=0))
    assert_allclose(components, reference.components_.T * signs, atol=1e-10)
    assert_allclose(reduced, reference.transform(Z) * signs, atol=1e-10)
    model = {"Clusters": components, "Centering": centering, "ScaleFactor": factor}
    assert_allclose(call("pcaTransform", X=X, **model), reduced, atol=1e-12)
    back = reference.inverse_transform(reference.transform(Z)) * (X.std(0, ddof=1) if scale else 1)
    assert_allclose(call("pcaInverse", Y=reduced, **model), back, atol=1e-10)


RATINGS = RNG.integers(1, 6, size=(30, 20)) * (RNG.uniform(size=(30, 20)) < 0.6)


def best_rows(X, R, penalty):
    """Ridge regressions of the rows' known cells on the other factor, one after the other."""
    known = [row != 0 for row in X]
    return np.array(
        [
            np.linalg.solve(R[k].T @ R[k] + p * np.eye(R.shape[1]), R[k].T @ row[k])
            for row, k, p in zip(X, known, penalty, strict=True)
        ]
    )


@pytest.mark.parametrize(("solver", "weighted"), [("alsDS", False), ("alsCG", False), ("alsCG", True), ("als", True)])
def test_factors_end_where_each_side_is_best_for_the_other(solver, weighted):
    more, reg = {} if solver == "alsDS" else {"regType": "wL2" if weighted else "L2"}, 0.1 if weighted else 2.0
    U, V = call(solver, X=RATINGS, rank=3, reg=reg, maxi=500, check=True, thr=1e-13, verbose=False, **more)
    known = (RATINGS != 0).sum(axis=0) if weighted else np.ones(20)
    assert_allclose(best_rows(RATINGS.T, U, reg * known), V.T, rtol=1e-6, atol=1e-8)
    known = (RATINGS != 0).sum(axis=1) if weighted else np.ones(30)
    assert_allclose(best_rows(RATINGS, V.T, reg * known), U, atol=1e-4)
    assert np.abs((U @ V - RATINGS)[RATINGS != 0]).mean() < 0.9


def test_the_best_items_of_users_come_in_order_without_those_they_know(rng):
    L, R = rng.uniform(size=(5, 2)), rng.uniform(size=(2, 6))
    known = np.zeros((5, 6))
    known[1, :4] = 1
    users = column([2, 5])
    scores = call("alsPredict", userIDs=users, I=known, L=L, R=R)
    assert_allclose(scores, (L @ R)[[1, 4]] * (known[[1, 4]] == 0))
    items, values = call("alsTopkPredict", userIDs=users, I=known, L=L, R=R, K=3)
    assert_allclose(values, -np.sort(-scores)[:, :3])
    few = call("alsTopkPredict", userIDs=users, I=known, L=L, R=R * (np.arange(6) < 2), K=3)
    assert few[0].shape == few[1].shape == (2, 2)  # as many as there are items with factors
    assert (items[0] == 0).tolist() == [False, False, True]
    assert_allclose(items[1] - 1, np.argsort(-scores[1])[:3])


# ---- trees


CODES = np.column_stack([np.digitize(x, np.quantile(x, np.arange(0.1, 1, 0.1))) + 1 for x in IRIS[0].T]).astype(float)
KINDS = np.array([[1, 1, 1, 1, 2]])


@pytest.mark.parametrize("impurity", ["gini", "entropy", "rss"])
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_a_tree_is_as_pure_as_that_of_scikit_learn(impurity, depth):
    y = IRIS[1] + 1.0
    if impurity == "rss":
        y = IRIS[0] @ [1.0, 0.37, -0.61, 0.23]
        reference = DecisionTreeRegressor(max_depth=depth - 1, min_samples_leaf=4, min_samples_split=9)
        kinds = np.ones((1, 5))
    else:
        reference = DecisionTreeClassifier(
            criterion=impurity, max_depth=depth - 1, min_samples_leaf=4, min_samples_split=9
        )
        kinds = KINDS
    reference.random_state = 0
    X = CODES[:, [0, 1]] if impurity != "rss" else CODES  # features that no two splits tie on
    kinds = kinds[:, -X.shape[1] - 1 :]
    M = call("decisionTree", X=X, y=column(y), ctypes=kinds, max_depth=depth, min_leaf=4, min_split=9,
             max_features=1.0, impurity=impurity)  # fmt: skip
    found = call("decisionTreePredict", X=X, ctypes=kinds, M=M)[:, 0]
    expected = reference.fit(X, y).predict(X)
    if impurity == "rss":
        assert_allclose(found, expected, rtol=1e-10)
    else:
        assert np.mean(found == y) == pytest.approx(np.mean(expected == y), abs=0.02)
    cells = M.reshape(-1, 2)
    tree = reference.tree_
    assert cells[0].tolist() == [tree.feature[0] + 1, np.floor(tree.threshold[0])]


def test_a_tree_is_laid_out_level_by_level_and_stops_at_pure_nodes():
    X = np.array([[1, 1], [1, 2], [2, 1], [2, 2], [2, 3]], dtype=float)
    y = column([2, 2, 1, 1, 3])
    given = {"X": X, "ctypes": np.array([[1, 1, 2]])}
    M = call("decisionTree", **given, y=y, max_depth=4, min_leaf=1, min_split=2, max_features=1.0)
    assert M.tolist() == [[1, 1, 0, 2, 2, 2, 0, 0, 0, 0, 0, 1, 0, 3]]
    assert_allclose(call("decisionTreePredict", **given, M=M), y)


def test_steps_and_ties_are_those_of_systemds():
    # what SystemDS 3.4 gives for the same calls: where its descent ends early, and which of equally good splits it takes
    W = call("l2svm", X=IRIS[0], Y=column(IRIS[1] == 1) + 1, intercept=True)
    expected = [0.3952296398175449, -0.8688171014161884, 0.16474241334798723, -0.7112936684775619, 0.2261383441593729]
    assert_allclose(W[:, 0], expected, rtol=1e-10)
    M = call("decisionTree", X=CODES, y=column(IRIS[1] + 1), ctypes=KINDS, max_depth=9, min_leaf=5, min_split=20,
             max_features=1.0)  # fmt: skip
    nodes = {i + 1: tuple(cells) for i, cells in enumerate(M.reshape(-1, 2).tolist()) if any(cells)}
    assert nodes == {
        1: (3, 3), 2: (0, 1), 3: (4, 7), 6: (2, 8), 7: (3, 7), 12: (3, 7), 13: (0, 1), 14: (0, 3), 15: (0, 3),
        24: (1, 3), 25: (0, 3), 48: (0, 2), 49: (0, 2),
    }  # fmt: skip
    assert M.shape == (1, 126)
    twins = np.array([[1, 1], [1, 1], [3, 3], [3, 3.0]])  # splits at 1 and at 2 of both columns do the same
    M = call("decisionTree", X=twins, y=column([1, 1, 2, 2]), ctypes=np.array([[1, 1, 2]]), max_depth=3, min_leaf=1,
             min_split=2, max_features=1.0)  # fmt: skip
    assert M.tolist() == [[2, 1, 0, 1, 0, 2]]


@pytest.mark.parametrize("feature_frac", [1.0, 0.6])
def test_a_forest_votes_and_predicts_rows_that_it_has_not_seen(feature_frac):
    y = column(IRIS[1] + 1)
    train = np.arange(150) % 3 > 0
    settings = {"num_trees": 15, "sample_frac": 0.7, "feature_frac": feature_frac, "max_depth": 5, "min_leaf": 2,
                "min_split": 4, "seed": 5}  # fmt: skip
    M = call("randomForest", X=CODES[train], y=y[train], ctypes=KINDS, **settings)
    assert M.shape == (15, 62 + 4 * (feature_frac < 1))
    found = call("randomForestPredict", X=CODES[~train], ctypes=KINDS, M=M)
    assert np.mean(found == y[~train]) > 0.88
    assert_allclose(call("randomForest", X=CODES[train], y=y[train], ctypes=KINDS, **settings), M)
    trees = [M[i : i + 1, 4:] if feature_frac < 1 else M[i : i + 1] for i in range(15)]
    seen = [CODES[:, M[i, :4] == 1] if feature_frac < 1 else CODES for i in range(15)]
    votes = [call("decisionTreePredict", X=x, ctypes=KINDS, M=m)[:, 0] for x, m in zip(seen, trees, strict=True)]
    assert_allclose(found[:, 0], stats.mode(np.array(votes)[:, ~train], axis=0).mode)
