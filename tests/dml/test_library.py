"""The scripts of the library: their headers, their refusals, and the functions that prepare rows and score predictions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import statsmodels.api as sm
from library_calls import DIABETES, STRICT, call, column
from numpy.testing import assert_allclose
from scipy import sparse, special, stats
from sklearn import metrics

from braidwater import dml, table
from braidwater.dml.library_reference import FAMILIES, library_function, library_reference
from braidwater.dml.run import LIBRARY
from braidwater.errors import DMLStopped, UnsupportedError

ROOT = Path(__file__).parent.parent.parent
NAMES = sorted(path.stem for path in LIBRARY.glob("*.dml"))
NONE = np.zeros((1, 1))

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


@pytest.mark.parametrize(
    ("name", "label"), [("glm", "Y"), ("multiLogReg", "Y"), ("l2svm", "Y"), ("steplm", "y"), ("kmeans", None)]
)
def test_missing_values_are_refused(name, label, rng):
    X, y = rng.normal(size=(20, 2)), column(np.arange(20) % 2 + 1)
    X[3, 1] = np.nan
    with pytest.raises(DMLStopped, match=r"missing values .*imputeByMean"):
        call(name, X=X, **({label: y} if label else {"k": 2}))


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
        (
            "cox",
            {"X": np.array([[1.0, 1, 3], [2, 1, 2], [3, 1, 1]]), "TE": column([1, 2]), "F": column([3]), "R": NONE},
            "a feature tells the order of the events exactly",
        ),
        ("alsCG", {"X": X, "regType": "L1"}, "regType is L1"),
        ("linearTerms", {"X": X, "B": np.ones((5, 1))}, "5 weights, and X 2 columns"),
    ]:
        with pytest.raises(DMLStopped, match=re.escape(message)):
            call(name, **given)


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
    shares = column([0.5, 0.9])
    quantiles = np.quantile(np.abs(x - y), [0.5, 0.9], method="inverted_cdf")
    for name, value in [("rmse", metrics.root_mean_squared_error(x, y)), ("mae", metrics.mean_absolute_error(x, y))]:
        Z, Q = call(name, **given, P=shares)
        assert_allclose(Z, value)
        assert_allclose(Q, [quantiles])
    assert_allclose(call("mse", **given, P=shares)[1], [quantiles**2])
    assert_allclose(call("flattenQuantile", X=np.abs(x - y).reshape(5, 10), P=shares), [quantiles])
    R = call("lmPredictStats", yhat=column(x), ytest=column(y), lm=True)
    assert_allclose(R[:, 0], [np.mean(y - x), 50 * np.var(y - x), metrics.r2_score(y, x)])


# ---- rows and columns prepared


def test_columns_are_brought_to_one_scale_and_others_the_same_way(rng):
    X, other = rng.normal(5, 3, size=(42, 3)), rng.normal(size=(4, 3))
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
    q = np.quantile(X, [0.25, 0.5, 0.75], axis=0, method="inverted_cdf")
    assert_allclose(np.vstack([q1, med, q3]), q)
    assert_allclose(Y, (X - med) / (q[2] - q[0] + [0, 0, 1]))
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
    q = np.quantile(X, [0.1, 0.9], axis=0, method="averaged_inverted_cdf")
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


def test_a_function_of_java_is_replaced_by_that_of_the_library():
    script = """
    {name} = externalFunction(Matrix[Double] A, Integer binsize, Integer numbins)
      return (Matrix[Double] B, Integer numbinsdef) implemented in (classname="org.apache.sysml.udf.lib.BinningWrapper")
    [B, n] = {name}(matrix("1 2 2 2 5 6 7", rows = 7, cols = 1), 2, 4)
    """
    found = dml.run(script.format(name="binning"), outputs=["B", "n"], **STRICT)
    assert found["B"][:, 0].tolist() == [1.5, 4, 6.5, 7, 0]  # bins end at 2, 6, 7: equal cells stay together
    assert found["n"] == 3
    with pytest.raises(UnsupportedError, match="A function m_cut in a folder of library= takes its place"):
        dml.run(script.format(name="cut"), outputs=["B"])


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


@pytest.mark.parametrize(
    "script",
    [
        "S = lm(X = X, y = y, icpt = 2, verbose = FALSE)",
        "S = glm(X = X, Y = y, dfam = 2, yneg = 1.0, icpt = 1, verbose = FALSE)",
        "S = multiLogReg(X = X, Y = y, verbose = FALSE)",
        "S = l2svm(X = X, Y = y, intercept = TRUE)",
        "[S, Y] = kmeans(X = X, k = 3, runs = 2, seed = 4, max_iter = 5)",
        "[R, S, c, f] = pca(X = X, K = 2, onlyComponents = TRUE)",
        "[S, chosen] = steplm(X = X, y = y, icpt = 1, verbose = FALSE)",
    ],
)
def test_a_table_that_does_not_fit_into_memory_gives_the_same(script, tmp_path, rng):
    X, y = rng.normal(size=(20_000, 20)), column(rng.integers(1, 3, size=20_000))
    pq.write_table(pa.table({f"x{i}": x for i, x in enumerate(X.T)}), tmp_path / "x.parquet", row_group_size=2000)
    given = {"X": table(tmp_path / "x.parquet"), "y": y}
    found = dml.run(script, given, ["S"], memory="2MB")["S"]  # X has 3.2 MB
    assert_allclose(found, dml.run(script, {"X": X, "y": y}, ["S"])["S"], atol=1e-9)
