"""One model a group: the numbers of a fit of its rows alone, from shared passes."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from braidwater import explain, load
from braidwater.aggregates import Gram, Moments
from braidwater.aggregates.grouped import Grouped
from braidwater.aggregates.grouped_gram import GroupedGram
from braidwater.blocks.base import Block
from braidwater.encoding.design import CodeTerm, NumberTerm, design_of
from braidwater.encoding.groups import GROUP
from braidwater.engines import LocalEngine
from braidwater.errors import BraidwaterWarning, ColumnNotFoundError, ColumnTypeError, DataError, OptionError
from braidwater.estimators import PCA, KMeans, LinearRegression, LogisticRegression
from braidwater.events import PassStarted, listen
from braidwater.model_selection import GroupedModel, KFold, cross_validate, fit_groups
from braidwater.options import options
from braidwater.tables import table
from braidwater.testing import AGGREGATE_CHECKS, AggregateExample

FEATURES = ["x0", "x1", "x2", "colour"]
GROUPS = 12


@pytest.fixture(scope="module")
def rows():
    """Groups of very different level, one of them NULL; `few` is in groups too small, `one` in groups of one class."""
    random = np.random.default_rng(0)
    count = 4000
    group = random.integers(0, GROUPS, count)
    x = random.normal(size=(3, count)) + 50 * random.normal(size=GROUPS)[group]
    y = (random.normal(size=(3, GROUPS))[:, group] * x).sum(0) + random.normal(size=count) + 1000.0 * group
    return pa.table(
        {
            "shop": pa.array([f"s{code:02d}" for code in group], mask=group == 5),
            "day": random.integers(0, 2, count),
            "x0": x[0],
            "x1": x[1],
            "x2": x[2].astype(np.float32),
            "colour": np.array(["red", "green", "blue"])[random.integers(0, 3, count)],
            "y": y,
            "late": np.where(random.logistic(size=count) + random.normal(size=count) > 0, "yes", "no"),
            "kind": random.integers(0, 3, count),
            "weight": random.integers(0, 3, count).astype(np.float64),
        }
    )


def alone(model, rows, key, **given):
    shop = rows["shop"]
    own = rows.filter(pc.is_null(shop) if key is None else pc.equal(shop, key))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BraidwaterWarning)
        return model.fit(own.drop_columns(["shop"]), features=FEATURES, **given), own


CASES = {
    "linear": (LinearRegression(), {"label": "y"}),
    "linear, fused": (LinearRegression(kernel="fused"), {"label": "y", "sample_weight": "weight"}),
    "ridge without intercept": (LinearRegression(0.1, fit_intercept=False), {"label": "y", "sample_weight": "weight"}),
    "robust": (LinearRegression(errors="HC3"), {"label": "y"}),
    "logistic": (LogisticRegression(), {"label": "late"}),
    "ridge logistic": (LogisticRegression(0.01, kernel="fused"), {"label": "late", "sample_weight": "weight"}),
    "lasso": (LogisticRegression(0.01, l1_ratio=1.0), {"label": "late"}),
    "multinomial": (LogisticRegression(0.1), {"label": "kind"}),
    "k-means": (KMeans(2, init="random"), {}),
    "pca": (PCA(2), {}),
}
FIGURES = (
    "coef_", "intercept_", "standard_errors_", "intercept_standard_error_", "covariance_", "r2_", "adjusted_r2_",
    "residual_variance_", "condition_number_", "log_likelihood_", "null_deviance_", "aic_", "bic_", "rank_", "n_rows_",
    "cluster_centers_", "inertia_", "components_", "explained_variance_", "mean_",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_group_gets_the_model_of_a_fit_of_its_rows_alone(rows, case):
    model, given = CASES[case]
    models = fit_groups(model, rows, by="shop", features=FEATURES, **given)
    assert set(models.groups_["status"].to_pylist()) == {"fitted"}
    predicted = models.predict(rows).to_arrow() if hasattr(model, "predict") else None
    for key in ("s00", "s07", None):
        single, own = alone(type(model)(**model.get_params()), rows, key, **given)
        mine = models.model_of(key)
        compared = [name for name in FIGURES if getattr(single, name, None) is not None]
        assert len(compared) > 2
        for name in compared:
            np.testing.assert_allclose(getattr(mine, name), getattr(single, name), rtol=1e-8, atol=1e-8, err_msg=name)
        if predicted is None:
            continue
        shop = predicted["shop"]
        ours = predicted.filter(pc.is_null(shop) if key is None else pc.equal(shop, key))
        theirs = single.predict(table(own)).to_arrow()
        for name in set(ours.column_names) - set(rows.column_names):
            one, two = (np.array(t[name].to_pylist()) for t in (ours, theirs))
            assert np.array_equal(one, two) if one.dtype.kind in "UOi" else np.allclose(one, two, rtol=1e-7), name


def test_neither_memory_nor_the_number_of_workers_changes_a_bit(rows):
    found = []
    for workers, memory in ((1, "1GB"), (3, "1GB"), (2, "32MB")):
        with options(memory=memory):
            model = LogisticRegression()
            engine = LocalEngine(workers)
            found.append(fit_groups(model, rows, by=["shop", "day"], label="late", features=FEATURES, engine=engine))
    assert all(one.summary().equals(found[0].summary()) for one in found)
    assert found[0].model_of((None, 1)).n_rows_ > 0


def test_ten_thousand_groups_take_one_pass_and_a_table_of_coefficients():
    random = np.random.default_rng(3)
    group, x = np.repeat(np.arange(10_000), 12), random.normal(size=(2, 120_000))
    slopes = random.normal(size=(2, 10_000))
    rows = pa.table({"g": group, "a": x[0], "b": x[1], "y": (slopes[:, group] * x).sum(0) + group})
    order = random.permutation(120_000)
    passes = []
    with listen(lambda event: passes.append(event) if isinstance(event, PassStarted) else None):
        models = fit_groups(LinearRegression(kernel="fused"), rows.take(order), by="g", label="y")
    assert len(passes) == 1
    assert models.groups_.num_rows == 10_000
    np.testing.assert_allclose(models._stack.arrays["coef_"], slopes.T, atol=1e-9)
    found = models.summary()
    assert found.column_names == ["g", "term", "coefficient", "standard_error", "statistic", "p_value"]
    assert found.num_rows == 30_000


def test_groups_that_cannot_be_learnt_are_told_and_the_others_go_on(rows, tmp_path):
    extra = rows.slice(0, 8)
    odd = ["few"] * 3 + ["one class"] * 5
    extra = extra.set_column(0, "shop", pa.array(odd)).set_column(7, "late", pa.array(["yes"] * 8))
    whole = pa.concat_tables([rows, extra])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what a group warns of is in the table
        models = fit_groups(LogisticRegression(), whole, by="shop", features=["x0", "x1"], label="late")
    status = dict(zip(models.groups_["shop"].to_pylist(), models.groups_.to_pylist(), strict=True))
    assert status["few"]["status"] == status["one class"]["status"] == "too small"
    assert status["few"]["reason"] == "one class only, 'yes'"
    assert status["s00"]["status"] == "fitted"
    assert status["s00"]["log_likelihood"] < 0
    with pytest.raises(KeyError, match="'few' has no model: one class only"):
        models.model_of("few")
    with pytest.raises(KeyError, match="no group 'nowhere'"):
        models.model_of("nowhere")
    strangers = pa.concat_tables([whole, extra.set_column(0, "shop", pa.array(["new"] * 8))])
    predicted = models.predict(strangers).to_arrow()
    assert predicted["prediction"].null_count == predicted["probability_yes"].null_count == 16
    assert dict(zip(*models.without_model(strangers).to_pydict().values(), strict=True)) == {
        "few": 3, "new": 8, "one class": 5
    }  # fmt: skip
    models.save(tmp_path / "models", metrics={"shops": 13})
    again = load(tmp_path / "models")
    assert isinstance(again, GroupedModel)
    assert again.groups_.to_pylist() == models.groups_.to_pylist()
    assert again.predict(strangers).to_arrow().equals(predicted)
    assert again.summary().equals(models.summary())


def test_rank_and_separation_of_a_group_are_told_in_its_row(rows):
    same = rows.append_column("twice", pc.multiply(rows["x0"], 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models = fit_groups(LinearRegression(), same, by="shop", features=["x0", "twice"], label="y")
    assert set(models.groups_["reason"].to_pylist()) == {"1 of 3 coefficients cannot be told apart"}
    assert np.isnan(models.model_of("s00").standard_errors_).all()
    apart = rows.set_column(7, "late", pc.if_else(pc.greater(rows["x0"], 0.0), "yes", "no"))
    found = fit_groups(LogisticRegression(), apart, by="day", features=["x0", "x1"], label="late")
    assert all("separated" in reason for reason in found.groups_["reason"].to_pylist())


def test_a_group_that_lacks_a_class_gets_a_model_of_those_it_has(rows):
    lacking = rows.filter(pc.or_(pc.equal(rows["day"], 0), pc.not_equal(rows["kind"], 1)))
    given = {"features": ["x0", "x1"], "label": "kind"}
    models = fit_groups(LogisticRegression(), lacking, by="day", **given)
    single = LogisticRegression().fit(lacking.filter(pc.equal(lacking["day"], 1)), **given)
    mine = models.model_of(1)
    assert mine.classes_.tolist() == [0, 2]
    np.testing.assert_allclose(mine.coef_, single.coef_, rtol=1e-8)
    assert models.model_of(0).coef_.shape == (3, 2)
    predicted = models.predict(lacking).to_arrow()
    assert set(predicted.filter(pc.equal(predicted["day"], 1))["prediction"].to_pylist()) <= {0, 2}
    assert pc.max(predicted.filter(pc.equal(predicted["day"], 1))["probability_1"]).as_py() == 0


def test_nulls_that_a_policy_drops_are_dropped_group_by_group(rows):
    holes = rows.set_column(2, "x0", pc.if_else(pc.equal(rows["day"], 1), rows["x0"], pa.scalar(None, pa.float64())))
    models = fit_groups(KMeans(2, init="random", nulls="drop"), holes, by="shop", features=["x0", "x1"])
    kept = rows.filter(pc.equal(rows["day"], 1))
    theirs = fit_groups(KMeans(2, init="random"), kept, by="shop", features=["x0", "x1"])
    for key in ("s00", None):
        np.testing.assert_array_equal(models.model_of(key).cluster_centers_, theirs.model_of(key).cluster_centers_)


def test_the_plan_tells_of_groups_and_a_trial_of_it_of_what_is_wrong(rows):
    plan = explain(GroupedModel(LogisticRegression(), by=["shop", "day"]), rows, label="late", features=FEATURES)
    assert "logistic_regression, 24 groups" in str(plan)
    with pytest.raises(ColumnNotFoundError, match="Did you mean 'shop'"):
        fit_groups(LinearRegression(), rows, by="shopp", label="y")
    with pytest.raises(OptionError, match="features='day'"):
        fit_groups(LinearRegression(), rows, by="day", features=["x0", "day"], label="y")
    with pytest.raises(OptionError, match="without the label 'y'"):
        fit_groups(LinearRegression(), rows, by=["day", "y"], label="y")
    with pytest.raises(ColumnTypeError, match="'x0' is double; groups are by"):
        fit_groups(LinearRegression(), rows, by="x0", label="y")
    with pytest.raises(DataError, match="None of the 12 groups by shop"):
        fit_groups(LinearRegression(), rows, by="shop", label="y", features=["x0"], min_rows=10_000)
    left_out = fit_groups(LinearRegression(), rows.drop_columns(["late"]), by=["shop", "day"], label="y")
    assert not {"shop", "day"} & {name.partition("[")[0] for name in left_out.model_of(("s00", 0)).feature_names_}


random = np.random.default_rng(5)
BLOCK = Block.from_arrays(
    {
        "a": random.normal(size=301) + 1e3,
        "b": random.normal(size=301),
        "few": random.integers(0, 5, 301).astype(np.uint8),
        "weight": random.integers(0, 3, 301).astype(np.float64),
        "label": random.normal(size=301),
        GROUP: random.integers(0, 6, 301).astype(np.uint8),
    }
)
DESIGN = design_of(
    [NumberTerm(("a", "b"), 0), CodeTerm("few", 2, 4, 1)], list("abcdef"), label="label", weight="weight"
)
MEMBERS = {code: (code, (code + 1) % 6) for code in range(5)}
EXAMPLES = {
    "by runs": GroupedGram(DESIGN, GROUP),
    "compiled, by runs": GroupedGram(DESIGN, GROUP, kernel="fused"),
    "compiled, in any order": GroupedGram(DESIGN, GROUP, kernel="fused", groups=6),
    "any aggregate": Grouped(GROUP, {k: Moments(DESIGN) for k in range(6)}, MEMBERS),
}


@pytest.mark.parametrize("check", AGGREGATE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", EXAMPLES)
def test_law(name, check):
    check(AggregateExample(EXAMPLES[name], BLOCK, 1e-8))


def test_products_by_group_are_those_of_the_rows_of_the_group():
    every = [EXAMPLES[name] for name in list(EXAMPLES)[:3]]
    for code in range(6):
        chosen = np.flatnonzero(BLOCK[GROUP] == code)
        part = Block.from_arrays({c.name: BLOCK[c.name][chosen] for c in BLOCK.schema.columns}, BLOCK.schema)
        gram = Gram(DESIGN)
        expected = gram.final(gram.transition(gram.initialize(), part))
        for aggregate in every:
            stack = aggregate.final(aggregate.transition(aggregate.initialize(), BLOCK))
            np.testing.assert_allclose(stack[code].products, expected.products, atol=1e-7)
            np.testing.assert_allclose(stack[code].mean, expected.mean)
            assert (stack[code].rows, stack[code].weight) == (expected.rows, expected.weight)


def test_trainers_are_trained_as_tasks_one_a_group(tmp_path):
    from braidwater.deep import Trainer
    from braidwater.deep.modules import MLP

    x = np.tile(np.linspace(-1, 1, 100), 3)
    shop = np.repeat(["a", "b", "c"], 100)
    rows = pa.table({"shop": shop, "x": x, "late": ((x > 0) ^ (shop == "b")).astype(int)}).slice(0, 201)
    trainer = Trainer(MLP, learning_rate=0.05, epochs=8, batch_size=20, strategy="single")
    models = fit_groups(trainer, rows, by="shop", label="late", engine=LocalEngine(1))
    assert models.groups_["status"].to_pylist() == ["fitted", "fitted", "too small"]
    predicted = models.predict(rows).to_arrow()
    right = np.array(predicted["prediction"].to_pylist()[:200]) == rows["late"].to_numpy()[:200]
    assert right.mean() > 0.95  # one model for both would be right half of the time
    assert predicted["prediction"].to_pylist()[200] is None
    models.save(tmp_path / "models")
    again = load(tmp_path / "models", trust=["braidwater"])
    assert again.predict(rows).to_arrow().equals(predicted)
    found = cross_validate(trainer, rows.slice(0, 100), label="late", features=["x"], folds=KFold(2))
    assert found.mean["accuracy"] > 0.9
