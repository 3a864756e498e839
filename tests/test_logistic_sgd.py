"""One-pass averaged SGD against the optimum, and against scikit-learn's SGDClassifier."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss

from braidwater.aggregates import AveragedSgd
from braidwater.blocks.base import Block
from braidwater.encoding import Categorical, Numeric
from braidwater.encoding.design import NumberTerm, design_of
from braidwater.engines import LocalEngine
from braidwater.errors import ConvergenceWarning, LabelError, NumericalError, OptionError, UnsupportedError
from braidwater.estimators import LogisticRegression
from braidwater.events import PassFinished, listen
from braidwater.testing.aggregates import cut, fold

ROWS, WIDTH = 100_000, 8
random = np.random.default_rng(3)
# columns that go together, of units that differ by a factor of a million, and far from zero
UNITS = np.logspace(-3, 3, WIDTH)
STANDARD = random.normal(size=(ROWS, WIDTH)) @ random.normal(size=(WIDTH, WIDTH))
X = STANDARD * UNITS + 10 * UNITS
Y = (random.random(ROWS) < 1 / (1 + np.exp(1 - 0.5 * STANDARD[:, 0] - 0.3 * STANDARD[:, 1]))).astype(int)
WEIGHT = random.integers(0, 3, ROWS).astype(float)
NAMES = [f"x{j}" for j in range(WIDTH)]


def excess(model, reference, *, features=X, weight=None):
    """How much more log-loss than the optimum."""
    found, best = (log_loss(Y, m.predict_proba(features), sample_weight=weight) for m in (model, reference))
    return found - best


@pytest.fixture(scope="module")
def optimum():
    return LogisticRegression().fit(X, Y)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kernel", ["blas", "fused"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_one_pass_comes_close_to_the_optimum(optimum, workers, kernel, dtype):
    model = LogisticRegression(solver="sgd", kernel=kernel).fit(X.astype(dtype), Y, engine=LocalEngine(workers))
    # the optimum of other rows of the same kind is WIDTH / (2 ROWS) = 4e-5 worse
    assert -1e-9 < excess(model, optimum) < 8e-6
    assert model.n_iter_ == 1
    assert model.n_rows_ == ROWS


def test_the_excess_is_a_fifth_of_that_of_scikit_learn_even_where_scikit_learn_gets_standardised_columns(optimum):
    standard = (X - X.mean(axis=0)) / X.std(axis=0)
    peer = SGDClassifier(loss="log_loss", random_state=0)
    for begin in range(0, ROWS, 10_000):
        peer.partial_fit(standard[begin : begin + 10_000], Y[begin : begin + 10_000], classes=[0, 1])
    theirs = log_loss(Y, peer.predict_proba(standard)) - log_loss(Y, optimum.predict_proba(X))
    assert excess(LogisticRegression(solver="sgd").fit(X, Y), optimum) < theirs / 5


def test_both_kernels_take_the_same_steps():
    for weight in (None, WEIGHT):
        models = [LogisticRegression(solver="sgd", kernel=k).fit(X, Y, weight) for k in ("blas", "fused")]
        np.testing.assert_allclose(models[0].coef_, models[1].coef_, rtol=1e-9)
        np.testing.assert_allclose(models[0].intercept_, models[1].intercept_, rtol=1e-9)
        assert models[0].progressive_loss_ == pytest.approx(models[1].progressive_loss_, rel=1e-12)


def test_blocks_of_a_row_or_of_all_rows_learn_the_same():
    block = Block.from_arrays({n: X[:20_000, j] for j, n in enumerate(NAMES)} | {"y": Y[:20_000].astype(np.uint8)})
    aggregate = AveragedSgd(design_of([NumberTerm(tuple(NAMES), 0)], NAMES, label="y"))
    whole = fold(aggregate, [[block]])
    # mini-batches that are cut by a block are two small steps; the start is the same
    parts = fold(aggregate, [cut(block, [1, 100, 5000, 9216, 12_288, 12_289])])
    np.testing.assert_allclose(whole.weights, parts.weights, rtol=5e-2)
    assert parts.rows == whole.rows == 20_000
    assert parts.positive == whole.positive == Y[:20_000].sum()


def test_few_rows_are_fitted_to_the_optimum():
    few = slice(0, 3000)
    for weight in (None, WEIGHT[few]):
        expected = LogisticRegression(alpha=0.01).fit(X[few], Y[few], weight)
        model = LogisticRegression(alpha=0.01, solver="sgd").fit(X[few], Y[few], weight)
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-5)
        np.testing.assert_allclose(model.intercept_, expected.intercept_, rtol=1e-5)


def test_rows_that_waited_in_several_workers_are_learnt_together():
    parts = cut(
        Block.from_arrays({n: X[:4000, j] for j, n in enumerate(NAMES)} | {"y": Y[:4000].astype(np.uint8)}), [1500]
    )
    aggregate = AveragedSgd(design_of([NumberTerm(tuple(NAMES), 0)], NAMES, label="y"))
    together = fold(aggregate, [[parts[0]], [parts[1]]])
    expected = LogisticRegression().fit(X[:4000], Y[:4000])
    np.testing.assert_allclose(together.weights[:-1], expected.coef_[0], rtol=1e-6)


@pytest.mark.parametrize("kernel", ["blas", "fused"])
def test_weights_and_penalties_are_those_of_the_other_solvers(kernel):
    for alpha, weight in [(0.0, WEIGHT), (0.1, None), (0.1, WEIGHT)]:
        rows = STANDARD.astype(np.float32)
        expected = LogisticRegression(alpha=alpha).fit(rows, Y, weight)
        model = LogisticRegression(alpha=alpha, solver="sgd", kernel=kernel).fit(rows, Y, weight)
        objective = [
            log_loss(Y, m.predict_proba(rows), sample_weight=weight) + alpha / 2 * np.sum(m.coef_**2)
            for m in (model, expected)
        ]
        # weights from 0 to 2 leave 60 % as many rows that count
        assert -1e-9 < objective[0] - objective[1] < 1.6e-5


def test_rows_without_weight_teach_nothing():
    kept = WEIGHT > 0
    spoiled = np.where(kept, Y, 1 - Y)
    model = LogisticRegression(solver="sgd").fit(X, spoiled, WEIGHT)
    assert excess(model, LogisticRegression().fit(X, Y, WEIGHT), weight=WEIGHT) < 1.6e-5


def test_without_an_intercept_there_is_none():
    expected = LogisticRegression(fit_intercept=False).fit(X, Y)
    model = LogisticRegression(fit_intercept=False, solver="sgd").fit(X, Y)
    assert model.intercept_.tolist() == [0.0]
    assert abs(excess(model, expected)) < 8e-6


def test_more_epochs_come_closer(optimum):
    engine = LocalEngine(1)
    one, three = (LogisticRegression(solver="sgd", epochs=e).fit(X, Y, engine=engine) for e in (1, 3))
    assert excess(three, optimum) < excess(one, optimum) / 2
    assert three.n_iter_ == 3


def test_tables_with_rare_levels_and_standardised_columns(tmp_path):
    levels = random.integers(0, 30, ROWS)
    rare = np.where(random.random(ROWS) < 2e-4, "rare", "usual")
    odds = STANDARD[:, 0] + random.normal(size=30)[levels] - 1
    late = random.random(ROWS) < 1 / (1 + np.exp(-odds))
    data = pa.table(
        {n: X[:, j] for j, n in enumerate(NAMES)} | {"level": [f"l{v:02}" for v in levels], "rare": rare, "late": late}
    )
    encoders = {n: Numeric(standardise=True) for n in NAMES} | {"level": Categorical(), "rare": Categorical()}
    for features in (None, encoders):
        expected = LogisticRegression(alpha=1e-4).fit(data, label="late", features=features)
        model = LogisticRegression(alpha=1e-4, solver="sgd").fit(data, label="late", features=features)
        # 38 columns: the optimum of other rows of the same kind is 1.9e-4 worse
        assert abs(model.evaluate(data)["log_loss"] - expected.evaluate(data)["log_loss"]) < 5e-5
        loaded = LogisticRegression.load(model.save(tmp_path / str(features is None)))
        assert np.array_equal(loaded.coef_, model.coef_)
        assert loaded.progressive_loss_ == model.progressive_loss_


def test_offsets_are_added():
    offset = random.normal(size=ROWS)
    late = random.random(ROWS) < 1 / (1 + np.exp(1 - STANDARD[:, 0] - 2 * offset))
    losses = []
    for solver in ("lbfgs", "sgd"):
        odds = LogisticRegression(solver=solver).fit(X, late, offset=offset).decision_function(X) + offset
        losses.append(log_loss(late, 1 / (1 + np.exp(-odds))))
    assert abs(losses[1] - losses[0]) < 8e-6


def test_it_reads_the_table_once(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({n: X[:, j] for j, n in enumerate(NAMES)} | {"y": Y}), path)
    passes = []
    with listen(lambda event: passes.append(event.what) if isinstance(event, PassFinished) else None):
        LogisticRegression(solver="sgd").fit(path, label="y", engine=LocalEngine(1))
    assert passes == ["averaged SGD"]


def test_the_same_rows_and_workers_give_the_same_model():
    models = [LogisticRegression(solver="sgd").fit(X, Y, engine=LocalEngine(2)) for _ in range(2)]
    assert np.array_equal(models[0].coef_, models[1].coef_)


def test_there_are_no_standard_errors_and_the_summary_says_so():
    model = LogisticRegression(solver="sgd").fit(X, Y)
    assert model.standard_errors_ is None
    assert model.log_likelihood_ is None
    text = model.summary()
    assert "averaged SGD" in text
    assert "no standard errors" in text
    assert model.progressive_loss_ == pytest.approx(log_loss(Y, model.predict_proba(X)), rel=0.01)


def test_sorted_rows_are_reported():
    order = np.argsort(Y, kind="stable")
    with pytest.warns(ConvergenceWarning, match="rows are sorted"):
        LogisticRegression(solver="sgd").fit(X[order], Y[order])


def test_separated_rows_stay_finite():
    with np.errstate(all="raise"):
        model = LogisticRegression(solver="sgd").fit(X, (STANDARD[:, 0] > 0).astype(int))
    assert np.all(np.isfinite(model.coef_))
    assert model.score(X, (STANDARD[:, 0] > 0).astype(int)) > 0.99


def test_a_column_that_explodes_is_an_error_and_not_a_model():
    rows = np.column_stack([STANDARD[:, 0], np.zeros(ROWS)])
    rows[50_000:, 1] = 1e200
    with pytest.raises(NumericalError, match="not finite"), np.errstate(all="ignore"):
        LogisticRegression(solver="sgd").fit(rows, Y, engine=LocalEngine(1))


def test_what_it_cannot_do_names_a_solver_that_can():
    for options, labels, match in [
        ({}, np.arange(ROWS) % 3, "Only binary.*3 classes.*lbfgs"),
        ({"alpha": 0.1, "l1_ratio": 0.5}, Y, "absolute values.*auto"),
        ({"alpha": 0.1, "standardize": True}, Y, "standardised.*lbfgs"),
    ]:
        with pytest.raises(UnsupportedError, match=match):
            LogisticRegression(solver="sgd", **options).fit(X, labels)
    with pytest.raises(UnsupportedError, match=r"512 columns; there are 600.*lbfgs"):
        LogisticRegression(solver="sgd").fit(np.zeros((10, 600)), np.arange(10) % 2)
    with pytest.raises(UnsupportedError, match=r"fit_path.*lbfgs"):
        LogisticRegression(solver="sgd").fit_path(X, Y, alphas=[0.1, 1])
    with pytest.raises(OptionError, match="epochs=0"):
        LogisticRegression(solver="sgd", epochs=0).fit(X, Y)
    with pytest.raises(LabelError, match="one class only"):
        LogisticRegression(solver="sgd").fit(X, np.ones(ROWS))
    with pytest.raises(LabelError, match="1 class with weight"):
        LogisticRegression(solver="sgd").fit(X, Y, Y.astype(float))
