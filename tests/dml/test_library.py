"""The library's algorithms against other implementations of them, or against the formulas in numpy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from scipy import optimize, sparse, special, stats
from sklearn import datasets, metrics
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.naive_bayes import MultinomialNB
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from braidwater import dml
from braidwater.dml.library_reference import FAMILIES, library_function, library_reference
from braidwater.dml.run import LIBRARY
from braidwater.errors import DMLStopped

ROOT = Path(__file__).parent.parent.parent
NAMES = sorted(path.stem for path in LIBRARY.glob("*.dml"))
RNG = np.random.default_rng(7)
DIABETES = datasets.load_diabetes(return_X_y=True)
IRIS = datasets.load_iris(return_X_y=True)
# strict: what SystemDS would refuse, the library does not do
STRICT = {"strict": True, "seed": 1}


def call(name: str, **given: Any) -> Any:
    """The results of a function of the library: one, or a tuple."""
    results = library_function(name).results
    outputs = [f"out{i}" for i in range(len(results))]
    left = outputs[0] if len(outputs) == 1 else f"[{', '.join(outputs)}]"
    script = f"{left} = {name}({', '.join(f'{key} = {key}' for key in given)})"
    found = dml.run(script, given, outputs, **STRICT)
    values = tuple(
        found[output].toarray() if hasattr(found[output], "toarray") else found[output] for output in outputs
    )
    return values[0] if len(values) == 1 else values


def column(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=float).reshape(-1, 1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


# ---- every script


@pytest.mark.parametrize("name", NAMES)
def test_a_script_passes_lint_and_explains_its_parameters_and_results(name):
    assert [str(error) for error in dml.compile(LIBRARY / f"{name}.dml").lint()] == []
    function = library_function(name)
    assert len(function.purpose) > 20
    assert set(function.words) == {*function.parameters, *function.results}


def test_the_page_of_the_library_is_up_to_date_and_leaves_out_no_script():
    assert sorted(name for names in FAMILIES.values() for name in names) == NAMES
    assert (ROOT / "docs" / "dml-library.md").read_text(encoding="utf-8") == library_reference()


def test_what_cannot_be_is_refused_with_the_value():
    X = np.ones((4, 2))
    for name, given, message in [
        ("kmeans", {"X": X, "k": 9}, "k is 9; it must be from 1 to the number of rows, 4"),
        ("glm", {"X": X, "Y": column([1, -1, 1, 1]), "vpow": 2.0}, "a response is -1"),
        ("glm", {"X": X, "Y": X[:, :1], "dfam": 3}, "dfam is 3"),
        ("l2svm", {"X": X, "Y": X[:, :1]}, "Y must have two values"),
        ("decisionTree", {"X": X * 0, "y": X[:, :1], "ctypes": np.ones((1, 3))}, "codes 1, 2"),
        (
            "cox",
            {"X": X * [1, 0], "TE": column([1, 2]), "F": column([1]), "R": np.zeros((1, 2))},
            "no row has an event",
        ),
        ("alsCG", {"X": X, "regType": "L1"}, "regType is L1"),
        ("linearTerms", {"X": X, "B": np.ones((5, 1))}, "5 weights, and X 2 columns"),
    ]:
        with pytest.raises(DMLStopped, match=re.escape(message)):
            call(name, **given)


# ---- linear regression


@pytest.mark.parametrize("solver", ["lm", "lmCG", "lmDS"])
@pytest.mark.parametrize("icpt", [0, 1, 2])
def test_linear_regression_minimises_squares_plus_ridge(solver, icpt):
    X, y = DIABETES[0] * [1, 5, 2, 1, 1, 1, 3, 1, 1, 1], column(DIABETES[1])
    more = {} if solver == "lmDS" else {"tol": 1e-14, "maxi": 200}
    B = call(solver, X=X, y=y, icpt=icpt, reg=0.5, verbose=False, **more)
    Z = (X - X.mean(0)) / X.std(0, ddof=1) if icpt == 2 else X
    A = np.hstack([Z, np.ones((len(X), 1))]) if icpt else Z
    b = np.linalg.solve(A.T @ A + np.diag([0.5] * 10 + [0] * bool(icpt)), A.T @ y)
    assert_allclose(call("lmPredict", X=X, B=B, icpt=icpt), A @ b, rtol=1e-7)


FADING = RNG.normal(size=(150, 8))
WORTH = np.array([0.3, 0.25, 0.2, 0.17, 0.14, 0.11, 0.08, 0.05])


def forward(criterion):
    """Columns of FADING chosen one by one as long as the criterion of a list of columns falls."""
    chosen = []
    while rest := set(range(8)) - set(chosen):
        j = min(rest, key=lambda j: criterion([*chosen, j]))
        if criterion([*chosen, j]) >= criterion(chosen):
            break
        chosen = [*chosen, j]
    return chosen


@pytest.mark.parametrize("icpt", [1, 2])
def test_stepwise_regression_chooses_by_the_criterion_of_statsmodels(icpt):
    y = FADING @ WORTH + np.random.default_rng(5).normal(size=150)
    fit = lambda columns: sm.OLS(y, sm.add_constant(FADING[:, columns], prepend=False)).fit()  # noqa: E731
    chosen = forward(lambda columns: fit(columns).aic)
    assert 3 < len(chosen) < 8
    B, S = call("steplm", X=FADING, y=column(y), icpt=icpt, reg=0.0, verbose=False)
    assert [int(j) - 1 for j in S[0]] == chosen
    assert_allclose(B[[*chosen, 8], 0], fit(chosen).params, rtol=1e-7)
    assert not B[sorted(set(range(8)) - set(chosen))].any()


def test_stepwise_regression_takes_nothing_where_nothing_helps(rng):
    y = column(rng.normal(size=40))
    B, S = call("steplm", X=np.ones((40, 2)), y=y, icpt=1, verbose=False)
    assert S.tolist() == [[0]]
    assert_allclose(B[:, 0], [0, 0, y.mean()], atol=1e-12)


# ---- generalised linear models

F = sm.families
BIRDS = np.column_stack([RNG.normal(size=200), RNG.uniform(0, 3, size=200), RNG.integers(0, 2, size=200)])
LINEAR = 0.3 + BIRDS @ [0.2, 0.3, -0.2]
POSITIVE = {"gamma": RNG.gamma(3, np.exp(LINEAR) / 3), "wald": RNG.wald(np.exp(LINEAR), 4)}
COUNTS, YES = RNG.poisson(np.exp(LINEAR)), RNG.binomial(1, special.expit(LINEAR - 0.5))
OF_TEN = RNG.binomial(10, special.expit(LINEAR - 0.5))
MODELS = {
    "gaussian": (LINEAR + RNG.normal(size=200), {}, lambda: F.Gaussian()),
    "gaussian log": (POSITIVE["gamma"], {"link": 1, "lpow": 0.0}, lambda: F.Gaussian(F.links.Log())),
    "poisson": (COUNTS, {"vpow": 1.0}, lambda: F.Poisson()),
    "poisson root": (COUNTS, {"vpow": 1.0, "link": 1, "lpow": 0.5}, lambda: F.Poisson(F.links.Sqrt())),
    "gamma": (POSITIVE["gamma"], {"vpow": 2.0}, lambda: F.Gamma()),
    "gamma log": (POSITIVE["gamma"], {"vpow": 2.0, "link": 1, "lpow": 0.0}, lambda: F.Gamma(F.links.Log())),
    "wald log": (POSITIVE["wald"], {"vpow": 3.0, "link": 1, "lpow": 0.0}, lambda: F.InverseGaussian(F.links.Log())),
    "tweedie": (COUNTS, {"vpow": 1.5, "link": 1, "lpow": 0.0}, lambda: F.Tweedie(F.links.Log(), var_power=1.5)),
    "logit": (YES, {"dfam": 2}, lambda: F.Binomial()),
    "probit": (YES, {"dfam": 2, "link": 3}, lambda: F.Binomial(F.links.Probit())),
    "cloglog": (YES, {"dfam": 2, "link": 4}, lambda: F.Binomial(F.links.CLogLog())),
    "cauchit": (YES, {"dfam": 2, "link": 5}, lambda: F.Binomial(F.links.Cauchy())),
    "of ten": (np.column_stack([OF_TEN, 10 - OF_TEN]), {"dfam": 2}, lambda: F.Binomial()),
}


@pytest.mark.filterwarnings("ignore:The .* link function does not respect the domain")
@pytest.mark.parametrize(("icpt", "mii"), [(1, 0), (2, 0), (1, 20)])
@pytest.mark.parametrize("name", MODELS)
def test_a_generalised_linear_model_has_the_weights_and_means_of_statsmodels(name, icpt, mii):
    y, options, family = MODELS[name]
    fit = sm.GLM(y, sm.add_constant(BIRDS, prepend=False), family=family()).fit(tol=1e-12, maxiter=200)
    B = call("glm", X=BIRDS, Y=y.reshape(200, -1), icpt=icpt, mii=mii, tol=1e-14, verbose=False, **options)
    assert B.shape == (4, 2 if icpt == 2 else 1)
    assert_allclose(B[:, 0], fit.params, rtol=1e-5, atol=1e-6)
    if icpt == 2:
        standardised = np.append(fit.params[:3] * BIRDS.std(0, ddof=1), fit.params @ [*BIRDS.mean(0), 1])
        assert_allclose(B[:, 1], standardised, rtol=1e-5, atol=1e-6)
    M = call("glmPredict", X=BIRDS, B=B, verbose=False, **options)
    assert_allclose(M[:, 0], fit.fittedvalues, rtol=1e-5)
    if options.get("dfam") == 2:
        assert_allclose(M.sum(axis=1), 1)


def test_a_generalised_linear_model_shares_weight_between_equal_columns_and_takes_a_ridge():
    twice = np.hstack([BIRDS, BIRDS[:, :1]])
    single = call("glm", X=BIRDS, Y=column(YES), dfam=2, icpt=1, tol=1e-12, verbose=False)
    double = call("glm", X=twice, Y=column(YES), dfam=2, icpt=1, tol=1e-12, verbose=False)
    assert_allclose(double[[0, 3]].sum(), single[0, 0], rtol=1e-6)
    A = sm.add_constant(BIRDS, prepend=False)

    def penalised(b):
        return np.logaddexp(0, A @ b).sum() - YES @ A @ b + 0.5 * 3 * (b[:3] @ b[:3])

    ridge = call("glm", X=BIRDS, Y=column(YES), dfam=2, icpt=1, reg=3.0, tol=1e-14, verbose=False)
    assert_allclose(ridge[:, 0], optimize.minimize(penalised, np.zeros(4), tol=1e-10).x, atol=1e-5)


def test_stepwise_glm_chooses_by_the_criterion_of_statsmodels():
    y = np.random.default_rng(5).poisson(np.exp(FADING @ WORTH))
    fit = lambda columns: sm.GLM(y, sm.add_constant(FADING[:, columns], prepend=False), family=F.Poisson()).fit()  # noqa: E731
    chosen = forward(lambda columns: fit(columns).aic)
    assert 3 < len(chosen) < 8
    B, S = call("stepglm", X=FADING, Y=column(y), dfam=1, vpow=1.0, icpt=1, verbose=False)
    assert [int(j) - 1 for j in S[0]] == chosen
    assert_allclose(B[[*chosen, 8], 0], fit(chosen).params, rtol=1e-5)


@pytest.mark.parametrize("icpt", [0, 1, 2])
def test_multinomial_regression_is_at_the_least_of_its_objective(icpt):
    X, y = IRIS
    X = X * [1, 1, 10, 0.1]
    betas = call("multiLogReg", X=X, Y=column(y + 1), icpt=icpt, reg=0.7, tol=1e-11, verbose=False)
    Z = (X - X.mean(0)) / X.std(0, ddof=1) if icpt == 2 else X
    A = np.hstack([Z, np.ones((150, 1))]) if icpt else Z

    def objective(b):
        L = np.hstack([A @ b.reshape(-1, 2), np.zeros((150, 1))])
        return (
            special.logsumexp(L, axis=1).sum() - L[np.arange(150), y].sum() + 0.35 * (b.reshape(-1, 2)[:4] ** 2).sum()
        )

    def slope(b):
        P = special.softmax(np.hstack([A @ b.reshape(-1, 2), np.zeros((150, 1))]), axis=1)[:, :2]
        ridge = 0.7 * b.reshape(-1, 2)
        ridge[4:] = 0
        return (A.T @ (P - np.eye(3)[y][:, :2]) + ridge).ravel()

    best = optimize.minimize(objective, np.zeros(A.shape[1] * 2), jac=slope, options={"gtol": 1e-8})
    M, found, accuracy = call("multiLogRegPredict", X=X, B=betas, Y=column(y + 1))
    L = np.hstack([A @ best.x.reshape(-1, 2), np.zeros((150, 1))])
    assert_allclose(M, special.softmax(L, axis=1), atol=1e-6)
    assert_allclose(found[:, 0], L.argmax(axis=1) + 1)
    assert accuracy == pytest.approx(100 * np.mean(L.argmax(axis=1) == y))
    assert_allclose(call("glmPredict", X=X, B=betas, dfam=3), M)


def test_multinomial_regression_takes_zero_as_the_last_class():
    X, y = IRIS
    one = call("multiLogReg", X=X, Y=column(np.where(y == 2, 0, y + 1)), verbose=False)
    other = call("multiLogReg", X=X, Y=column(y + 1), verbose=False)
    assert_allclose(one, other)


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


# ---- survival

FEATURES = np.column_stack([RNG.normal(size=120), RNG.integers(0, 2, size=120)])
TIMES = np.ceil(RNG.exponential(10 * np.exp(-FEATURES @ [0.5, -0.4])))
EVENTS = (RNG.uniform(size=120) < 0.7).astype(float)
GROUP, STRATUM = RNG.integers(1, 4, size=120), RNG.integers(1, 3, size=120)
SURVIVAL = np.column_stack([TIMES, EVENTS, FEATURES, GROUP, STRATUM])


def test_cox_regression_is_that_of_statsmodels():
    fit = sm.PHReg(TIMES, FEATURES, status=EVENTS, ties="breslow").fit(disp=False)
    M, S, T, COV, RT, XO = call("cox", X=SURVIVAL, TE=column([1, 2]), F=column([3, 4]), R=np.zeros((1, 2)), alpha=0.1)
    assert_allclose(M[:, 0], fit.params, rtol=1e-7)
    assert_allclose(M[:, 2:5], np.column_stack([fit.bse, fit.tvalues, fit.pvalues]), rtol=1e-6)
    assert_allclose(M[:, 5:], fit.conf_int(0.1), rtol=1e-6)
    assert_allclose(COV, fit.cov_params(), rtol=1e-6)
    none = sm.PHReg(TIMES, FEATURES, status=EVENTS, ties="breslow").loglike(np.zeros(2))
    assert_allclose(S[:4, 0], [120, EVENTS.sum(), fit.llf, 4 - 2 * fit.llf], rtol=1e-9)
    wald = fit.params @ np.linalg.solve(fit.cov_params(), fit.params)
    assert_allclose(T[:2, 0], [wald, 2 * (fit.llf - none)], rtol=1e-6)
    assert_allclose(T[:, 2], stats.chi2.sf(T[:, 0], 2))
    model = sm.PHReg(TIMES, FEATURES, status=EVENTS, ties="breslow")
    slope = model.score(np.zeros(2))
    assert T[2, 0] == pytest.approx(slope @ np.linalg.solve(-model.hessian(np.zeros(2)), slope), rel=1e-8)
    assert_allclose(RT[:, 0], stats.rankdata(np.sort(TIMES), method="dense"))
    assert_allclose(XO[:, 0], np.sort(TIMES))


def test_cox_regression_leaves_out_the_most_frequent_category():
    codes = (GROUP[:, None] == [1, 2, 3]).astype(float)
    X = np.column_stack([TIMES, EVENTS, codes])
    M, *_ = call("cox", X=X, TE=column([1, 2]), F=column([3, 4, 5]), R=np.array([[3, 5]]))
    others = [i for i in range(3) if i != codes.sum(axis=0).argmax()]
    assert_allclose(M[:, 0], sm.PHReg(TIMES, codes[:, others], status=EVENTS).fit(disp=False).params, rtol=1e-6)


NONE = np.zeros((1, 1))


def test_kaplan_and_meier_is_that_of_statsmodels():
    fit = SurvfuncRight(TIMES, EVENTS)
    curves, M, *_ = call("km", X=SURVIVAL, TE=column([1, 2]), GI=NONE, SI=NONE, conf_type="log-log")
    at_events = curves[curves[:, 2] > 0]
    error = np.where(fit.surv_prob > 0, fit.surv_prob_se, 0)  # it has NaN where nobody is left
    expected = np.column_stack([fit.surv_times, fit.n_risk, fit.n_events, fit.surv_prob, error])
    assert_allclose(at_events[:, :5], expected[fit.n_events > 0], rtol=1e-9)
    assert M[0, :3].tolist() == [120, EVENTS.sum(), fit.quantile(0.5)]
    # intervals of log(-log(S)), whose standard error is that of log(S) divided by log(S)
    S, se = at_events[:-1, 3], at_events[:-1, 4]
    inner, wide = np.log(-np.log(S)), stats.norm.ppf(0.975) * se / S / np.abs(np.log(S))
    assert_allclose(at_events[:-1, 5:], np.exp(-np.exp(np.column_stack([inner + wide, inner - wide]))), rtol=1e-8)
    curves, *_ = call("km", X=SURVIVAL, TE=column([1, 2]), GI=NONE, SI=NONE)
    S, se = curves[:-1, 3], curves[:-1, 4]
    assert_allclose(curves[:-1, 5], S * np.exp(-1.959963984540054 * se / S))
    assert_allclose(curves[:-1, 6], np.minimum(1, S * np.exp(1.959963984540054 * se / S)))


def test_groups_and_strata_have_curves_of_their_own():
    curves, M, *_ = call("km", X=SURVIVAL, TE=column([1, 2]), GI=np.array([[5]]), SI=np.array([[6]]))
    assert M[:, :2].tolist() == [[g, s] for g in (1, 2, 3) for s in (1, 2)]
    for i, (g, s) in enumerate(M[:, :2]):
        rows = (g == GROUP) & (s == STRATUM)
        fit = SurvfuncRight(TIMES[rows], EVENTS[rows])
        own = curves[:, 7 * i : 7 * i + 7]
        assert_allclose(own[own[:, 2] > 0, 3], fit.surv_prob[fit.n_events > 0], rtol=1e-9)
        assert M[i, 2:4].tolist() == [rows.sum(), EVENTS[rows].sum()]


@pytest.mark.parametrize(("test", "weight"), [("log-rank", None), ("wilcoxon", "gb")])
@pytest.mark.parametrize("strata", [False, True])
def test_groups_are_compared_as_statsmodels_does(test, weight, strata):
    statistic, p = survdiff(TIMES, EVENTS, GROUP, weight_type=weight, strata=STRATUM if strata else None)
    _, _, T, groups = call(
        "km", X=SURVIVAL, TE=column([1, 2]), GI=np.array([[5]]), SI=np.array([[6]]) if strata else NONE, test_type=test
    )
    assert T[0, :2].tolist() == [3, 2]
    if not (strata and weight):  # it weighs strata by their rows as numbers, we as shares of each
        assert_allclose(T[0, 2:], [statistic, p], rtol=1e-8)
    if weight is None:
        assert groups[:, 0].tolist() == groups[:, 1].tolist()
        assert groups[:, 1].sum() == pytest.approx(groups[:, 2].sum())


# ---- statistics


def test_univariate_statistics_are_those_of_scipy(rng):
    x, codes = rng.gamma(2, size=101), rng.integers(1, 5, size=101)
    S = call("univar", X=np.column_stack([x, codes]), types=np.array([[1, 2]]))
    sd, n = x.std(ddof=1), 101
    skewed = np.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    expected = [
        x.min(), x.max(), np.ptp(x), x.mean(), sd**2, sd, stats.sem(x), stats.variation(x, ddof=1),
        stats.skew(x) * ((n - 1) / n) ** 1.5, (stats.kurtosis(x) + 3) * ((n - 1) / n) ** 2 - 3, skewed,
        2 * skewed * np.sqrt((n**2 - 1) / ((n - 3) * (n + 5))), np.median(x),
    ]  # fmt: skip
    assert_allclose(S[:13, 0], expected, rtol=1e-10)
    assert np.quantile(x, 0.4) < S[13, 0] < np.quantile(x, 0.7)
    counts = np.bincount(codes, minlength=5)
    assert S[:14, 1].any() == 0
    assert S[14:, 1].tolist() == [codes.max(), 4 - counts[:0:-1].argmax(), (counts == counts.max()).sum()]


def test_bivariate_statistics_are_those_of_scipy(rng):
    x, y = rng.normal(size=(2, 90))
    a, b = rng.integers(1, 4, size=(2, 90))
    S1, T1 = np.array([[1, 3]]), np.array([[1, 3]])
    S2, T2 = np.array([[2, 4]]), np.array([[1, 3]])
    numbers, groups, codes, ranks = call("bivar", X=np.column_stack([x, y, a, b]), S1=S1, S2=S2, T1=T1, T2=T2)
    expected = [1, 2, stats.pearsonr(x, y)[0], np.cov(x, y)[0, 1], x.std(ddof=1), y.std(ddof=1)]
    assert_allclose(numbers[:, 0], expected)
    assert groups[:2].T.tolist() == [[1, 4], [3, 2]]
    F, p = stats.f_oneway(*(x[b == k] for k in (1, 2, 3)))
    assert_allclose(groups[3:5, 0], [F, p])
    assert_allclose(groups[5:7, 0].sum(), 90 * x.var())
    assert_allclose(groups[2, 0] ** 2, groups[5, 0] / (90 * x.var()))
    assert groups[7:9, 0].tolist() == [2, 87]
    table = np.histogram2d(a, b, bins=[np.arange(1, 5)] * 2)[0]
    chi = stats.chi2_contingency(table, correction=False)
    assert_allclose(codes[2:, 0], [chi[0], chi[2], chi[1], stats.contingency.association(table.astype(int))])
    assert_allclose(ranks[2, 0], stats.spearmanr(a, b)[0])


def test_correlations_and_distances_are_those_of_numpy():
    X = IRIS[0] + 1000
    assert_allclose(call("cor", X=X), np.corrcoef(X.T), rtol=1e-9)
    assert_allclose(call("dist", X=X), metrics.pairwise_distances(IRIS[0]), atol=1e-9)


# ---- scores


def test_scores_are_those_of_scikit_learn(rng):
    y, found = rng.integers(1, 4, size=80), rng.integers(1, 4, size=80)
    assert call("getAccuracy", y=column(y), yhat=column(found)) == pytest.approx(100 * np.mean(y == found))
    weighted = call("getAccuracy", y=column(y), yhat=column(found), isWeighted=True)
    assert weighted == pytest.approx(100 * metrics.balanced_accuracy_score(y, found))
    counts, shares = call("confusionMatrix", P=column(found), Y=column(y))
    assert_allclose(counts, metrics.confusion_matrix(y, found).T)
    assert_allclose(shares, metrics.confusion_matrix(y, found, normalize="true").T)
    two, seen = np.minimum(y, 2), np.minimum(found, 2)
    assert call("f1Score", P=column(seen), Y=column(two)) == pytest.approx(metrics.f1_score(two, seen))
    scores = np.round(rng.uniform(size=80), 1)
    assert call("auc", Y=column(two == 2), P=column(scores)) == pytest.approx(metrics.roc_auc_score(two == 2, scores))


def test_errors_are_those_of_scikit_learn(rng):
    x, y = rng.normal(size=(2, 50))
    given = {"X": column(x), "Y": column(y)}
    assert_allclose(call("mse", **given)[0], metrics.mean_squared_error(x, y))
    assert_allclose(call("rmse", **given)[0], metrics.root_mean_squared_error(x, y))
    Z, Q = call("mae", **given, P=column([0.5, 0.9]))
    assert_allclose(Z, metrics.mean_absolute_error(x, y))
    assert_allclose(Q[:, 0], np.quantile(np.abs(x - y), [0.5, 0.9], method="inverted_cdf"))
    R = call("lmPredictStats", yhat=column(x), ytest=column(y), lm=True)
    assert_allclose(R[:, 0], [np.mean(y - x), 50 * np.var(y - x), metrics.r2_score(y, x)])


# ---- rows and columns prepared


def test_columns_are_brought_to_one_scale_and_others_the_same_way(rng):
    X, other = rng.normal(5, 3, size=(41, 3)), rng.normal(size=(4, 3))
    X[:, 2] = 7
    Y, low, high = call("normalize", X=X)
    span = np.add(np.ptp(X, axis=0), [0, 0, 1])
    assert_allclose(Y, (X - X.min(0)) / span)
    assert_allclose(call("scaleMinMax", X=X), Y)
    assert_allclose(call("normalizeApply", X=other, cmin=low, cmax=high), (other - X.min(0)) / span)
    Y, center, factor = call("scale", X=X)
    spread = np.add(X.std(0, ddof=1), [0, 0, 1])
    assert_allclose(Y, (X - X.mean(0)) / spread, atol=1e-12)
    applied = call("scaleApply", X=other, Centering=center, ScaleFactor=factor)
    assert_allclose(applied, (other - X.mean(0)) / spread)
    Y, med, q1, q3 = call("scaleRobust", X=X)
    assert_allclose(med[0], np.median(X, axis=0))
    q = np.quantile(X, [0.25, 0.75], axis=0, method="inverted_cdf")
    assert_allclose(Y, (X - med) / (q[1] - q[0] + [0, 0, 1]))
    assert_allclose(call("scaleRobustApply", X=X, med=med, q1=q1, q3=q3), Y)
    kept, chosen = call("selectByVarThresh", X=X)
    assert_allclose(kept, X[:, :2])
    assert chosen.tolist() == [[1, 1, 0]]


def test_missing_cells_are_filled_with_what_is_typical(rng):
    X = np.column_stack([rng.normal(size=30), rng.integers(1, 4, size=30).astype(float)])
    X[3:6, 0] = np.nan
    X[10:15, 1] = np.nan
    mode = stats.mode(X[:, 1], nan_policy="omit").mode
    mask = np.array([[0, 1]])
    for name, typical in [("Mean", np.nanmean(X[:, 0])), ("Median", np.nanmedian(X[:, 0]))]:
        filled, values = call(f"imputeBy{name}", X=X, mask=mask)
        assert_allclose(values[0], [typical, mode])
        assert_allclose(filled, np.where(np.isnan(X), [typical, mode], X))
        assert_allclose(call(f"imputeBy{name}Apply", X=X, imputedVec=values), filled)
    filled, values = call("imputeByMode", X=X[:, 1:])
    assert_allclose(call("imputeByModeApply", X=X[:, 1:], imputedVec=values), filled)
    assert_allclose(filled[:, 0], np.where(np.isnan(X[:, 1]), mode, X[:, 1]))


def test_outliers_are_removed_until_there_are_none(rng):
    X = np.vstack([rng.uniform(-1, 1, size=(60, 2)), [[40, 0], [0, -300], [9, 0.5]]])
    for name in ("outlierByIQR", "outlierBySd"):
        removed, *model, _, _ = call(name, X=X, k=3.0, repairMethod=0, max_iterations=0, verbose=False)
        assert_allclose(removed, X[:60])
        missing, *_ = call(name, X=X, k=3.0, repairMethod=2, max_iterations=0, verbose=False)
        assert np.argwhere(np.isnan(missing)).tolist() == [[60, 0], [61, 1], [62, 0]]
        names = library_function(f"{name}Apply").parameters[1:-2]
        apply = dict(zip(names, model, strict=True))
        zero = call(f"{name}Apply", X=X, **apply, k=3.0, repairMethod=1)
        assert_allclose(zero, np.where(np.isnan(missing), 0, X))
    once, *_ = call("outlierBySd", X=X, k=3.0, repairMethod=0, max_iterations=1, verbose=False)
    assert len(once) == 61  # 9 is no outlier as long as 40 is there


def test_tails_are_brought_back(rng):
    X = rng.normal(size=(100, 2))
    Y, low, high = call("winsorize", X=X, ql=0.1, qu=0.9)
    q = np.quantile(X, [0.1, 0.9], axis=0, method="inverted_cdf")
    assert_allclose(np.vstack([low, high]), q)
    assert_allclose(Y, np.clip(X, *q))
    assert_allclose(call("winsorizeApply", X=X * 2, qLower=low, qUpper=high), np.clip(X * 2, *q))


def test_every_row_is_for_training_or_for_testing():
    X, y = np.arange(40.0).reshape(20, 2), column(np.arange(20) % 2 + 1)
    X[0] = 0
    train, test, y_train, y_test = call("split", X=X, Y=y, f=0.75)
    assert_allclose(np.vstack([train, test]), X)
    assert len(train) == len(y_train) == 15
    train, test, y_train, y_test = call("split", X=X, Y=y, cont=False, seed=4)
    assert sorted(np.vstack([train, test])[:, 0]) == sorted(X[:, 0])
    assert_allclose(y[(train[:, 0] // 2).astype(int)], y_train)
    train, y_train, test, y_test = call("splitBalanced", X=X, Y=y, splitRatio=0.8)
    assert np.bincount(y_train[:, 0].astype(int)).tolist() == [0, 8, 8]
    assert sorted(np.vstack([train, test])[:, 0]) == sorted(X[:, 0])
    assert_allclose(y[(test[:, 0] // 2).astype(int)], y_test)


def test_codes_become_columns_and_scores_become_shares():
    assert_allclose(call("toOneHot", X=column([2, 1, 3]), numClasses=4), np.eye(4)[[1, 0, 2]])
    S = np.array([[1000.0, 1000], [0, np.log(3)]])
    assert_allclose(call("softmax", S=S), special.softmax(S, axis=1))


def test_a_script_calls_them_by_position_and_in_expressions_as_it_would_built_in_functions():
    X, y = DIABETES
    script = """
    [Z, c, s] = scale(X, TRUE, TRUE)
    r = mean(abs(y - lmPredict(Z, lm(Z, y, 1, 0.0, 1e-9, 0, FALSE), matrix(0, 1, 1), 1)))
    """
    found = dml.run(script, {"X": X, "y": y}, ["r"], **STRICT)["r"]
    assert found == pytest.approx(np.abs(sm.OLS(y, sm.add_constant(X)).fit().resid).mean(), rel=1e-8)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("lm", {"icpt": 2}),
        ("glm", {"dfam": 1, "vpow": 1.0, "icpt": 2}),
        ("multiLogReg", {}),
        ("msvm", {"intercept": True}),
        ("kmeans", {"k": 3, "seed": 2}),
        ("pca", {}),
        ("naiveBayes", {}),
        ("steplm", {"icpt": 1}),
        ("cor", {}),
        ("alsDS", {"rank": 2}),
        ("normalize", {}),
    ],
)
def test_a_sparse_matrix_gives_what_a_dense_one_does(name, given):
    rng = np.random.default_rng(3)
    X = sparse.random_array((80, 6), density=0.2, format="csr", rng=rng)
    data = {"X": X, "y": column(rng.integers(1, 4, size=80))}
    words = library_function(name).parameters
    given = given | ({"verbose": False} if "verbose" in words else {})
    for word, value in {"X": data["X"], "D": data["X"], "y": data["y"], "Y": data["y"], "C": data["y"]}.items():
        given |= {word: value} if word in words else {}
    dense = {key: value.toarray() if sparse.issparse(value) else value for key, value in given.items()}
    one, other = call(name, **given), call(name, **dense)
    for a, b in zip(*((found if isinstance(found, tuple) else (found,)) for found in (one, other)), strict=True):
        assert_allclose(a, b, atol=1e-8)
