"""Ensembles of the best trials: what is chosen, what they answer, and what is left of them on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

import braidwater as bw
from braidwater.deep import Trainer
from braidwater.errors import LabelError, OptionError, UnsupportedError
from braidwater.estimators import KMeans, LinearRegression, LogisticRegression
from braidwater.model_selection import LogFloat, Study, TrialEnsemble, search
from braidwater.model_selection.ensembles import greedy_selection
from braidwater.model_selection.ensembles.selection import COSTS
from test_ablation import plane

MLP = "braidwater.deep.modules:MLP"


def digits() -> pa.Table:
    """1,797 pictures of 8 x 8 grey values: the pixels of every second column, so that no net is perfect."""
    found = load_digits()
    columns = {f"p{place}": found.data[:, place] / 16 for place in range(0, 64, 2)}
    return pa.table({**columns, "digit": found.target})


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Six small nets on pictures of digits, all kept."""
    net = Trainer(MLP, epochs=4, batch_size=64, metrics=["accuracy"])
    space = {"learning_rate": LogFloat(1e-3, 3e-2), "hidden": [[8], [32], [16, 16]]}
    return search(
        net, space, digits(), label="digit", metric="accuracy", sampler="random", budget=6, workers=2, keep=6,
        storage=tmp_path_factory.mktemp("studies") / "s.sqlite",
    )  # fmt: skip


def accuracy(model, rows) -> float:
    found = model.predict(rows).to_arrow()
    return float(np.mean(found["prediction"].to_numpy() == found["digit"].to_numpy()))


# -- selection -----------------------------------------------------------------------------------------------------


@given(
    arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=st.floats(-9, 9)), st.integers(1, 9)
)
def test_greedy_selection_is_never_worse_than_the_best_model(outputs, size) -> None:
    labels = np.linspace(-1, 1, outputs.shape[1])
    cost = COSTS["rmse"]
    found = greedy_selection(outputs, labels, cost, size)
    mean = np.tensordot(found.counts, outputs, 1) / found.counts.sum()
    assert cost(mean, labels) == pytest.approx(found.costs[-1])
    assert found.costs[-1] <= min(cost(one, labels) for one in outputs)
    assert found.costs[-1] == min(found.costs)
    assert found.counts.sum() == len(found.costs) <= size


def test_costs_of_classes_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    outputs, codes = random.dirichlet([1, 1], 50).round(1), random.integers(0, 2, 50)
    assert COSTS["accuracy"](outputs, codes) == pytest.approx(1 - accuracy_score(codes, outputs.argmax(1)))
    assert COSTS["roc_auc"](outputs, codes) == pytest.approx(1 - roc_auc_score(codes, outputs[:, 1]))
    inner = outputs.clip(0.05, 0.95)
    assert COSTS["log_loss"](inner, codes) == pytest.approx(log_loss(codes, inner))
    with pytest.raises(OptionError, match="more than two classes"):
        COSTS["roc_auc"](random.dirichlet([1, 1, 1], 5), codes[:5])


# -- on real pictures ----------------------------------------------------------------------------------------------


def test_the_greedy_ensemble_beats_its_best_member_on_the_rows_held_out(study) -> None:
    best = accuracy(study.best_model(), study.held_out)
    assert best == pytest.approx(study.best_value)
    found = study.ensemble()
    assert accuracy(found, study.held_out) >= best
    assert found.evaluate(study.held_out)["accuracy"] == pytest.approx(accuracy(found, study.held_out))
    assert 1 - found.costs[-1] == pytest.approx(accuracy(found, study.held_out))
    assert len(found.trials) > 1
    assert found.costs[0] == pytest.approx(1 - best)


def test_mean_and_vote_are_those_of_the_members(study) -> None:
    numbers = study.ensemble(combine="mean").trials
    assert [study.trials[number].value for number in numbers] == sorted((t.value for t in study.trials), reverse=True)
    rows = study.held_out
    each = [study.model(number).predict(rows).to_arrow() for number in numbers]
    names = [f"probability_{digit}" for digit in range(10)]
    outputs = np.stack([np.column_stack([one[name] for name in names]) for one in each])
    mean = study.ensemble(combine="mean").predict(rows).to_arrow()
    assert np.column_stack([mean[name] for name in names]) == pytest.approx(outputs.mean(0), abs=1e-12)
    assert np.array_equal(mean["prediction"], outputs.mean(0).argmax(1))
    votes = np.stack([(outputs.argmax(2) == digit).sum(0) for digit in range(10)], axis=1)
    voted = study.ensemble(combine="vote").predict(rows).to_arrow()["prediction"].to_numpy()
    assert np.all(votes[np.arange(len(voted)), voted] == votes.max(1))
    stacked = study.ensemble(combine="stacking")  # of all six: nearly parallel columns, and no warning
    assert len(stacked.trials) == 6
    assert accuracy(stacked, rows) > 0.9
    clear = (votes == votes.max(1, keepdims=True)).sum(1) == 1
    assert 0 < clear.sum() < len(clear)
    ties = [np.flatnonzero(row == row.max()) for row in votes[~clear]]
    for tie, chosen, probabilities in zip(ties, voted[~clear], outputs.mean(0)[~clear], strict=True):
        assert chosen == tie[probabilities[tie].argmax()]


@pytest.mark.parametrize("combine", ["greedy", "mean", "vote", "stacking"])
def test_an_ensemble_is_saved_as_one_model(study, combine, tmp_path: Path) -> None:
    found = Study.open(study.folder.parent.parent / "s.sqlite").ensemble(
        study.held_out, label="digit", combine=combine, members=3
    )
    assert len(found.members.models) <= 3
    again = bw.load(found.save(tmp_path / "model", metrics={"accuracy": 0.9}))
    assert isinstance(again, TrialEnsemble)
    rows = digits().drop_columns(["digit"])
    assert again.predict(rows).to_arrow() == found.predict(rows).to_arrow()
    assert (again.trials, again.label, again.classes_) == (found.trials, "digit", list(range(10)))
    assert again.evaluate(study.held_out)["accuracy"] > (0.9 if combine == "stacking" else 0.8)


# -- numbers, NULLs, mistakes --------------------------------------------------------------------------------------


def test_numbers_are_combined_and_rows_without_an_answer_stay_without() -> None:
    rows = plane(400)
    found = search(
        LinearRegression(nulls="drop"),
        {"alpha": [0.0, 0.5, 3.0]},
        rows,
        label="y",
        metric="rmse",
        sampler="grid",
        workers=1,
    )
    greedy, stacked = found.ensemble(), found.ensemble(combine="stacking")
    assert greedy.evaluate(found.held_out)["rmse"] <= found.best_value * (1 + 1e-12)
    assert stacked.evaluate(rows)["rmse"] < 0.2
    holes = rows.set_column(0, "a", pa.array([None, *rows["a"].to_pylist()[1:]]))
    for ensemble in (greedy, stacked):
        answers = ensemble.predict(holes).to_arrow()["prediction"]
        assert answers[0].as_py() is None
        assert answers.null_count == 1
        whole = ensemble.predict(rows).to_arrow()["prediction"]
        assert answers[1:].to_pylist() == pytest.approx(whole[1:].to_pylist(), rel=1e-12)
    assert ensemble.evaluate(holes)["rows"] == 399
    with pytest.raises(OptionError, match=r"combine='vote'.*number"):
        found.ensemble(combine="vote")


def test_estimators_vote_on_texts_and_unknown_labels_are_told() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=300)
    kinds = pa.array(np.where(x + 0.3 * random.normal(size=300) > 0, "hot", "cold"))
    rows = pa.table({"x": x, "kind": kinds})
    found = search(
        LogisticRegression(), {"alpha": [1e-3, 1.0]}, rows, label="kind", metric="roc_auc", sampler="grid", workers=1
    )
    for combine in ("greedy", "vote", "stacking"):
        ensemble = found.ensemble(combine=combine)
        assert ensemble.classes_ == ["cold", "hot"]
        answers = ensemble.predict(rows).to_arrow()
        assert set(answers["prediction"].to_pylist()) == {"cold", "hot"}
        total = np.asarray(answers["probability_cold"]) + np.asarray(answers["probability_hot"])
        assert total == pytest.approx(1.0)
        assert ensemble.evaluate(rows)["accuracy"] > 0.85
    with pytest.raises(LabelError, match="'kind' has the value 'tepid'"):
        found.ensemble(pa.table({"x": [0.0], "kind": ["tepid"]}))
    with pytest.raises(OptionError, match="combine='median'"):
        found.ensemble(combine="median")
    with pytest.raises(UnsupportedError, match="has a column 'prediction' already"):
        found.ensemble().predict(pa.table({"x": [0.0], "prediction": [1]}))
    clusters = search(
        KMeans(), {"n_clusters": [2]}, rows.select(["x"]), metric="inertia", validation=None, budget=1, workers=1
    )
    with pytest.raises(UnsupportedError, match="predicts no label"):
        clusters.ensemble(rows, label="kind")
    nobody = Study("empty", ["loss"], ["minimize"], {}, {}, Path("nowhere"))
    with pytest.raises(UnsupportedError, match="no model of a finished trial"):
        nobody.ensemble(rows, label="kind")
