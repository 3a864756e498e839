"""Every estimator keeps the laws of estimators over tables."""

from __future__ import annotations

import inspect

import pytest
from sklearn.base import BaseEstimator

from braidwater import estimators
from braidwater.errors import DataWarning
from braidwater.estimators import PCA, KMeans, LinearRegression, LogisticRegression
from braidwater.saving import load_model
from braidwater.tables import table, write_table
from braidwater.testing.estimators import ESTIMATOR_CHECKS, example_rows, fit

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


def test_a_saved_model_says_what_it_was_trained_on_and_how(tmp_path):
    rows = write_table(example_rows(), tmp_path / "rows.parquet")
    model = fit(LogisticRegression(), rows)
    model.save(tmp_path / "model", metrics={"accuracy": 0.75})
    document = load_model(tmp_path / "model").document
    assert document["metrics"] == {"accuracy": 0.75}
    assert document["fitted"]["trained_on_"]["schema"]["colour"] == "string"
    assert document["fitted"]["trained_on_"]["rows"] == 3000
    assert document["plan"]["steps"]["measured"]["seconds"] > 0


def test_predictions_that_leave_out_an_offset_say_so():
    rows = example_rows()
    model = LogisticRegression().fit(rows, features=["x0"], label="class", offset="x2")
    with pytest.warns(DataWarning, match="offset 'x2', which predictions leave out"):
        model.predict(table(rows))
    with pytest.warns(DataWarning, match="offset 'x2'"):
        model.evaluate(rows)
