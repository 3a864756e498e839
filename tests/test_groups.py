"""One model a group: the numbers of a fit of its rows alone, from shared passes."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidwater import explain, load
from braidwater.aggregates import Gram, Moments, grouped_gram
from braidwater.aggregates.gram_stack import GramStack
from braidwater.aggregates.grouped import Grouped
from braidwater.aggregates.grouped_gram import GroupedGram
from braidwater.blocks import base as blocks_base
from braidwater.blocks.base import Block
from braidwater.blocks.clustered import ClusteredSource, picked
from braidwater.blocks.parts import part_of
from braidwater.encoding import Encoding
from braidwater.encoding.design import CodeTerm, NumberTerm, design_of
from braidwater.encoding.groups import GROUP, GroupedEncoding, find_groups
from braidwater.engines import LocalEngine
from braidwater.errors import BraidwaterWarning, ColumnNotFoundError, ColumnTypeError, DataError, OptionError
from braidwater.estimators import PCA, KMeans, LinearRegression, LogisticRegression
from braidwater.estimators.linear_regression import LeastSquares
from braidwater.events import PassStarted, listen
from braidwater.model_selection import GroupedModel, KFold, cross_validate, fit_groups
from braidwater.model_selection.least_squares import GroupSolver
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
    "compiled, in any order": GroupedGram(DESIGN, GROUP, kernel="fused"),
    "any aggregate": Grouped(GROUP, {k: Moments(DESIGN) for k in range(6)}, MEMBERS),
}


@pytest.mark.parametrize("check", AGGREGATE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", EXAMPLES)
def test_law(name, check):
    check(AggregateExample(EXAMPLES[name], BLOCK, 1e-8))


def test_products_by_group_are_those_of_the_rows_of_the_group():
    every = [EXAMPLES[name] for name in list(EXAMPLES)[:2]]
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


@pytest.mark.parametrize("groups", [3, 700])
def test_merged_products_of_groups_are_those_of_all_rows_and_no_state_is_changed_by_another(groups, monkeypatch):
    """In columns, in rows as they come, in rows dealt to groups, in runs; `FEW` makes states be added in place."""
    monkeypatch.setattr(grouped_gram, "FEW", 0)
    monkeypatch.setattr(grouped_gram, "LONG_RUN", 1)
    monkeypatch.setattr(grouped_gram, "TILE_BYTES", 1 << 15)
    random = np.random.default_rng(7)
    mixed, together = [], []
    for _ in range(6):
        group = random.integers(0, groups, 3000).astype(np.uint16)
        columns = {name: random.normal(size=3000) + 100.0 * group for name in ("a", "b", "label")}
        columns |= {"few": random.integers(0, 5, 3000).astype(np.uint8), GROUP: group}
        mixed.append(Block.from_arrays(columns | {"weight": random.integers(0, 3, 3000).astype(np.float64)}))
        together.append(part_of(mixed[-1], np.argsort(group, kind="stable")))
    for few, cached, parts in ((1 << 10, 0, mixed), (0, 1 << 20, mixed), (0, 0, mixed), (0, 0, together)):
        monkeypatch.setattr(grouped_gram, "FEW_GROUPS", few)
        monkeypatch.setattr(grouped_gram, "CACHED", cached)
        aggregate = GroupedGram(DESIGN, GROUP, kernel="fused")
        states = [aggregate.transition(aggregate.initialize(), part) for part in parts]
        before = [[stack.products.copy() for stack in state.parts] for state in states]
        merged, half = aggregate.initialize(), None
        for number, state in enumerate(states):
            merged = aggregate.merge(merged, state)
            if number == 3:  # a state that shares its arrays, as one kept by `Grouped` does
                half = aggregate.merge(aggregate.initialize(), merged)
                expected = aggregate.final(half).products.copy()
        np.testing.assert_array_equal(aggregate.final(half).products, expected)
        for state, products in zip(states, before, strict=True):
            assert all(np.array_equal(s.products, p) for s, p in zip(state.parts, products, strict=True))
        found, gram = aggregate.final(merged), Gram(DESIGN)
        assert found.codes.tolist() == list(range(groups))
        for code in (0, 1, groups - 1):
            state = gram.initialize()
            for part in parts:
                own = np.flatnonzero(part[GROUP] == code)
                rows = {c.name: part[c.name][own] for c in part.schema.columns}
                state = gram.transition(state, Block.from_arrays(rows, part.schema))
            single = gram.final(state)
            assert (found[code].rows, found[code].weight) == (single.rows, single.weight)
            np.testing.assert_allclose(found[code].products, single.products, rtol=1e-9, atol=1e-7)


@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 7),
    slack=st.floats(1e-12, 1.0),
    kernel=st.sampled_from(["blas", "fused"]),
)
@settings(max_examples=40)
def test_groups_are_solved_as_one_by_one_however_nearly_their_columns_agree(seed, size, slack, kernel):
    random = np.random.default_rng(seed)
    X = random.normal(size=(4, 40, size))
    if size > 1:
        X[1, :, -1] = 3 * X[1, :, 0] + slack * random.normal(size=40)
    X[2, :, 0] = 5.0  # constant
    X = (X + random.normal(size=size)) * 10.0 ** random.integers(-3, 4, size)
    Z = np.concatenate([X, X.sum(axis=2, keepdims=True) + random.normal(size=(4, 40, 1))], axis=2)
    mean = Z.mean(axis=1)
    products = np.einsum("gri,grj->gij", Z - mean[:, None], Z - mean[:, None])
    stack = GramStack(np.arange(4), np.full(4, 40), np.full(4, 40.0), mean, products, size)
    names = [f"x{j}" for j in range(size)]
    solver = GroupSolver(stack, design_of([NumberTerm(tuple(names), 0)], names, label="y"), 0.0, True, kernel)
    found = solver.solve() | solver.details(np.arange(4))
    for code in range(4):
        steps = LeastSquares(solver.design, 0.0, True, "classical").passes()
        next(steps)
        with pytest.raises(StopIteration) as stop:
            steps.send(stack[code])
        single = stop.value.value
        assert found["rank_"][code] == single.rank
        # a column that another nearly makes has as many digits fewer
        loose = 1e-9 if code != 1 else 1e-9 + 1e-14 / slack**2
        fitted = X[code] @ (found["coef_"][code] - single.weights[:-1]) + found["intercept_"][code] - single.weights[-1]
        assert np.abs(fitted).max() <= min(loose, 1e-2) * np.abs(Z[code]).max()
        if code in (0, 3):
            errors = np.sqrt(np.diag(single.covariance))
            np.testing.assert_allclose(found["standard_errors_"][code], errors[:-1], rtol=1e-8)
            np.testing.assert_allclose(found["intercept_standard_error_"][code], errors[-1], rtol=1e-8)
            scale = np.outer(errors, errors)
            np.testing.assert_allclose(found["covariance_"][code] / scale, single.covariance / scale, atol=1e-8)


KEYS = st.lists(
    st.tuples(st.one_of(st.none(), st.text("aéZ😀", max_size=2)), st.one_of(st.none(), st.booleans()), st.integers(0, 2)),
    min_size=1, max_size=12,
)  # fmt: skip


@given(KEYS)
@settings(max_examples=20)
def test_groups_are_found_in_the_order_of_their_keys_with_their_rows(rows):
    text, truth, label = zip(*rows, strict=True)
    own = pa.table(
        {"t": pa.array(text, pa.string()), "b": pa.array(truth, pa.bool_()), "y": pa.array(label, pa.int64())}
    )
    found = find_groups(table(own), ["t", "b"], "y", [0, 1, 2])
    counted = Counter(zip(text, truth, strict=True))
    assert list(found.keys.keys) == sorted(counted, key=lambda key: [(v is None, v) for v in key])
    assert found.rows.tolist() == [counted[key] for key in found.keys.keys]
    for key, classes in zip(found.keys.keys, found.classes.tolist(), strict=True):
        assert classes == [sum((t, b) == key and y == c for t, b, y in rows) for c in range(3)]


def test_rows_picked_from_parts_of_blocks_are_those_of_the_parts_joined():
    random = np.random.default_rng(3)
    columns = {"a": (), "b": (), "few": (), "wide": (3,)}
    blocks = [
        Block.from_arrays(
            {
                n: random.integers(0, 99, (40, *shape)).astype(t)
                for (n, shape), t in zip(columns.items(), "ddBf", strict=True)
            }
        )
        for _ in range(3)
    ]
    parts = [(block, slice(7 * number, 40 - number)) for number, block in enumerate(blocks)]
    order = random.permutation(sum(len(block["a"][rows]) for block, rows in parts))
    for pieces in ([order], [order[:10], order[10:11], order[11:]]):
        for found, rows in zip(picked(parts, pieces), pieces, strict=True):
            for name in columns:
                joined = np.concatenate([block[name][part] for block, part in parts])
                np.testing.assert_array_equal(found[name], joined[rows])


def test_blocks_sorted_by_group_are_the_same_in_memory_and_on_disk(rows, monkeypatch):
    monkeypatch.setattr(blocks_base, "UNIT_BYTES", 1 << 14)  # some dozen blocks, and as many buckets
    groups = find_groups(table(rows), ["shop"])
    encoding = GroupedEncoding(Encoding(features=["x0", "kind"], label="y").fit(table(rows)), groups.keys)
    order = np.argsort([groups.keys.place(key) for key in rows["shop"].to_pylist()], kind="stable")
    for cache, workers in (("memory", 1), ("memory", 3), ("disk", 1), ("disk", 2)):
        source = ClusteredSource(table(rows), encoding, column=GROUP, counts=groups.rows, cache=cache)
        with source:
            LocalEngine(workers).materialise(source)
            found = [source.store.read(unit.number) for unit in source.store.units]
            assert len(found) > 4
            for name in ("x0", "y"):
                stored = np.concatenate([block[name] for block in found])
                np.testing.assert_array_equal(stored, rows[name].to_numpy()[order])
