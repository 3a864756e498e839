"""Searches that are validated by folds, and searches inside a cross validation."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit

from braidwater.blocks.base import BlockColumn, BlockSchema
from braidwater.blocks.selected import SelectedStore
from braidwater.deep import Trainer
from braidwater.encoding import Categorical, Numeric
from braidwater.engines import LocalEngine
from braidwater.errors import OptionError, StudyError
from braidwater.estimators import LinearRegression, LogisticRegression
from braidwater.events import Event, PassFinished, PassStarted, TaskEvent, listen
from braidwater.model_selection import GroupKFold, KFold, Searched, Study, cross_validate, search
from braidwater.model_selection.fold_trials import FoldRows
from braidwater.model_selection.rows import shareable
from braidwater.model_selection.variants import variant
from braidwater.options import options
from braidwater.tables import table
from braidwater.testing.strategies import uneven_store
from test_ablation import plane

MLP = "braidwater.deep.modules:MLP"
RANDOM = np.random.default_rng(1)
PARTS = RANDOM.integers(0, 3, 600)


def test_a_trial_is_worth_the_mean_over_folds_and_all_rows_make_the_model(tmp_path: Path) -> None:
    rows = plane()
    pq.write_table(rows, tmp_path / "plane.parquet")
    events: list[Event] = []
    with options(cache_directory=tmp_path / "cache"), listen(events.append):
        study = search(
            LinearRegression(), {"alpha": [0.001, 0.1, 1.0]}, tmp_path / "plane.parquet", label="y", metric="rmse",
            validation=PredefinedSplit(PARTS), sampler="grid", workers=2,
        )  # fmt: skip
    x, y = np.column_stack([rows[name] for name in ("a", "b", "nothing_much")]), rows["y"].to_numpy()
    for trial in study.trials:
        errors = []
        for part in range(3):
            train = part != PARTS
            alone = Ridge(trial.parameters["alpha"] * train.sum()).fit(x[train], y[train])
            errors.append(np.sqrt(np.mean((alone.predict(x[~train]) - y[~train]) ** 2)))
        assert trial.value == pytest.approx(np.mean(errors), rel=1e-8)
        assert [trial.metrics[f"rmse (fold {k})"] for k in (1, 2, 3)] == pytest.approx(errors, rel=1e-8)
        assert trial.metrics["rmse (deviation)"] == pytest.approx(np.std(errors, ddof=1), rel=1e-6)
    whole = Ridge(study.best_parameters["alpha"] * 600).fit(x, y)
    assert study.best_model().coef_ == pytest.approx(whole.coef_, rel=1e-8)
    assert len(list((tmp_path / "cache").rglob("*.blocks"))) == 1
    passes = Counter(
        event.task for event in events if isinstance(event, TaskEvent) and isinstance(event.told, PassFinished)
    )
    assert passes == {"trial 0": 1, "trial 1": 1, "trial 2": 1, f"trial {study.best_trial.number} on all rows": 1}


def test_logistic_folds_share_blocks_and_agree_with_a_cross_validation(tmp_path: Path) -> None:
    rows = plane(400)
    rows = rows.set_column(3, "late", pa.array((rows["y"].to_numpy() > 0).astype(np.int64)))
    with options(cache_directory=tmp_path / "cache"):
        study = search(
            LogisticRegression(), {"alpha": [0.1, 1.0]}, rows, label="late", metric="log_loss", validation=KFold(4),
            sampler="grid", workers=2, seed=3,
        )  # fmt: skip
        assert len(list((tmp_path / "cache").rglob("*.blocks"))) == 1
    for trial in study.trials:
        alone = cross_validate(
            LogisticRegression(**trial.parameters), rows, label="late", folds=KFold(4), metrics=["log_loss"], seed=3
        )
        assert trial.value == pytest.approx(alone.mean["log_loss"], rel=1e-9)


def test_trainers_are_trained_fold_by_fold_and_groups_stay_together() -> None:
    rows = plane(240).append_column("user", pa.array(np.arange(240) // 10))
    net = Trainer(MLP, epochs=2, batch_size=40, module_arguments={"hidden": [4]})
    study = search(
        net, {"learning_rate": [0.01, 0.1]}, rows, label="y", features=["a", "b"], metric="loss",
        validation=GroupKFold("user", 2), sampler="grid", workers=2,
    )  # fmt: skip
    assert [trial.error for trial in study.trials] == [None, None]
    best = study.best_trial
    assert best.value == pytest.approx(np.mean([best.metrics["loss (fold 1)"], best.metrics["loss (fold 2)"]]))
    assert best.epochs == 4
    model = study.best_model()
    assert model.trained_on_["rows"] == 240
    assert [path.parent.name for path in study.folder.glob("trial-*/model")] == [f"trial-{best.number:06d}"]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.sets(st.integers(0, 3), max_size=4),
    st.integers(1, 7),
    st.integers(0, 99),
)
@settings(max_examples=60)
def test_chosen_rows_of_a_store_are_the_blocks_of_a_table_of_their_own(units, chosen, unit_rows, seed) -> None:
    draw = np.random.default_rng(seed)
    rows = sum(units)
    columns = {"x": np.arange(float(rows)), "image": draw.integers(0, 9, (rows, 2)), "part": draw.integers(0, 4, rows)}
    schema = BlockSchema((BlockColumn("image", "int64", (2,)), BlockColumn("x", "float32")))
    schema.__dict__["unit_rows"] = unit_rows
    store = SelectedStore(uneven_store(columns, tuple(units)), schema, "part", chosen)
    kept = np.isin(columns["part"], sorted(chosen))
    assert store.rows == kept.sum()
    assert [unit.rows for unit in store.units[:-1]] == [unit_rows] * max(len(store.units) - 1, 0)
    for unit in store.units:
        block = store.read(unit.number, np.empty(store.buffer_bytes, np.uint8))
        span = slice(unit.start, unit.start + unit.rows)
        assert np.array_equal(block["x"], columns["x"][kept][span])
        assert np.array_equal(block["image"], columns["image"][kept][span])


@pytest.mark.parametrize("rare", [False, True], ids=["one cache", "a category that one fold lacks"])
def test_folds_of_nets_share_a_cache_and_learn_what_tables_of_their_rows_teach(
    tmp_path: Path, monkeypatch, rare
) -> None:
    monkeypatch.setattr("braidwater.blocks.base.UNIT_BYTES", 2_048)
    shop = np.where(np.arange(600) == 7, "rare" if rare else "a", RANDOM.choice(["a", "b"], 600))
    numbers = {"x": RANDOM.normal(size=600), "n": RANDOM.integers(0, 200, 600), "w": RANDOM.uniform(1, 2, 600)}
    pq.write_table(pa.table({**numbers, "shop": shop, "y": RANDOM.integers(0, 2, 600)}), tmp_path / "rows.parquet")
    net = Trainer(MLP, epochs=2, batch_size=32, module_arguments={"hidden": [4]}, strategy="single")
    encoders = {"x": Numeric(standardise=True), "n": Numeric(), "shop": Categorical(unseen="ignore")}
    roles = {"label": "y", "weight": "w", "features": encoders}
    with options(cache_directory=tmp_path / "cache"):
        rows = shareable(table(str(tmp_path / "rows.parquet")), tmp_path)
        folds = FoldRows.of(rows, KFold(3).cut(rows, "y", 0))
        folds.encode(net, roles, ("loss",), LocalEngine(1))
        files = list((tmp_path / "cache").rglob("*.blocks"))
        assert len(files) == (
            3 if rare else 1
        )  # rows to train on that lack it, and those to test on, are coded otherwise
        for number, pair in enumerate([*folds.pairs, (folds.whole, folds.pairs[0][1])]):
            written = [str(tmp_path / f"{number}-{place}.parquet") for place in range(2)]
            for part, path in zip(pair, written, strict=True):
                pq.write_table(pa.Table.from_batches(list(part.read())), path)
            one = variant(net, {}).fit(pair[0], validation=pair[1], **roles)
            other = variant(net, {}).fit(written[0], validation=written[1], **roles)
            ours, theirs = one.module_.state_dict(), other.module_.state_dict()
            assert all(torch.equal(ours[name], weights) for name, weights in theirs.items())
            assert [r["validation_loss"] for r in one.history_] == [r["validation_loss"] for r in other.history_]
        assert len(list((tmp_path / "cache").rglob("*.blocks"))) == len(files)
        taken = {"label": "y", "features": encoders, "sample_weight": "w", "folds": KFold(3)}
        heard: list[Event] = []
        with listen(heard.append):
            found = cross_validate(net, tmp_path / "rows.parquet", models=True, **taken)
        assert {event.origin for event in heard if isinstance(event, PassStarted)} == {"disk"}
        assert len(list((tmp_path / "cache").rglob("*.blocks"))) == len(files)
        for k, (validated, (train, test)) in enumerate(zip(found.models, folds.pairs, strict=True)):
            alone = variant(net, {}).fit(train, **roles)
            weights = validated.module_.state_dict()
            assert all(torch.equal(weights[name], own) for name, own in alone.module_.state_dict().items())
            assert found.folds.column("accuracy")[k].as_py() == alone.evaluate(test)["accuracy"]


def test_a_search_is_chosen_within_each_outer_fold() -> None:
    rows = plane(90)
    found = cross_validate(
        Searched(LinearRegression(), {"alpha": [0.0, 1e5]}, metric="rmse", sampler="grid", validation=KFold(2), workers=1),
        rows, label="y", folds=2, models=True,
    )  # fmt: skip
    assert found.mean["rmse"] < 0.2  # with the penalty of 1e5 it is above 2
    assert [model.study_.best_parameters for model in found.models] == [{"alpha": 0.0}] * 2
    assert all(model.study_.best_model().trained_on_["rows"] == 45 for model in found.models)


def test_folds_refuse_what_trains_by_epochs_and_a_study_keeps_its_folds(tmp_path: Path) -> None:
    rows, net = plane(40), Trainer(MLP, epochs=2)
    with pytest.raises(OptionError, match=r"scheduler='asha'.*None where folds"):
        search(net, {"learning_rate": [0.1]}, rows, label="y", validation=KFold(2), scheduler="asha")
    with pytest.raises(OptionError, match="hopper=True"):
        search(net, {"learning_rate": [0.1]}, rows, label="y", validation=KFold(2), hopper=True)
    run = {"label": "y", "metric": "rmse", "storage": tmp_path / "s.sqlite", "workers": 1, "budget": 1}
    search(LinearRegression(), {"alpha": [1.0]}, rows, validation=KFold(2), **run)
    with pytest.raises(StudyError, match=r"its folds is KFold\(folds=2\), here KFold\(folds=3\)"):
        search(LinearRegression(), {"alpha": [1.0]}, rows, validation=KFold(3), **run)


def test_a_search_is_described_by_a_file(tmp_path: Path, monkeypatch) -> None:
    from typer.testing import CliRunner

    from braidwater.cli.app import app

    monkeypatch.chdir(tmp_path)
    pq.write_table(plane(200), "plane.parquet")
    text = """
        table = "plane.parquet"
        estimator = "linear_regression"
        label = "y"
        metric = "rmse"
        sampler = "grid"
        folds = 3
        workers = 1
        storage = "studies.sqlite"
        report = "page.html"

        [space]
        alpha = [0.0, 1.0]
        errors = "classical|robust"
    """
    Path("job.toml").write_text(text)
    result = CliRunner().invoke(app, ["search", "job.toml", "--json", "--name", "mine", "--param", "alpha=0.0|1.0|2.0"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["study"], len(document["trials"])) == ("mine", 6)
    alone = cross_validate(
        LinearRegression(errors=document["best"]["parameters"]["errors"]),
        plane(200),
        label="y",
        folds=KFold(3),
        metrics=["rmse"],
    )
    assert document["best"]["parameters"]["alpha"] == 0.0
    assert document["best"]["values"] == pytest.approx([alone.mean["rmse"]])
    assert Path("page.html").exists()
    assert len(Study.open("studies.sqlite", "mine").trials) == 6
    for wrong, told in (
        ('metrc = "rmse"', "Did you mean 'metric'?"),
        ("trials = 2.5", "trials = 2.5 is not possible; it must be a whole number"),
        ("test = 0.3", "either folds or test"),
        ("[space]\nalpha = 3", "space.alpha = 3 is no range"),
        ("[space]\nalpha = { low = 2.0, high = 1.0 }", "low end lies below"),
    ):
        Path("wrong.toml").write_text(text.split("[space]")[0] + wrong if "[space]" in wrong else f"{wrong}\n{text}")
        shown = CliRunner().invoke(app, ["search", "wrong.toml"])
        assert shown.exit_code == 1
        assert told in " ".join(shown.output.split())
    assert CliRunner().invoke(app, ["search", "linear_regression", "plane.parquet", "--label", "y"]).exit_code == 2
