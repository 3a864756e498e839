"""Linear regression against statsmodels and scikit-learn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import statsmodels.api as sm
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from braidwater.encoding import Numeric
from braidwater.engines import LocalEngine
from braidwater.errors import EmptyTableError, LabelError, NumericalError, OptionError, RankDeficientWarning
from braidwater.estimators import LinearRegression
from braidwater.events import PassFinished, listen
from braidwater.tables import table

ROWS, WIDTH = 3000, 6
random = np.random.default_rng(0)
X = random.normal(size=(ROWS, WIDTH)) @ random.normal(size=(WIDTH, WIDTH)) + 100 * np.arange(WIDTH)
Y = 2 * X[:, 0] + random.normal(size=ROWS) * (1 + abs(X[:, 1] - 100))
WEIGHT = random.random(ROWS) + 0.1


@pytest.mark.parametrize("errors", ["classical", "HC0", "HC1", "HC2", "HC3"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["equal", "weighted"])
@pytest.mark.parametrize("intercept", [True, False])
def test_coefficients_and_errors_agree_with_statsmodels(intercept, weight, errors):
    columns = sm.add_constant(X) if intercept else X
    reference = (sm.OLS(Y, columns) if weight is None else sm.WLS(Y, columns, weight)).fit()
    robust = reference if errors == "classical" else reference.get_robustcov_results(errors, use_t=False)
    model = LinearRegression(errors=errors, fit_intercept=intercept).fit(X, Y, weight)
    found = model.coefficients_
    np.testing.assert_allclose(found.coefficient, reference.params, rtol=1e-8)
    np.testing.assert_allclose(found.standard_error, robust.bse, rtol=1e-8)
    np.testing.assert_allclose(found.p_value, robust.pvalues, rtol=1e-6, atol=1e-300)
    np.testing.assert_allclose(found.interval(), robust.conf_int(), rtol=1e-6)
    assert model.r2_ == pytest.approx(reference.rsquared, rel=1e-10)
    assert model.adjusted_r2_ == pytest.approx(reference.rsquared_adj, rel=1e-10)
    assert model.condition_number_ == pytest.approx(reference.condition_number, rel=1e-6)
    assert model.degrees_of_freedom_ == reference.df_resid
    assert model.residual_variance_ == pytest.approx(reference.scale, rel=1e-9)


def test_ridge_agrees_with_scikit_learn():
    for intercept in (True, False):
        expected = Ridge(0.1 * WEIGHT.sum(), fit_intercept=intercept, solver="svd").fit(X, Y, WEIGHT)
        model = LinearRegression(0.1, fit_intercept=intercept).fit(X, Y, WEIGHT)
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-8)
        assert model.intercept_ == pytest.approx(expected.intercept_, rel=1e-8)
        assert model.standard_errors_ is None


def test_least_squares_take_one_pass_and_robust_errors_two():
    for errors, passes in [("classical", 1), ("HC3", 2)]:
        seen = []
        with listen(lambda event, seen=seen: seen.append(event) if isinstance(event, PassFinished) else None):
            LinearRegression(errors=errors).fit(X, Y)
        assert len(seen) == passes


def test_a_mean_far_from_zero_costs_no_digits():
    # plain normal equations have lost all digits here: the mean is 1e8 times the spread
    far = random.normal(size=(ROWS, 2))
    y = far @ [1.0, -2.0] + random.normal(size=ROWS)
    moved = far + 2.0**27
    for errors in ("classical", "HC3"):
        expected = LinearRegression(errors=errors).fit(moved - 2.0**27, y)
        model = LinearRegression(errors=errors).fit(moved, y)
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-7)
        np.testing.assert_allclose(model.standard_errors_, expected.standard_errors_, rtol=1e-7)


def test_columns_that_are_sums_of_others_are_named():
    twins = X.copy()
    twins[:, 2] = twins[:, 3] - twins[:, 4]
    with pytest.warns(RankDeficientWarning, match="Columns x2, x3, x4 are constant or sums"):
        model = LinearRegression().fit(twins, Y)
    without = LinearRegression().fit(np.delete(twins, 2, axis=1), Y)
    np.testing.assert_allclose(model.predict(twins), without.predict(np.delete(twins, 2, axis=1)), rtol=1e-9)
    assert np.isnan(model.standard_errors_).tolist() == [False, False, True, True, True, False]
    np.testing.assert_allclose(model.standard_errors_[[0, 1, 5]], without.standard_errors_[[0, 1, 4]], rtol=1e-8)
    assert model.rank_ == without.rank_


def test_a_table_is_its_one_hot_matrix_for_any_number_of_workers():
    levels = random.integers(0, 25, ROWS)
    data = pa.table({"a": X[:, 0], "level": [f"l{v:02}" for v in levels], "f": X[:, 1].astype(np.float32), "y": Y})
    one_hot = np.column_stack([X[:, 0], np.eye(25)[levels][:, 1:], X[:, 1].astype(np.float32)])
    for errors in ("classical", "HC2"):
        expected = sm.OLS(Y, sm.add_constant(one_hot)).fit(cov_type="nonrobust" if errors == "classical" else errors)
        models = [
            LinearRegression(errors=errors).fit(data, label="y", engine=LocalEngine(workers)) for workers in (1, 3)
        ]
        np.testing.assert_allclose(models[0].coef_, expected.params[1:], rtol=1e-7)
        np.testing.assert_allclose(models[0].standard_errors_, expected.bse[1:], rtol=1e-7)
        assert np.array_equal(models[0].coef_, models[1].coef_)
    model = models[0]
    predicted = model.predict(data).to_arrow()
    np.testing.assert_allclose(predicted["prediction"], model.predict(one_hot), rtol=1e-9)
    found = model.evaluate(data)
    assert found["r2"] == pytest.approx(r2_score(Y, predicted["prediction"]))
    assert found["rmse"] == pytest.approx(root_mean_squared_error(Y, predicted["prediction"]))
    assert found["mae"] == pytest.approx(mean_absolute_error(Y, predicted["prediction"]))
    assert model.score(data) == found["r2"]


def test_saved_and_loaded_it_predicts_the_same_bits(tmp_path):
    data = pa.table({"a": X[:, 0], "b": X[:, 1], "y": Y})
    model = LinearRegression().fit(data, label="y")
    loaded = LinearRegression.load(model.save(tmp_path / "model"))
    assert loaded.predict(data).to_arrow().equals(model.predict(data).to_arrow())
    assert loaded.summary() == model.summary()


def test_a_label_that_is_no_number_is_refused():
    with pytest.raises(LabelError, match="a regression needs a number"):
        LinearRegression().fit(pa.table({"x": [1.0, 2.0], "y": ["a", "b"]}), label="y")


def test_mistakes_are_named():
    with pytest.raises(EmptyTableError):
        LinearRegression().fit(
            table(pa.table({"x": pa.array([], pa.float64()), "y": pa.array([], pa.float64())})), label="y"
        )
    with pytest.raises(EmptyTableError, match="No row has a weight"):
        LinearRegression().fit(
            pa.table({"x": [1.0, 2.0], "y": [1.0, 2.0], "w": [0.0, 0.0]}), label="y", sample_weight="w"
        )
    with pytest.raises(OptionError, match="errors='HC9'"):
        LinearRegression(errors="HC9").fit(X, Y)
    with pytest.raises(OptionError, match="alpha"):
        LinearRegression(alpha=float("nan")).fit(X, Y)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(NumericalError, match="overflow"):
        LinearRegression().fit(X * 1e200, Y)


def test_the_summary_has_a_line_for_each_coefficient():
    text = LinearRegression().fit(X, Y).summary()
    for word in ("adjusted R²", "P>|t|", "condition number", "intercept", "x5"):
        assert word in text


def test_without_intercept_a_standardised_model_goes_through_the_means() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(500, 2)) * [2, 5] + [3, -4]
    y = features @ [1.0, 2.0] + random.normal(size=500)
    rows = pa.table({"a": features[:, 0], "b": features[:, 1], "y": y})
    encoders = {"a": Numeric(standardise=True), "b": Numeric(standardise=True)}
    model = LinearRegression(fit_intercept=False).fit(rows, label="y", features=encoders)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    expected = sm.OLS(y, standard).fit()
    np.testing.assert_allclose(model.coef_, expected.params, rtol=1e-9)
    np.testing.assert_allclose(model.standard_errors_, expected.bse, rtol=1e-9)
    assert model.intercept_ == 0
