"""Searches over models: what is proposed, how far it is trained, what goes wrong, what is kept."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import cloudpickle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import braidwater as bw
from braidwater.deep import Trainer
from braidwater.errors import OptionError, StudyError, UnsupportedError, UserError
from braidwater.estimators import LogisticRegression
from braidwater.events import BlockDone, CheckpointWritten, Event, PassFinished, TaskEvent, TrialEnded, listen
from braidwater.model_selection import (
    Budget,
    Choice,
    Float,
    Hyperband,
    Int,
    LogFloat,
    PopulationBased,
    Study,
    SuccessiveHalving,
    search,
    watch,
)
from braidwater.model_selection.base import Continue, Trial, direction_of
from braidwater.model_selection.live import _Table, sparkline
from braidwater.model_selection.proposals import Proposals
from braidwater.model_selection.rows import encode_once, shareable
from braidwater.model_selection.samplers import SAMPLERS, make_samplers
from braidwater.model_selection.space import Space
from braidwater.options import options
from braidwater.tables import table
from search_models import Parabola, Trouble, on_a_small_disk

ROWS = pa.table({"x": [0.0, 1.0, 2.0, 3.0], "y": [0, 1, 0, 1]})
PLANE = {"x": Float(-1, 1), "rate": LogFloat(1e-4, 1.0)}
MLP = "braidwater.deep.modules:MLP"


def waves(rows: int = 3000) -> pa.Table:
    """Two classes that only a net with a hidden layer can tell apart."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 4))
    label = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] > 0
    return pa.table({**{f"x{i}": x[:, i] for i in range(4)}, "late": label.astype(np.int64)})


def propose(sampler: str, trials: int, space: dict = PLANE, seed: int = 0, directions=("minimize",)) -> list[dict]:
    """What a sampler proposes for a parabola, without any process."""
    plan = Space(space)
    proposals = Proposals("test", directions, plan, make_samplers(sampler, plan, seed))
    found = []
    for number in range(trials):
        parameters = proposals.ask(number)
        found.append(parameters)
        loss = Parabola(**parameters).loss
        values = (loss, abs(parameters["x"]))[: len(directions)]
        proposals.tell(Trial(number, parameters, "complete", values))
    return found


# -- spaces and samplers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"rate": LogFloat(0.0, 1.0)}, r"space\['rate'\].*above 0"),
        ({"rate": Float(1.0, 1.0)}, r"space\['rate'\].*low end lies below"),
        ({"size": Int(8, 4)}, r"space\['size'\].*low end lies below"),
        ({"size": Int(1, 4, step=9)}, r"space\['size'\].*step"),
        ({"kind": Choice([])}, r"space\['kind'\].*at least one value"),
        ({"kind": [1, 1]}, r"space\['kind'\].*differ"),
        ({"kind": 3}, r"space\['kind'\]=3.*list of values"),
        ({}, r"space=\{\}"),
    ],
)
def test_an_impossible_range_is_refused_with_its_name(space, told) -> None:
    with pytest.raises(OptionError, match=told):
        Space(space)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_propose_the_same_from_one_seed_and_find_the_parabola(sampler) -> None:
    space = {"x": Float(-1, 1, step=0.25), "rate": [1e-4, 1e-3, 1e-2, 0.1]} if sampler == "grid" else PLANE
    count = 13 if sampler == "gp" else 36  # half a second an ask
    found = propose(sampler, count, space)
    assert found == propose(sampler, count, space)
    assert found[:9] != propose(sampler, 9, space, seed=1)
    assert sampler == "gp" or min(Parabola(**parameters).loss for parameters in found) < 0.1
    if sampler == "grid":
        assert len({tuple(parameters.values()) for parameters in found}) == 36


def test_differential_evolution_beats_random_search() -> None:
    def best(sampler: str) -> float:
        return np.median([min(Parabola(**p).loss for p in propose(sampler, 120, seed=s)) for s in range(5)])

    assert best("differential_evolution") < best("random") / 3


def test_choices_keep_lists_apart_and_conditions_reach_the_model() -> None:
    def space(trial):
        layers = trial.suggest_int("count", 1, 2)
        return {"layers": [trial.suggest_int(f"width {k}", 4, 8) for k in range(layers)], "x": 0.0}

    plan = Space(space)
    proposals = Proposals("test", ["minimize"], plan, make_samplers("tpe", plan, 0))
    assert {len(proposals.ask(number)["layers"]) for number in range(8)} == {1, 2}
    values = Choice([[32], [64, 32], "32", 1, 1.0, True, None])
    assert values.problem() is None
    kinds = propose("random", 60, {"x": Float(0, 1), "layers": values})
    assert len({repr(parameters["layers"]) for parameters in kinds}) == 7


def test_tpe_that_keeps_what_it_saw_of_the_space_proposes_what_a_new_one_would() -> None:
    from optuna.samplers import TPESampler

    def space(trial):
        x = trial.suggest_float("x", -1, 1)
        return {"x": x, "y": trial.suggest_float("y", 0, 1) if trial.number % 5 else 0.5}

    plan = Space(space)
    kept = make_samplers("tpe", plan, 0)

    def forgetful(number):
        sampler = kept(number)
        sampler._search_space = TPESampler()._search_space
        return sampler

    found = []
    for samplers in (kept, forgetful):
        proposals = Proposals("test", ["minimize"], plan, samplers)
        found.append([])
        for number in range(30):
            parameters = proposals.ask(number)
            found[-1].append(parameters)
            if number % 7:  # the others stay in training
                state = ("complete", "paused", "failed")[number % 3]
                values = None if state == "failed" else (parameters["x"] ** 2 + parameters["y"],)
                proposals.tell(Trial(number, parameters, state, values, results={1: 1.0} if state == "paused" else {}))
    assert found[0] == found[1]


def test_the_name_of_a_metric_says_its_direction() -> None:
    assert [direction_of(m, "auto") for m in ("rmse", "validation_f1", "log_likelihood")] == [
        "minimize",
        "maximize",
        "maximize",
    ]
    with pytest.raises(OptionError, match="does not say which"):
        direction_of("figure", "auto")


# -- schedulers ----------------------------------------------------------------------------------------------------


def rung(values: list[float], epochs: int = 1) -> dict[int, Trial]:
    """Trials with these values that are paused after so many epochs, all with the same parameters."""
    return {n: Trial(n, {"x": 1}, "paused", (v,), epochs=epochs, results={epochs: v}) for n, v in enumerate(values)}


def test_halving_promotes_the_better_third_in_the_metric_s_own_direction() -> None:
    halving = SuccessiveHalving(reduction=3)
    values = [0.5, 0.9, 0.1, 0.7, 0.7, 0.3]
    assert halving.move(rung(values), 9, 1.0) == Continue(2, 3)
    assert halving.move(rung(values), 9, -1.0) == Continue(1, 3)
    assert halving.move(rung([*values, float("nan")]), 9, 1.0) == Continue(2, 3)
    assert halving.move(rung(values[:2]), 9, 1.0) is None
    trials = rung(values)
    trials[2].state, trials[2].target = "running", 3
    assert halving.move(trials, 9, 1.0) == Continue(5, 3)
    trials[5].state, trials[5].epochs, trials[5].results[9] = "complete", 9, 0.2
    assert halving.move(trials, 9, 1.0) is None
    assert halving.rungs(10) == [1, 3, 10]
    assert SuccessiveHalving(min_epochs=4).rungs(4) == [4]
    assert SuccessiveHalving(min_epochs=5).rungs(12) == [5, 12]


def test_hyperband_deals_its_brackets_in_the_paper_s_proportions() -> None:
    band = Hyperband(reduction=3)
    (large, _), (middle, _), (small, _) = band.brackets(9)
    assert Counter(band.bracket(number, 9) for number in range(17)) == {0: large, 1: middle, 2: small}
    assert len({band.bracket(number, 9) for number in range(4)}) == 3
    assert band.first_epochs(0, 9) == 1
    trials = rung([0.1, 0.2, 0.3, 0.4])
    assert band.move(trials, 9, 1.0) is None  # no bracket has three trials yet


@pytest.fixture(scope="module")
def halved(tmp_path_factory) -> tuple[Study, list[Event], pa.Table]:
    """Nine trials of a net under ASHA on two workers, with all that was told, on rows that no other process can open."""
    events: list[Event] = []
    rows = waves()
    space = {"learning_rate": LogFloat(1e-4, 3e-2), "hidden": Choice([[4], [32]])}
    net = Trainer(MLP, epochs=9, batch_size=100, metrics=["accuracy"], schedule="cosine")
    with options(cache_directory=tmp_path_factory.mktemp("cache")), listen(events.append):
        study = search(
            net, space, rows, label="late", metric="accuracy", scheduler="asha", sampler="random", budget=9, workers=2
        )
    return study, events, rows


def test_promoted_trials_go_on_from_their_checkpoint(halved) -> None:
    study, events, rows = halved
    assert not [trial.error for trial in study.trials if trial.error]
    assert study.directions == ("maximize",)
    reached = Counter(trial.epochs for trial in study.trials)
    assert sum(reached.values()) == 9
    assert reached[9] >= 1
    trained = Counter(e.task for e in events if isinstance(e, TaskEvent) and isinstance(e.told, CheckpointWritten))
    assert {int(name.removeprefix("trial ")): count for name, count in trained.items()} == {
        trial.number: trial.epochs for trial in study.trials
    }
    best = study.best_trial
    assert best.state == "complete"
    assert set(best.results) == {1, 3, 9}
    assert best.value == max(trial.value for trial in study.trials if trial.state == "complete")
    assert sorted(study.folder.glob("*/checkpoint")) == []

    # the same in one go: to the last bit, with a learning rate that depends on the whole length
    again = Trainer(
        MLP,
        epochs=9,
        batch_size=100,
        metrics=["accuracy"],
        strategy="single",
        learning_rate=best.parameters["learning_rate"],
        schedule="cosine",
        module_arguments={"hidden": best.parameters["hidden"]},
    ).fit(rows, label="late", validation=0.2)
    assert [record["validation_accuracy"] for record in again.history_] == list(best.reports.values())
    model = study.best_model()
    assert np.array_equal(model.predict(rows).to_arrow()["prediction"], again.predict(rows).to_arrow()["prediction"])


def test_a_study_can_be_looked_at_in_every_form(halved, tmp_path: Path) -> None:
    study, _, _ = halved
    found = study.to_table()
    assert found.num_rows == 9
    assert {"number", "state", "parameter_learning_rate", "accuracy", "seconds", "epochs"} <= set(found.column_names)
    optuna_study = study.to_optuna()
    assert optuna_study.best_trial.number == study.best_trial.number
    assert optuna_study.trials[0].intermediate_values[1] == study.trials[0].results[1]
    for shown, trial in zip(optuna_study.trials, study.trials, strict=True):  # as optuna-dashboard draws them
        assert shown.user_attrs == trial.metrics
        assert shown.datetime_start.timestamp() == pytest.approx(trial.started, abs=1e-3)
        assert shown.duration.total_seconds() == pytest.approx(trial.seconds, abs=1e-3)
    page = study.report().write(tmp_path / "search.html").read_text()
    for heading in ("Best trial", "History", "Hyperparameters", "Workers", "Trials"):
        assert f">{heading}</h2>" in page
    # history, parallel coordinates, a slice for each of two hyperparameters, workers; importance takes two complete trials
    complete = sum(trial.state == "complete" for trial in study.trials)
    assert page.count("<svg") == 5 + (complete > 1)
    assert "learning_rate (logarithmic)" in page
    with pytest.raises(UnsupportedError, match=r"model of trial \d was not kept; there are models of trials"):
        study.model(next(t.number for t in study.trials if t.epochs == 1))


def test_trials_read_the_rows_once_whatever_happens_to_the_file(tmp_path: Path) -> None:
    place = tmp_path / "waves.parquet"
    pq.write_table(waves(), place)
    model = LogisticRegression()
    rows = shareable(table(place), tmp_path)
    encoder = model._open(
        rows, None, features=None, label="late", exclude=(), sample_weight=None, offset=None, engine=None
    ).encoder
    encode_once(rows, encoder, bw.LocalEngine(1))
    travelled = cloudpickle.loads(cloudpickle.dumps(rows))
    place.unlink()
    events: list[Event] = []
    with listen(events.append):
        model.fit(travelled, label="late")
    assert len(model.coef_[0]) == 4
    assert [event for event in events if isinstance(event, BlockDone)]


def test_a_population_hands_on_weights_and_perturbs_rates() -> None:
    space = {"learning_rate": LogFloat(1e-5, 3e-2), "optimizer_arguments.weight_decay": LogFloat(1e-3, 1e-1)}
    net = Trainer(MLP, epochs=4, batch_size=100)
    events: list[Event] = []
    with listen(events.append):
        study = search(net, space, waves(), label="late", scheduler=PopulationBased(quantile=0.4), budget=4, workers=1)
    children = [trial for trial in study.trials if trial.parent is not None]
    assert children
    for child in children:
        parent = study.trials[child.parent]
        assert child.parameters["learning_rate"] / parent.parameters["learning_rate"] == pytest.approx(
            0.8, rel=1e-6
        ) or (child.parameters["learning_rate"] / parent.parameters["learning_rate"]) == pytest.approx(1.25, rel=1e-6)
        assert child.epochs >= min(child.reports) > 1  # it did not begin at the beginning
    assert len([trial for trial in study.trials if trial.state == "complete"]) == 4
    told = [event.told for event in events if isinstance(event, TaskEvent)]
    epochs = [event for event in told if isinstance(event, PassFinished) and event.what == "epoch"]
    assert len(epochs) == sum(len(trial.reports) for trial in study.trials)
    assert study.best_model().evaluate(waves())["accuracy"] > 0.6


# -- running -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched() -> Study:
    """Twelve trials of TPE on one worker."""
    return search(Parabola(), PLANE, ROWS, metric="loss", validation=None, budget=12, workers=1)


def test_ctrl_c_keeps_finished_trials_and_the_search_goes_on_as_if_nothing_had_happened(searched, tmp_path) -> None:
    place = tmp_path / "study.sqlite"
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_search import PLANE, ROWS, Parabola, search, watch
        run = dict(metric="loss", validation=None, budget=12, workers=1, storage={str(place)!r})
        with watch(sys.stdout):
            search(Parabola(seconds=0.2), PLANE, ROWS, **run)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(4)]
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=30)
    assert complaint.rstrip().endswith("KeyboardInterrupt")
    assert lines[3].startswith("trial 3  complete  loss ")
    kept = Study.open(place)
    states = [trial.state for trial in kept.trials]
    assert states[:4] == ["complete"] * 4
    assert "running" in states
    assert len(states) < 12

    study = search(Parabola(), PLANE, ROWS, metric="loss", validation=None, budget=12, workers=1, storage=place)
    assert [(t.parameters, t.value, t.state) for t in study.trials] == [
        (t.parameters, t.value, t.state) for t in searched.trials
    ]
    with pytest.raises(StudyError, match="has a study 'study' already"):
        search(Parabola(), PLANE, ROWS, metric="loss", budget=12, storage=place, resume=False)
    with pytest.raises(StudyError, match=r"is another one: its space is .* another name"):
        search(Parabola(), {"x": Float(0, 1)}, ROWS, metric="loss", budget=12, storage=place)


def test_what_goes_wrong_in_a_trial_is_its_own_affair(tmp_path: Path) -> None:
    ways = ["fine", "raises", "hangs", "killed", "killed once", "no metric", "no number"]
    model = Trouble(folder=str(tmp_path))
    study = search(
        model,
        {"how": ways},
        ROWS,
        metric="loss",
        validation=None,
        sampler="grid",
        workers=2,
        trial_timeout=3,
        retries=1,
    )
    by_way = {trial.parameters["how"]: trial for trial in study.trials}
    assert {way: trial.state for way, trial in by_way.items()} == {
        way: "complete" if way in ("fine", "killed once") else "failed" for way in ways
    }
    told = {
        "raises": "ZeroDivisionError: in the objective",
        "hangs": "took longer than its 3 seconds",
        "killed": "SIGKILL",
        "no metric": "metric='loss' is not possible; it must be one of other",
        "no number": "metric='loss' is not possible; it must be a finite number, and this trial's is nan",
    }
    for way, text in told.items():
        assert text in (by_way[way].error or "").splitlines()[0]
    assert (by_way["killed once"].attempts, by_way["killed"].attempts) == (2, 2)
    assert study.best_value == 1.0
    only = search(model, {"how": ["raises"]}, ROWS, metric="loss", validation=None, sampler="grid", workers=1)
    with pytest.raises(UnsupportedError, match="1 failed; trial 0: ZeroDivisionError: in the objective"):
        _ = only.best_trial


def test_several_workers_get_the_parameters_of_one(searched) -> None:
    for sampler in ("random", "qmc"):
        study = search(
            Parabola(seconds=0.01), PLANE, ROWS, metric="loss", validation=None, budget=8, workers=2, sampler=sampler
        )
        assert [trial.parameters for trial in study.trials] == propose(sampler, 8)
        assert {trial.worker for trial in study.trials} == {0, 1}
    assert [trial.parameters for trial in searched.trials] == propose("tpe", 12)


def test_time_and_epochs_end_a_search_and_hopeless_trials_are_pruned() -> None:
    begun = time.monotonic()
    study = search(
        Parabola(seconds=30), PLANE, ROWS, metric="loss", validation=None, budget=Budget(seconds=1.0, trials=3), workers=1,
        engine=None, sampler="random",
    )  # fmt: skip
    assert time.monotonic() - begun < 90
    assert [trial.state for trial in study.trials] == ["paused"]

    pruned = search(
        Parabola(),
        PLANE,
        ROWS,
        metric="loss",
        validation=None,
        budget=24,
        workers=1,
        scheduler="median",
        sampler="random",
    )
    states = Counter(trial.state for trial in pruned.trials)
    assert states["pruned"] > 3
    assert all(len(trial.reports) < 10 for trial in pruned.trials if trial.state == "pruned")
    assert pruned.best_trial.value == min(Parabola(**trial.parameters).loss for trial in pruned.trials)


def test_several_metrics_give_a_pareto_front_and_an_earlier_study_is_learnt_from(searched) -> None:
    study = search(
        Parabola(), PLANE, ROWS, metric=["loss", "size"], direction=["minimize", "minimize"], validation=None, budget=20,
        sampler="nsga2", workers=1,
    )  # fmt: skip
    front = study.pareto_front
    points = [trial.values for trial in study.trials]
    assert {trial.values for trial in front} == {
        p for p in points if not any(a <= p[0] and b <= p[1] and (a, b) != p for a, b in points)
    }
    assert len(study.to_optuna().best_trials) == len(front)
    warm = search(Parabola(), PLANE, ROWS, metric="loss", validation=None, budget=6, workers=1, warm_start=searched)
    assert [trial.number for trial in warm.trials] == [0, 1, 2, 3, 4, 5]
    assert np.median([trial.value for trial in warm.trials]) < np.median([trial.value for trial in searched.trials])
    shares = searched.importance()
    assert shares["rate"] > shares["x"]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_full_disk_ends_a_trial_and_not_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARTER", str(os.getpid()))
    study = search(
        on_a_small_disk, {"hidden": [[8], [512, 512]]}, waves(500), label="late", sampler="grid", scheduler="asha", workers=1,
    )  # fmt: skip
    by_size = {len(trial.parameters["hidden"]): trial for trial in study.trials}
    assert by_size[1].error is None
    assert by_size[2].state == "failed"
    assert "File too large" in (by_size[2].error or "")
    assert not (study.folder / f"trial-{by_size[2].number:06d}").exists()


# -- mistakes and storage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "space", "settings", "told"),
    [
        (Parabola(), {"y": [1, 2]}, {}, "Parabola has no hyperparameter 'y'"),
        (Trainer(MLP), {"learning_rte": [1.0]}, {}, "Did you mean 'learning_rate'"),
        (Parabola(), PLANE, {"metric": None}, "metric=None"),
        (Parabola(), PLANE, {"scheduler": "asha"}, "trains by epochs"),
        (Trainer(MLP), {"epochs": [1, 2]}, {"scheduler": "asha"}, "decides on epochs"),
        (Parabola(), PLANE, {"scheduler": "halving"}, "scheduler='halving'.*asha"),
        (Parabola(), PLANE, {"sampler": "bayes"}, "sampler='bayes'.*tpe"),
        (Parabola(), PLANE, {"sampler": "grid"}, "for a grid"),
        (Parabola(), PLANE, {"budget": 0}, "trials=0"),
        (Parabola(), PLANE, {"validation": 5}, "validation=5"),
        (Parabola(), PLANE, {"metric": ["loss", "size"], "scheduler": "median"}, "direction|one metric"),
        (Parabola(), PLANE, {"storage": "mysql://here/studies"}, "path of an SQLite file, or postgresql"),
    ],
)
def test_mistakes_are_told_before_a_worker_starts(model, space, settings, told) -> None:
    with pytest.raises((UserError, UnsupportedError), match=told):
        search(model, space, ROWS, **({"metric": "loss"} | settings))


def test_a_storage_that_is_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    run = {"metric": "loss", "validation": None, "budget": 1, "workers": 1}
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database at all" * 100)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE studies (x)")
    connection.close()
    for place, told in ((damaged, "damaged or no study"), (foreign, "SQLite file of something else")):
        before = place.read_bytes()
        with pytest.raises(StudyError, match=told):
            search(Parabola(), PLANE, ROWS, storage=place, **run)
        assert place.read_bytes() == before
    with pytest.raises(StudyError, match="There is no folder"):
        search(Parabola(), PLANE, ROWS, storage=tmp_path / "none" / "study.sqlite", **run)
    with pytest.raises(StudyError, match="There is no study at"):
        Study.open(tmp_path / "none.sqlite")


def test_a_storage_that_is_locked_or_lost_ends_the_search_with_a_word(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("braidwater.model_selection.storage.PATIENCE", 0.1)
    place = tmp_path / "study.sqlite"
    run = {"metric": "loss", "validation": None, "workers": 1, "storage": place}
    search(Parabola(), PLANE, ROWS, budget=1, **run)
    other = sqlite3.connect(place)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StudyError, match="locked by another process"):
        search(Parabola(), PLANE, ROWS, budget=2, **run)
    other.rollback()
    other.close()

    def meddle(event: Event) -> None:
        if isinstance(event, TrialEnded):
            with pytest.raises(StudyError, match="is being searched by another process"):
                search(Parabola(), PLANE, ROWS, budget=9, **run)
            os.remove(place)

    with listen(meddle), pytest.raises(StudyError, match="was removed or replaced"):
        search(Parabola(), PLANE, ROWS, budget=4, **run)


# -- live view and command line ------------------------------------------------------------------------------------


def test_a_terminal_shows_trials_with_their_curves() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with watch(stream):
        search(Parabola(seconds=0.4), PLANE, ROWS, metric="loss", validation=None, budget=2, workers=1)
    shown = stream.getvalue()
    assert any(bar in shown for bar in "▁▂▃▄▅▆▇█")
    assert "study  2 of 2 trials (2 complete)  best loss " in shown
    assert sparkline([1.0, float("nan"), 2.0]) == "▁ █"
    assert _Table(Terminal())._progress.left(0.0) is None


def test_the_command_line_searches_and_keeps_the_best_model(tmp_path: Path, capsys) -> None:
    from typer.testing import CliRunner

    from braidwater.cli.app import app

    pq.write_table(waves(600), tmp_path / "waves.parquet")
    words = [
        "search", "logistic_regression", str(tmp_path / "waves.parquet"), "--label", "late",
        "--param", "alpha=1e-4..1.0:log", "--param", "solver=newton|lbfgs", "--trials", "3", "--workers", "1",
        "--sampler", "random", "--storage", str(tmp_path / "study.sqlite"), "--resume", "--json",
        "--report", str(tmp_path / "page.html"), "--output", str(tmp_path / "model"),
    ]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["metrics"] == ["log_loss"]
    assert len(document["trials"]) == 3
    assert set(document["best"]["parameters"]) == {"alpha", "solver"}
    assert bw.load(tmp_path / "model").alpha == document["best"]["parameters"]["alpha"]
    assert "Hyperparameters" in (tmp_path / "page.html").read_text()
    assert len(Study.open(tmp_path / "study.sqlite").trials) == 3
    wrong = CliRunner().invoke(app, [*words[:6], "alpha=1..x", "--trials", "1"])
    assert wrong.exit_code == 2
    assert "no range of numbers" in wrong.output
