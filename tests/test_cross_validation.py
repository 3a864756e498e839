"""Cross validation: scikit-learn's figures on the same folds, from shared passes over one set of blocks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import sklearn.linear_model
from sklearn import model_selection as theirs
from sklearn.metrics import accuracy_score, log_loss

from braidwater import explain
from braidwater.engines import LocalEngine
from braidwater.errors import EmptyTableError, LabelError, NullValueError, OptionError, UnsupportedError
from braidwater.estimators import PCA, KMeans, LinearRegression, LogisticRegression
from braidwater.events import PassStarted, listen
from braidwater.kernels import choice
from braidwater.model_selection import (
    CrossValidation,
    GroupKFold,
    KFold,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_validate,
)
from braidwater.tables import table

ROWS = 2000
FEATURES = ["x0", "x1", "x2"]
SPLITTERS = {
    "k-fold": theirs.KFold(5, shuffle=True, random_state=1),
    "stratified": theirs.StratifiedKFold(3),
    "in time": theirs.TimeSeriesSplit(4),
    "overlapping": theirs.ShuffleSplit(3, test_size=0.3, random_state=0),
    "repeated": theirs.RepeatedKFold(n_splits=3, n_repeats=2, random_state=0),
}


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(1)
    x = random.normal(size=(3, ROWS)) + 3
    columns = {f"x{j}": values for j, values in enumerate(x)}
    columns |= {"y": x[0] + 2 * x[1] + random.normal(size=ROWS), "user": random.integers(0, 40, ROWS)}
    late = x[0] - 3 + random.logistic(size=ROWS) > 0
    return pa.table(columns | {"late": np.where(late, "yes", "no"), "time": random.permutation(ROWS)})


def arrays(rows, label):
    return np.column_stack([rows[name].to_numpy() for name in FEATURES]), np.array(rows[label].to_pylist())


def test_folds_are_trained_by_the_kernel_that_suits_the_scan_of_all_rows(rows, monkeypatch):
    class Watched(LocalEngine):
        def aggregate(self, source, aggregate):
            inner = aggregate.aggregates[0] if hasattr(aggregate, "aggregates") else aggregate
            kernels.add(inner.kernel)
            return super().aggregate(source, aggregate)

    for least, expected in ((ROWS, "fused"), (ROWS + 1, "blas")):  # training rows are fewer than both
        kernels = set()
        monkeypatch.setattr(choice, "FUSED_FROM_ROWS", least)
        found = cross_validate(LinearRegression(), rows, label="y", features=FEATURES, models=True, engine=Watched())
        assert kernels == {expected}
        assert [model.kernel for model in found.models] == ["auto"] * 5


@pytest.mark.parametrize("name", SPLITTERS)
def test_least_squares_gives_the_figures_of_scikit_learn_from_one_pass(rows, name):
    passes = []
    with listen(lambda event: passes.append(event) if isinstance(event, PassStarted) else None):
        label = "late" if name == "stratified" else "y"
        splitter = SPLITTERS[name] if name != "stratified" else SPLITTERS["k-fold"]
        found = cross_validate(LinearRegression(), rows, label="y", features=FEATURES, folds=splitter, models=True)
    features, y = arrays(rows, "y")
    scoring = ["r2", "neg_root_mean_squared_error"]
    expected = theirs.cross_validate(sklearn.linear_model.LinearRegression(), features, y, cv=splitter, scoring=scoring)
    assert label in rows.column_names
    assert len(passes) == 1
    np.testing.assert_allclose(found.folds["r2"].to_numpy(), expected["test_r2"], rtol=1e-9)
    np.testing.assert_allclose(found.folds["rmse"].to_numpy(), -expected["test_neg_root_mean_squared_error"], rtol=1e-9)
    assert found.mean["r2"] == pytest.approx(np.mean(expected["test_r2"]))
    assert found.deviation["r2"] == pytest.approx(np.std(expected["test_r2"], ddof=1))
    train, _ = next(splitter.split(features, y))
    alone = LinearRegression().fit(rows.take(train), label="y", features=FEATURES)
    np.testing.assert_allclose(found.models[0].standard_errors_, alone.standard_errors_, rtol=1e-9)


@pytest.mark.parametrize("name", ["k-fold", "stratified", "overlapping"])
def test_logistic_models_of_all_folds_are_trained_by_the_same_passes(rows, name):
    passes = []
    with listen(lambda event: passes.append(event.what) if isinstance(event, PassStarted) else None):
        found = cross_validate(
            LogisticRegression(0.01, tol=1e-10), rows, label="late", features=FEATURES, folds=SPLITTERS[name],
            metrics=["accuracy", "log_loss"],
        )  # fmt: skip
    features, late = arrays(rows, "late")
    for fold, (train, test) in enumerate(SPLITTERS[name].split(features, late)):
        peer = sklearn.linear_model.LogisticRegression(C=100 / len(train), tol=1e-10, max_iter=1000)
        peer.fit(features[train], late[train])
        loss = log_loss(late[test], peer.predict_proba(features[test]))
        assert found.folds["log_loss"][fold].as_py() == pytest.approx(loss, abs=1e-8)
        assert found.folds["accuracy"][fold].as_py() == accuracy_score(late[test], peer.predict(features[test]))
        assert found.folds["train_rows"][fold].as_py() == len(train)
    assert len(passes) <= 10  # those of one fit, and the test; not five times as many


def test_every_row_is_predicted_by_a_model_that_has_not_seen_it(rows):
    found = cross_validate(
        LinearRegression(), rows, label="y", features=FEATURES, folds=4, predictions=True, models=True, seed=3
    )
    predicted = found.predictions.to_arrow()
    assert predicted.select(rows.column_names).equals(rows)
    fold = predicted["fold"].to_numpy()
    assert np.bincount(fold).tolist() == [0, 500, 500, 500, 500]
    features, y = arrays(rows, "y")
    for number in range(1, 5):
        own = np.flatnonzero(fold == number)
        alone = LinearRegression().fit(rows.take(np.flatnonzero(fold != number)), label="y", features=FEATURES)
        np.testing.assert_allclose(predicted["prediction"].to_numpy()[own], alone.predict(features[own]), rtol=1e-9)
        rmse = np.sqrt(np.mean((predicted["prediction"].to_numpy() - y)[own] ** 2))
        assert found.folds["rmse"][number - 1].as_py() == pytest.approx(rmse, rel=1e-9)


def test_our_own_folds_keep_what_they_promise(rows):
    by_user = cross_validate(
        LogisticRegression(), rows, label="late", features=FEATURES, folds=GroupKFold("user", 4), predictions=True
    ).predictions.to_arrow()  # fmt: skip
    assert len(set(zip(by_user["user"].to_pylist(), by_user["fold"].to_pylist(), strict=True))) == 40
    in_time = cross_validate(
        LinearRegression(), rows, label="y", features=FEATURES, folds=TimeSeriesSplit("time", 3), predictions=True
    )
    assert in_time.folds["train_rows"].to_pylist() == [500, 1000, 1500]
    found = in_time.predictions.to_arrow()
    assert found["fold"].null_count == found["prediction"].null_count == 500
    times, fold = found["time"].to_numpy(), np.array([number or 0 for number in found["fold"].to_pylist()])
    assert all(times[fold == number].max() < times[fold == number + 1].min() for number in range(3))
    cut = StratifiedKFold(5).cut(table(rows), "late", 0)
    assert np.ptp(cut.test_rows) <= 1
    other = KFold(5).cut(table(rows), None, 1)
    assert not np.array_equal(
        other.parts.codes(None, 0, 100), KFold(5).cut(table(rows), None, 0).parts.codes(None, 0, 100)
    )


def test_models_without_a_label_and_a_pass_more_for_other_metrics(rows):
    pca = cross_validate(PCA(2), rows, features=FEATURES, folds=3, models=True)
    assert pca.mean["explained_variance_ratio"] == pytest.approx(2 / 3, abs=0.05)
    by_pass = cross_validate(PCA(2), rows, features=FEATURES, folds=3, metrics=["mean_squared_distance"])
    assert 0.5 < by_pass.mean["mean_squared_distance"] < 1.5
    clusters = cross_validate(KMeans(3, init="random"), rows, features=FEATURES, folds=3, models=True)
    assert clusters.mean["mean_squared_distance"] == pytest.approx(clusters.models[0].inertia_ / 1333, rel=0.2)
    assert cross_validate(LinearRegression(), rows, label="y", features=FEATURES, metrics=["mae"]).mean["mae"] < 1


class Halving:
    """A search, in short: anything that fits and evaluates."""

    def fit(self, rows, *, label, features=None):
        models = {alpha: LinearRegression(alpha) for alpha in (0.0, 10.0)}
        scores = {a: cross_validate(m, rows, label=label, features=features).mean["r2"] for a, m in models.items()}
        self.best = max(scores, key=scores.get)
        self.model = models[self.best].fit(rows, label=label, features=features)

    def evaluate(self, rows):
        return self.model.evaluate(rows)


def test_a_search_is_validated_from_outside(rows):
    found = cross_validate(Halving(), rows, label="y", features=FEATURES, folds=KFold(3), models=True)
    expected = cross_validate(LinearRegression(), rows, label="y", features=FEATURES, folds=KFold(3))
    assert [model.best for model in found.models] == [0.0] * 3
    assert found.mean["r2"] == pytest.approx(expected.mean["r2"], rel=1e-9)
    with pytest.raises(UnsupportedError, match="Halving gives no out-of-fold predictions"):
        cross_validate(Halving(), rows, label="y", predictions=True)


def test_the_plan_tells_of_folds(rows):
    plan = explain(CrossValidation(LogisticRegression(), folds=4), rows, label="late", features=FEATURES)
    assert "logistic_regression, 4 folds" in str(plan)
    assert "train 4 models" in str(plan)
    one_pass = explain(CrossValidation(LinearRegression(), folds=4), rows, label="y", features=FEATURES)
    assert "keep blocks" in str(plan)
    assert "keep blocks" not in str(one_pass)


def test_impossible_folds_are_refused(rows):
    few = rows.slice(0, 3)
    with pytest.raises(OptionError, match="folds=5 is not possible; it must be at most 3"):
        cross_validate(LinearRegression(), few, label="y", features=FEATURES)
    with pytest.raises(EmptyTableError):
        cross_validate(LinearRegression(), rows.slice(0, 0), label="y")
    rare = pa.concat_tables([rows, rows.slice(0, 3).set_column(5, "late", pa.array(["never"] * 3))])
    with pytest.raises(LabelError, match="value 'never' in 3 rows, too few for 5 folds"):
        cross_validate(LogisticRegression(), rare, label="late", features=FEATURES)
    with pytest.raises(OptionError, match="metrics='f1'"):
        cross_validate(LogisticRegression(), rows, label="late", metrics=["f1"])
    with pytest.raises(OptionError, match="folds=1"):
        cross_validate(LinearRegression(), rows, label="y", folds=1)
    holes = rows.append_column("when", pa.array([None, *range(ROWS - 1)]))
    with pytest.raises(NullValueError, match="'when' has 1 NULL"):
        cross_validate(LinearRegression(), holes, label="y", features=FEATURES, folds=TimeSeriesSplit("when"))
    with pytest.raises(OptionError, match="at least 5 different values; it has 2"):
        cross_validate(LinearRegression(), rows, label="y", features=FEATURES, folds=GroupKFold("late"))
