"""Logistic regression against statsmodels and scikit-learn, and where it has no answer."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest
import statsmodels.api as sm
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.metrics import log_loss, roc_auc_score

from braidwater.encoding import Categorical, Numeric
from braidwater.engines import LocalEngine
from braidwater.errors import (
    ColumnNotFoundError,
    ConvergenceWarning,
    EmptyTableError,
    LabelError,
    OptionError,
    RankDeficientWarning,
    SeparationWarning,
    UnsupportedError,
)
from braidwater.estimators import LogisticRegression
from braidwater.events import PassFinished, listen
from braidwater.tables import table

ROWS, WIDTH = 3000, 6
SOLVERS = ["newton", "lbfgs", "cg"]
random = np.random.default_rng(0)
# columns that go together, far from zero
X = random.normal(size=(ROWS, WIDTH)) @ random.normal(size=(WIDTH, WIDTH)) + 10 * np.arange(WIDTH)
Y = (random.random(ROWS) < 1 / (1 + np.exp(-(X - X.mean(axis=0))[:, 0]))).astype(int)
Y3 = np.where(X[:, 1] + 3 * random.logistic(size=ROWS) > 10, 2, Y)
WEIGHT = random.random(ROWS)
OFFSET = random.normal(size=ROWS)


@pytest.fixture(scope="module")
def mixed():
    """A table with a category, single-precision and integer columns, weights, and its one-hot matrix."""
    rng = np.random.default_rng(5)
    rows = 5000
    levels, small = rng.integers(0, 25, rows), rng.integers(0, 3, rows)
    a, f, i = rng.normal(size=rows), rng.normal(size=rows).astype(np.float32), rng.integers(-9, 9, rows)
    eta = a - f + 0.1 * i + rng.normal(size=25)[levels] + small
    late = rng.random(rows) < 1 / (1 + np.exp(-eta))
    data = pa.table(
        {
            "a": a,
            "f": f,
            "i": i,
            "level": [f"l{v:02}" for v in levels],
            "small": [f"s{v}" for v in small],
            "w": rng.random(rows),
            "late": np.where(late, "yes", "no"),
        }
    )
    one_hot = np.column_stack([a, f.astype(float), i, np.eye(25)[levels][:, 1:], np.eye(3)[small][:, 1:]])
    return data, one_hot, late.astype(int)


@pytest.mark.parametrize("kernel", ["blas", "fused"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_two_classes_agree_with_statsmodels(solver, kernel):
    expected = sm.Logit(Y, sm.add_constant(X)).fit(disp=0, tol=1e-12)
    model = LogisticRegression(solver=solver, kernel=kernel).fit(X, Y)
    found = model.coefficients_
    np.testing.assert_allclose(found.coefficient, expected.params, rtol=1e-8)
    np.testing.assert_allclose(found.standard_error, expected.bse, rtol=1e-5)
    np.testing.assert_allclose(found.statistic, expected.tvalues, rtol=1e-5)
    np.testing.assert_allclose(found.p_value, expected.pvalues, rtol=1e-4)
    np.testing.assert_allclose(found.interval(), expected.conf_int(), rtol=1e-5)
    for mine, theirs in [
        (model.log_likelihood_, expected.llf),
        (-model.null_deviance_ / 2, expected.llnull),
        (model.aic_, expected.aic),
        (model.bic_, expected.bic),
    ]:
        assert mine == pytest.approx(theirs, rel=1e-9)
    assert model.converged_


@pytest.mark.parametrize("solver", SOLVERS)
def test_three_classes_agree_with_statsmodels(solver):
    expected = sm.MNLogit(Y3, sm.add_constant(X)).fit(disp=0, tol=1e-12)
    model = LogisticRegression(solver=solver).fit(X, Y3)
    found = model.coefficients_
    np.testing.assert_allclose(found.coefficient, np.asarray(expected.params).T.ravel(), rtol=1e-7)
    np.testing.assert_allclose(found.standard_error, np.asarray(expected.bse).T.ravel(), rtol=1e-5)
    assert model.log_likelihood_ == pytest.approx(expected.llf, rel=1e-10)
    assert model.aic_ == pytest.approx(expected.aic, rel=1e-10)
    np.testing.assert_allclose(model.coef_.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(model.predict_proba(X), expected.predict(), atol=1e-8)


def test_weights_and_offsets_agree_with_statsmodels():
    family = sm.families.Binomial()
    expected = sm.GLM(Y, sm.add_constant(X), family=family, offset=OFFSET, freq_weights=WEIGHT).fit(tol=1e-13)
    for kernel in ("blas", "fused"):
        model = LogisticRegression(kernel=kernel).fit(X, Y, WEIGHT, offset=OFFSET)
        np.testing.assert_allclose(model.coef_[0], expected.params[1:], rtol=1e-8)
        np.testing.assert_allclose(model.standard_errors_[0], expected.bse[1:], rtol=1e-6)
        assert model.deviance_ == pytest.approx(expected.deviance, rel=1e-10)
        assert model.null_deviance_ == pytest.approx(expected.null_deviance, rel=1e-8)


def test_without_an_intercept_it_agrees_with_statsmodels():
    expected = sm.Logit(Y, X).fit(disp=0, tol=1e-12)
    for solver in SOLVERS:
        model = LogisticRegression(fit_intercept=False, solver=solver).fit(X, Y)
        np.testing.assert_allclose(model.coef_[0], expected.params, rtol=1e-7)
        np.testing.assert_allclose(model.standard_errors_[0], expected.bse, rtol=1e-5)
        assert model.intercept_.tolist() == [0.0]


@pytest.mark.parametrize("labels", [Y, Y3], ids=["two classes", "three classes"])
@pytest.mark.parametrize("alpha", [1e-3, 1e-1])
@pytest.mark.parametrize("solver", SOLVERS)
def test_ridge_agrees_with_scikit_learn(solver, alpha, labels):
    expected = Reference(C=1 / (alpha * ROWS), tol=1e-12, max_iter=20_000).fit(X - X.mean(axis=0), labels)
    model = LogisticRegression(alpha, solver=solver, tol=1e-8).fit(X, labels)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-5 * abs(expected.coef_).max())
    assert model.standard_errors_ is None


@pytest.mark.parametrize("labels", [Y, Y3], ids=["two classes", "three classes"])
@pytest.mark.parametrize(("alpha", "l1_ratio"), [(1e-2, 1.0), (1e-1, 0.5)])
def test_lasso_and_elastic_net_agree_with_scikit_learn(alpha, l1_ratio, labels):
    centred = X - X.mean(axis=0)
    expected = Reference(C=1 / (alpha * ROWS), l1_ratio=l1_ratio, solver="saga", tol=1e-10, max_iter=20_000)
    expected.fit(centred, labels)
    model = LogisticRegression(alpha, l1_ratio=l1_ratio, tol=1e-8).fit(X, labels)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=2e-5 * abs(expected.coef_).max())
    assert np.array_equal(model.coef_ == 0, expected.coef_ == 0)


def test_a_penalty_on_standardised_columns_does_not_change_with_units():
    units = np.array([1, 10, 100, 1e-3, 1, 5.0])
    one = LogisticRegression(0.1, standardize=True).fit(X, Y)
    other = LogisticRegression(0.1, standardize=True).fit(X * units, Y)
    np.testing.assert_allclose(one.coef_, other.coef_ * units, rtol=1e-5)


def test_a_path_is_the_single_fits_in_fewer_passes():
    alphas = [0.0, 1e-3, 1e-2, 1e-1]
    counted = []
    with listen(lambda event: counted.append(event) if isinstance(event, PassFinished) else None):
        models = LogisticRegression(solver="lbfgs").fit_path(X, Y, alphas=alphas)
    path = len(counted)
    counted.clear()
    with listen(lambda event: counted.append(event) if isinstance(event, PassFinished) else None):
        singles = [LogisticRegression(alpha, solver="lbfgs").fit(X, Y) for alpha in alphas]
    assert path < len(counted) / 2.5
    for model, single in zip(models, singles, strict=True):
        np.testing.assert_allclose(model.coef_, single.coef_, rtol=1e-4, atol=1e-7)
        assert model.alpha == single.alpha
        assert np.array_equal(model.predict(X), single.predict(X))


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_rows_give_the_optimum_of_double_precision(solver):
    narrow = X.astype(np.float32)
    wide = LogisticRegression().fit(narrow.astype(np.float64), Y)
    model = LogisticRegression(solver=solver).fit(narrow, Y)
    np.testing.assert_allclose(model.coef_, wide.coef_, rtol=1e-6)
    np.testing.assert_allclose(model.standard_errors_, wide.standard_errors_, rtol=1e-5)


def test_a_table_with_categories_is_its_one_hot_matrix(mixed):
    data, one_hot, late = mixed
    weight = data["w"].to_numpy()
    expected = sm.GLM(late, sm.add_constant(one_hot), family=sm.families.Binomial(), freq_weights=weight).fit(tol=1e-13)
    for solver in SOLVERS:
        for kernel in ("blas", "fused"):
            model = LogisticRegression(solver=solver, kernel=kernel).fit(data, label="late", sample_weight="w")
            np.testing.assert_allclose(model.coef_[0], expected.params[1:], rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(model.standard_errors_[0], expected.bse[1:], rtol=1e-4)
    assert list(model.feature_names_[:4]) == ["a", "f", "i", "level[l01]"]
    assert model.classes_.tolist() == ["no", "yes"]


def test_the_number_of_workers_changes_no_bit(mixed):
    data = mixed[0]
    models = [
        LogisticRegression(solver="lbfgs").fit(data, label="late", exclude=["w"], engine=LocalEngine(workers))
        for workers in (1, 2, 5)
    ]
    for model in models[1:]:
        assert np.array_equal(model.coef_, models[0].coef_)
        assert np.array_equal(model.covariance_, models[0].covariance_)


def test_predictions_are_a_table_with_all_columns(mixed):
    data, one_hot, _ = mixed
    model = LogisticRegression().fit(data, label="late", exclude=["w"])
    predicted = model.predict(data).to_arrow()
    assert predicted.column_names == [*data.column_names, "prediction", "probability_no", "probability_yes"]
    assert predicted.select(data.column_names).equals(data)
    probabilities = model.predict_proba(one_hot)
    np.testing.assert_allclose(predicted["probability_yes"], probabilities[:, 1], rtol=1e-6)
    assert predicted["prediction"].to_pylist() == model.predict(one_hot).tolist()


def test_rows_that_the_null_policy_drops_are_predicted_as_null(mixed):
    data = mixed[0]
    holes = data.set_column(0, "a", pa.array([None, *data["a"].to_pylist()[1:]]))
    model = LogisticRegression(nulls="drop").fit(holes, label="late", exclude=["w"])
    assert model.n_rows_ == len(data) - 1
    predicted = model.predict(holes).to_arrow()
    assert len(predicted) == len(data)
    assert predicted["prediction"][:2].to_pylist()[0] is None
    assert predicted["probability_yes"].null_count == 1


def test_evaluation_agrees_with_scikit_learn(mixed):
    data, one_hot, late = mixed
    model = LogisticRegression().fit(data, label="late", exclude=["w"])
    found = model.evaluate(data)
    probabilities = model.predict_proba(one_hot)[:, 1]
    assert found["log_loss"] == pytest.approx(log_loss(late, probabilities), rel=1e-6)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(late, probabilities), abs=found["roc_auc_error"] + 1e-9)
    assert found["roc_auc_error"] < 1e-3
    assert found["accuracy"] == pytest.approx(np.mean((probabilities > 0.5) == late))
    assert model.score(data) == found["accuracy"]
    assert np.array(found["confusion"]).sum() == found["rows"] == len(data)


def test_encoders_can_standardise_and_hash(mixed):
    data = mixed[0]
    plain = LogisticRegression().fit(data, label="late", features=["a", "level"])
    chosen = {"a": Numeric(standardise=True), "level": Categorical()}
    model = LogisticRegression().fit(data, label="late", features=chosen)
    spread = np.std(data["a"].to_numpy())
    assert model.coef_[0, 0] == pytest.approx(plain.coef_[0, 0] * spread, rel=1e-6)
    np.testing.assert_allclose(model.predict(data).to_arrow()["probability_yes"],
                               plain.predict(data).to_arrow()["probability_yes"], rtol=1e-7)  # fmt: skip


def test_saved_and_loaded_it_predicts_the_same_bits(mixed, tmp_path):
    data = mixed[0]
    for labels in ("late", "small"):
        model = LogisticRegression().fit(data, label=labels, exclude=["w"])
        loaded = LogisticRegression.load(model.save(tmp_path / labels))
        assert loaded.predict(data).to_arrow().equals(model.predict(data).to_arrow())
        assert loaded.get_params() == model.get_params()
        assert loaded.summary() == model.summary()
    arrays = LogisticRegression(0.1).fit(X, Y3)
    loaded = LogisticRegression.load(arrays.save(tmp_path / "arrays"))
    assert np.array_equal(loaded.predict_proba(X), arrays.predict_proba(X))
    assert loaded.classes_.dtype == arrays.classes_.dtype


def test_real_data_agree_with_scikit_learn():
    cancer = load_breast_cancer()
    centred = (cancer.data - cancer.data.mean(axis=0)) / cancer.data.std(axis=0)
    expected = Reference(C=1 / (0.01 * len(centred)), tol=1e-10, max_iter=10_000).fit(centred, cancer.target)
    model = LogisticRegression(0.01, standardize=True).fit(cancer.data, cancer.target)
    np.testing.assert_allclose(model.predict_proba(cancer.data), expected.predict_proba(centred), atol=1e-5)
    digits = load_digits()
    model = LogisticRegression(0.01).fit(digits.data, digits.target)
    newton = Reference(C=1 / (0.01 * len(digits.data)), tol=1e-8, solver="newton-cholesky")
    expected = newton.fit(digits.data, digits.target)
    np.testing.assert_allclose(model.predict_proba(digits.data), expected.predict_proba(digits.data), atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_complete_separation_is_named(solver):
    with pytest.warns(SeparationWarning, match=r"separated \(complete\) by x0"):
        model = LogisticRegression(solver=solver).fit(X[:, :2], X[:, 0] > 0)
    assert not model.converged_


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("share", [0.3, 0.01, 0.001])
def test_quasi_complete_separation_is_named(solver, share):
    # wherever the flag is up the class is 1: its coefficient has no finite best value
    flagged = X.copy()
    flagged[:, 2] = np.arange(ROWS) < share * ROWS
    labels = np.where(flagged[:, 2] == 1, 1, Y)
    with pytest.warns(SeparationWarning, match=r"separated \(quasi-complete\) by x2:"):
        LogisticRegression(solver=solver).fit(flagged, labels)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_rare_but_mixed_flag_is_not_called_separation(solver, recwarn):
    flagged = X.copy()
    flagged[:, 2] = np.arange(ROWS) < 4
    labels = Y.copy()
    labels[:4] = [1, 0, 1, 1]
    model = LogisticRegression(solver=solver).fit(flagged, labels)
    expected = sm.Logit(labels, sm.add_constant(flagged)).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(model.standard_errors_[0], expected.bse[1:], rtol=1e-4)
    assert not recwarn.list


def test_columns_that_are_sums_of_others_are_named():
    twins = X.copy()
    twins[:, 3] = twins[:, 1] + twins[:, 2]
    twins[:, 5] = 7.0
    with pytest.warns(RankDeficientWarning, match="Columns x1, x2, x3, x5 are constant or sums"):
        model = LogisticRegression().fit(twins, Y)
    assert np.isnan(model.standard_errors_[0]).tolist() == [False, True, True, True, False, True]
    without = LogisticRegression().fit(np.delete(twins, [3, 5], axis=1), Y)
    assert model.log_likelihood_ == pytest.approx(without.log_likelihood_, rel=1e-10)
    np.testing.assert_allclose(model.standard_errors_[0, [0, 4]], without.standard_errors_[0, [0, 3]], rtol=1e-6)
    assert model.coef_[0, 5] == 0


def test_too_few_passes_are_said_so():
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        LogisticRegression(0.001, max_iter=3, solver="lbfgs").fit(X, Y)


def test_one_class_is_refused():
    with pytest.raises(LabelError, match="has one class only"):
        LogisticRegression().fit(X, np.ones(ROWS))
    with pytest.raises(LabelError, match="1 class with weight"):
        LogisticRegression().fit(X, Y, (Y == 1).astype(float))
    with pytest.raises(LabelError, match="'late' has one class only, 'yes'"):
        LogisticRegression().fit(pa.table({"x": [1.0, 2.0], "late": ["yes", "yes"]}), label="late")


def test_mistakes_are_named_before_anything_is_read():
    rows = table(pa.table({"x": [1.0, 2.0], "late": ["yes", "no"]}), name="flights")
    with pytest.raises(ColumnNotFoundError, match="Did you mean 'late'"):
        LogisticRegression().fit(rows, label="lat")
    with pytest.raises(OptionError, match="label=None"):
        LogisticRegression().fit(rows)
    with pytest.raises(EmptyTableError, match="'flights' has no rows"):
        LogisticRegression().fit(table(rows.to_arrow().slice(0, 0), name="flights"), label="late")
    for name, value in [("alpha", -1), ("l1_ratio", 2), ("solver", "sag"), ("tol", 0), ("max_iter", 1)]:
        with pytest.raises(OptionError, match=f"{name}="):
            LogisticRegression(**{name: value}).fit(X, Y)
    with pytest.raises(UnsupportedError, match="offset needs two classes"):
        LogisticRegression().fit(X, Y3, offset=OFFSET)
    with pytest.raises(OptionError, match="sample_weight"):
        LogisticRegression().fit(rows, label="late", sample_weight=[1, 2])


def test_the_summary_has_a_line_for_each_coefficient():
    text = LogisticRegression().fit(X, Y).summary()
    for word in ("log-likelihood", "AIC", "odds", "std err", "intercept", "x5"):
        assert word in text
    assert len(text.splitlines()) == 9 + 1 + 2 + 1 + WIDTH


@pytest.mark.parametrize("kernel", ["blas", "fused"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_chooses_the_arithmetic_of_a_tile(dtype, kernel):
    rows = np.random.default_rng(1).normal(size=(20_000, 5)).astype(dtype)
    labels = (np.random.default_rng(2).random(20_000) < 1 / (1 + np.exp(-rows[:, 0]))).astype(int)
    exact = sm.Logit(labels, sm.add_constant(rows.astype(float))).fit(disp=0, tol=1e-13).params[1:]
    error = {}
    for precision in ("auto", "double", "fast"):
        model = LogisticRegression(
            alpha=1e-12, solver="lbfgs", tol=1e-11, kernel=kernel, precision=precision, max_iter=60
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # float32 does not reach that tolerance
            error[precision] = np.max(np.abs(model.fit(rows, labels).coef_[0] - exact))
    assert error["double"] < 1e-9
    assert 1e-9 < error["fast"] < 2e-5
    assert error["auto"] == error["fast" if dtype == np.float32 else "double"]


def test_fast_precision_keeps_columns_far_from_zero_in_float64():
    rows = np.random.default_rng(1).normal(size=(20_000, 3)) + 1e5
    labels = (np.random.default_rng(2).random(20_000) < 1 / (1 + np.exp(1e5 - rows[:, 0]))).astype(int)
    exact, fast = (
        LogisticRegression(solver="lbfgs", kernel="fused", precision=precision).fit(rows, labels).coef_
        for precision in ("double", "fast")
    )
    np.testing.assert_allclose(fast, exact, rtol=1e-10)
    with pytest.raises(OptionError, match="precision='half'"):
        LogisticRegression(precision="half").fit(rows, labels)


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "cg"])
def test_without_intercept_a_standardised_model_goes_through_the_means(solver: str) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(800, 2)) * [2, 5] + [3, -4]
    y = (features @ [0.5, 0.3] + random.logistic(size=800) > 0).astype(int)
    rows = pa.table({"a": features[:, 0], "b": features[:, 1], "y": y})
    encoders = {"a": Numeric(standardise=True), "b": Numeric(standardise=True)}
    model = LogisticRegression(fit_intercept=False, solver=solver).fit(rows, label="y", features=encoders)
    expected = sm.Logit(y, (features - features.mean(axis=0)) / features.std(axis=0)).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(model.coef_[0], expected.params, rtol=1e-6)
    np.testing.assert_allclose(model.standard_errors_[0], expected.bse, rtol=1e-5)
    assert model.intercept_[0] == 0
