"""Trials that share a scan which goes round: each sees all blocks once a pass, and learns what it would have learnt alone."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidwater.aggregates import Aggregate, AveragedSgd, Gram, Iteration, Moments
from braidwater.blocks.base import Block
from braidwater.deep import Trainer
from braidwater.encoding.design import NumberTerm, design_of
from braidwater.errors import OptionError, UnsupportedError
from braidwater.estimators import KMeans, LinearRegression, LogisticRegression
from braidwater.events import Metric, ScanShared, TaskEvent, TrialEnded, TrialJoined, listen
from braidwater.model_selection import Budget, Choice, CircularScan, Int, KFold, LogFloat, explain_search, search, watch
from braidwater.planner import REFERENCE, Work
from braidwater.planner.cost import Job
from braidwater.planner.many_trials import plan_trials
from braidwater.tables import table, train_test_split
from braidwater.tables.base import TableStatistics
from braidwater.testing.strategies import uneven_store

DESIGN = design_of([NumberTerm(("x",), 0)], ["x"])
ROWS = 4000
random = np.random.default_rng(0)
X = random.normal(size=(ROWS, 3)) * 10.0 ** random.integers(-3, 4, (ROWS, 1))


class Seen(Aggregate):
    """The numbers of all rows, in the order in which their states were merged."""

    def initialize(self) -> list[int]:
        return []

    def transition(self, state: list[int], block: Block) -> list[int]:
        return [*state, *range(block.start, block.start + block.rows)]

    def merge(self, state: list[int], other: list[int]) -> list[int]:
        return state + other

    def final(self, state: list[int]) -> list[int]:
        return state


class Looks(Iteration):
    """Looks at all rows `passes` times."""

    def __init__(self, passes: int) -> None:
        self._passes = passes

    def passes(self) -> Iterator[Any]:
        found = []
        for _ in range(self._passes):
            found.append((yield Seen()))
        return found


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3), st.none() | st.integers(0, 9)), min_size=1, max_size=6),
    st.integers(1, 3),
)
@settings(max_examples=80)
def test_whoever_joins_and_leaves_each_pass_sees_every_block_once(units, rides, workers):
    """`rides` are steps at which somebody joins, passes that they make, and steps after which they leave."""
    rows = sum(units)
    store = uneven_store({"x": np.arange(float(rows))}, units=tuple(units))
    scan = CircularScan(store, workers)
    riding: list[Any] = []
    waiting = sorted(rides, key=lambda ride: ride[0])
    step = 0
    while waiting or scan.riders:
        while waiting and waiting[0][0] <= step:
            _, passes, leaves = waiting.pop(0)
            riding.append((scan.join(Looks(passes)), passes, None if leaves is None else step + leaves))
        for ticket, _, leaves in riding:
            if leaves is not None and leaves <= step:
                scan.leave(ticket)
        scan.step()
        step += 1
    for ticket, passes, leaves in riding:
        assert ticket.done
        if ticket.result is not None:
            assert ticket.result == [list(range(rows))] * passes
            assert ticket.blocks == passes * len(units)
        else:
            assert leaves is not None
    scan.close()
    assert scan.blocks_read <= sum(ticket.blocks for ticket, *_ in riding)
    if workers == 1 and len({when for when, *_ in rides}) == 1:  # all ride together: one reading serves them
        assert scan.blocks_read == max(ticket.blocks for ticket, *_ in riding)


@given(st.integers(0, 9), st.integers(1, 4))
@settings(max_examples=20)
def test_sums_are_those_of_a_pass_from_the_beginning_to_the_last_bit_wherever_it_began(before, workers):
    store = uneven_store({"x": X[:, 0], "y": X[:, 1]}, units=(500, 700, 300, 1500, 1000))
    design = design_of([NumberTerm(("x",), 0)], ["x"], label="y")
    aggregate = Gram(design)
    state = aggregate.initialize()
    for unit in store.units:
        state = aggregate.merge(state, aggregate.transition(aggregate.initialize(), store.read(unit.number)))
    expected = aggregate.final(state)
    scan = CircularScan(store, workers)
    scan.join(Looks(4))
    for _ in range(before):
        scan.step()
    ticket = scan.join(aggregate)
    scan.run()
    scan.close()
    assert np.array_equal(ticket.result.products, expected.products)
    assert np.array_equal(ticket.result.mean, expected.mean)


def test_a_rider_that_fails_is_let_down_and_the_others_go_on():
    class Broken(Seen):
        def transition(self, state: list[int], block: Block) -> list[int]:
            raise ZeroDivisionError("in a block")

    scan = CircularScan(uneven_store({"x": np.arange(4.0), "y": np.arange(4)}, units=(2, 2)))
    broken, whole = scan.join(Broken()), scan.join(Moments(DESIGN))
    scan.run()
    assert broken.done
    assert "ZeroDivisionError: in a block" in str(broken.error)
    assert whole.result.mean[0] == pytest.approx(1.5)
    by_order = design_of([NumberTerm(("x",), 0)], ["x"], label="y").standardised(np.zeros(1), np.ones(1))
    with pytest.raises(UnsupportedError, match="order of the rows"):
        scan.join(AveragedSgd(by_order))
    assert not scan.riders


# -- in a search ---------------------------------------------------------------------------------------------------


@pytest.fixture
def flights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of some rows, in blocks of a few hundred."""
    monkeypatch.setattr("braidwater.blocks.base.UNIT_BYTES", 8_192)
    late = (X[:, 0] / np.abs(X).max(1) + random.normal(size=ROWS) > 0).astype(np.int64)
    names = random.choice(["a", "b", "c"], ROWS)
    columns = {"x0": X[:, 0], "x1": X[:, 1], "x2": X[:, 2], "shop": names, "late": late}
    pq.write_table(pa.table(columns), tmp_path / "flights.parquet", row_group_size=1000)
    return str(tmp_path / "flights.parquet")


def searched(*args: Any, **options: Any) -> tuple[Any, list[Any]]:
    heard: list[Any] = []
    with listen(heard.append):
        study = search(*args, **options)
    return study, heard


def of(kind: type, heard: list[Any]) -> list[Any]:
    return [event for event in heard if isinstance(event, kind)]


@pytest.mark.parametrize(
    ("model", "space", "roles"),
    [
        (LogisticRegression(), {"alpha": LogFloat(1e-6, 1), "l1_ratio": Choice([0.0, 0.5])}, {"label": "late"}),
        (LinearRegression(), {"alpha": LogFloat(1e-6, 1)}, {"label": "x0", "exclude": ["late"]}),
        (KMeans(3), {"random_state": Int(0, 99)}, {"exclude": ["late", "shop"], "metric": "inertia"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LogisticRegression | LinearRegression | KMeans) else "",
)
def test_trials_join_the_running_scan_and_are_those_of_fits_alone_bit_for_bit(flights, model, space, roles):
    study, heard = searched(model, space, flights, budget=6, workers=4, keep=6, fused="circular", **roles)
    assert [trial.state for trial in study.trials] == ["complete"] * 6
    joined = of(TrialJoined, heard)
    assert [event.number for event in joined] == list(range(6))
    assert max(event.riders for event in joined) == 4
    rows, held_out = train_test_split(table(flights), 0.2)
    given = {name: value for name, value in roles.items() if name != "metric"}
    for trial in study.trials:
        alone = type(model)(**model.get_params() | trial.parameters).fit(rows, **given)
        found = study.model(trial.number)
        for name in ("coef_", "intercept_", "cluster_centers_", "inertia_"):
            if hasattr(alone, name):
                assert np.array_equal(getattr(found, name), getattr(alone, name)), (trial.number, name)
        if "metric" not in roles:
            assert trial.value == alone.evaluate(held_out)[study.metrics[0]]
    reading = of(ScanShared, heard)[0]
    assert reading.blocks_read < reading.blocks_alone / 2
    again, _ = searched(model, space, flights, budget=6, workers=4, fused="circular", **roles)
    assert [(t.parameters, t.value) for t in again.trials] == [(t.parameters, t.value) for t in study.trials]


class Fails(Moments):
    """Its second row is one too many."""

    def transition(self, state: Any, block: Block) -> Any:
        if block.start:
            raise ZeroDivisionError("in the second block")
        return super().transition(state, block)


class Fragile(KMeans):
    """Breaks in the middle of a pass, from some seeds."""

    def _run(self, training: Any, iteration: Iteration[Any], **options: Any) -> Any:
        if self.random_state % 3:
            return super()._run(training, iteration, **options)

        class Broken(Iteration):
            def passes(self) -> Iterator[Any]:
                yield Fails(training.design)

        return super()._run(training, Broken(), **options)


def test_a_trial_that_takes_a_place_in_the_middle_of_a_round_begins_there_and_learns_the_same(flights):
    given = {"exclude": ["late", "shop"], "fused": "circular", "metric": "inertia", "sampler": "grid"}
    space = {"random_state": Choice(list(range(12)))}
    study, heard = searched(Fragile(3), space, flights, workers=3, keep=12, **given)
    seeds = [trial.parameters["random_state"] for trial in study.trials]
    assert [trial.state for trial in study.trials] == ["complete" if seed % 3 else "failed" for seed in seeds]
    assert all("in the second block" in (trial.error or "") for trial in study.trials if trial.state == "failed")
    in_the_middle = [event.number for event in of(TrialJoined, heard) if event.block and event.riders > 1]
    completed = [number for number in in_the_middle if seeds[number] % 3]
    assert completed
    rows, _ = train_test_split(table(flights), 0.2)
    for number in completed:
        alone = KMeans(3, random_state=seeds[number]).fit(rows, exclude=["late", "shop"])
        assert np.array_equal(study.model(number).cluster_centers_, alone.cluster_centers_)
        assert study.trials[number].value == alone.inertia_


def test_columns_can_be_searched_and_all_choices_of_them_ride_the_same_blocks(flights):
    space = {"features": Choice([["x0", "x1"], ["x1", "shop"], ["x0"]]), "alpha": Choice([1e-3, 1e-1])}
    given = {"label": "late", "sampler": "grid", "workers": 3, "keep": 6}
    study, heard = searched(LogisticRegression(), space, flights, fused="circular", **given)
    assert len(of(TrialJoined, heard)) == 6
    together = search(LogisticRegression(), space, flights, fused="lockstep", **given)
    rows, _ = train_test_split(table(flights), 0.2)
    for trial, other in zip(study.trials, together.trials, strict=True):
        columns = trial.parameters["features"]
        alone = LogisticRegression(trial.parameters["alpha"]).fit(rows, label="late", features=columns)
        for found in (study.model(trial.number), together.model(trial.number)):
            assert found.feature_names_.tolist() == alone.feature_names_.tolist()
            assert np.allclose(found.coef_, alone.coef_, rtol=1e-6, atol=1e-8)
        assert other.parameters == trial.parameters
    space["alpha"], given["workers"] = Choice([1e-3]), 1
    by_folds = search(LogisticRegression(), space, flights, validation=KFold(2), **given)
    worth = {str(trial.parameters["features"]): trial.value for trial in by_folds.trials}
    assert len(set(worth.values())) == 3
    net = Trainer("braidwater.deep.modules:MLP", epochs=1)
    with pytest.raises(OptionError, match="False where columns are searched"):
        search(net, {"features": space["features"]}, flights, label="late", hopper=True, budget=2)


def test_hopeless_trials_and_those_out_of_time_leave_the_scan_and_others_take_their_place(flights, monkeypatch):
    given = {"metric": "inertia", "exclude": ["late", "shop"], "workers": 4, "fused": "circular"}
    study, heard = searched(
        KMeans(5, init="random", max_iter=40),
        {"random_state": Int(0, 999)},
        flights,
        budget=16,
        scheduler="median",
        **given,
    )
    states = [trial.state for trial in study.trials]
    assert "pruned" in states
    assert "complete" in states
    assert max(event.riders for event in of(TrialJoined, heard)) <= 4
    pruned = {trial.number for trial in study.trials if trial.state == "pruned"}
    told = [e for e in of(TaskEvent, heard) if isinstance(e.told, Metric)]
    for number in pruned:
        ended = next(e.time for e in of(TrialEnded, heard) if e.number == number)
        assert all(e.time <= ended for e in told if e.task == f"trial {number}")
        assert not (study.folder / f"trial-{number:06d}" / "model").exists()

    step = CircularScan.step
    monkeypatch.setattr(CircularScan, "step", lambda scan: (time.sleep(0.02), step(scan))[1])
    study, _ = searched(KMeans(3), {"random_state": Int(0, 999)}, flights, budget=3, trial_timeout=0.05, **given)
    assert [trial.state for trial in study.trials] == ["failed"] * 3
    assert all("took longer than its 0.05 seconds" in (trial.error or "") for trial in study.trials)


def test_what_cannot_ride_is_trained_by_itself_and_a_trial_that_fails_is_recorded(flights):
    space = {"alpha": Choice([-1.0, 1e-3]), "solver": Choice(["lbfgs"])}
    study, _ = searched(LogisticRegression(), space, flights, label="late", sampler="grid", workers=2, fused="circular")
    assert sorted(trial.state for trial in study.trials) == ["complete", "failed"]
    assert "alpha" in next(trial.error for trial in study.trials if trial.error)

    def by_chance(trial: Any) -> dict[str, Any]:
        return {"solver": "sgd" if trial.number % 2 else "lbfgs", "nulls": trial.suggest_categorical("nulls", ["mean"])}

    study, heard = searched(
        LogisticRegression(), by_chance, flights, label="late", budget=4, workers=2, fused="circular"
    )
    assert [trial.state for trial in study.trials] == ["complete"] * 4
    assert not of(TrialJoined, heard)  # blocks are those of the model as it was given, which refuses NULLs


def test_a_seed_makes_the_same_search_and_a_stopped_one_goes_on(flights, tmp_path):
    options = {"label": "late", "workers": 1, "fused": "circular", "seed": 3}
    space = {"alpha": LogFloat(1e-6, 1)}
    once = search(LogisticRegression(), space, flights, budget=6, **options)
    stored = {**options, "storage": tmp_path / "studies.sqlite"}
    search(LogisticRegression(), space, flights, budget=Budget(trials=3), **stored)
    text = io.StringIO()
    with watch(text):
        again = search(LogisticRegression(), space, flights, budget=6, **stored)
    best = min(once.trials[:4], key=lambda trial: trial.value)
    assert f"best {best.value:.5g} (trial {best.number})" in text.getvalue().splitlines()[0]
    assert [(t.parameters, t.value) for t in again.trials] == [(t.parameters, t.value) for t in once.trials]


# -- the plan ------------------------------------------------------------------------------------------------------


def job(rows: int, width: int = 20, room: int = 10**9) -> Job:
    """Logistic regression on so many rows; `room` is memory that the system can still give."""
    work = Work("logistic", "aggregate", 9, 4.0 * width, 4 * width, ("x",), 8 * width, kernel="fused")
    return Job(TableStatistics(rows, rows * 4 * width), work, REFERENCE, "parquet", 10**9, room)


def test_the_plan_takes_the_cheapest_way_and_tells_why_not_the_others():
    small = plan_trials(job(10_000), 20, 4, refused={})
    assert small.chosen.name == "circular"  # no process has to start
    ways = {way.name: way for way in plan_trials(job(50_000_000, room=10**9), 40, 4, refused={}).ways}
    size = 50_000_000 * 80
    assert ways["separate"].bytes_read == 40 * 9 * size
    assert ways["circular"].bytes_read == 10 * 9 * size
    assert ways["lockstep"].bytes_read == 4 * 9 * size
    # blocks that outgrow the memory are fetched from the disk, so that reading is what counts
    assert ways["circular"].seconds < ways["separate"].seconds / 3
    told = str(plan_trials(job(10_000), None, 4, refused={"circular": "rows stay where they lie"}))
    assert "rows stay where they lie" in told
    assert "▸ trials join" not in told
    with pytest.raises(UnsupportedError, match="states of blocks that wait"):
        plan_trials(job(10**9, width=2000), 10, 4, refused={}, wish="circular")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "▸ trials join a running scan at the current block"),
        ({"sampler": "random", "fused": "lockstep"}, "▸ trials are trained by the dozen"),
        ({"fused": False}, "each in a process of its own: fused=False"),
        ({"validation": KFold(3)}, "compared by log_loss on 3 folds"),
        ({"validation": None, "metric": "aic"}, "compared by aic on the rows trained on"),
    ],
)
def test_a_search_is_explained_before_it_is_paid_for(flights, options, told):
    plan = explain_search(
        LogisticRegression(), {"alpha": LogFloat(1e-6, 1)}, flights, label="late", workers=4, budget=8, **options
    )
    assert told in str(plan)


def test_impossible_ways_are_refused(flights):
    given = {"label": "late", "budget": 3}
    with pytest.raises(OptionError, match="'lockstep' or 'circular'"):
        search(LogisticRegression(), {"alpha": LogFloat(1e-6, 1)}, flights, fused="both", **given)
    with pytest.raises(UnsupportedError, match="the sampler looks at results"):
        search(LogisticRegression(), {"alpha": LogFloat(1e-6, 1)}, flights, fused="lockstep", **given)
    with pytest.raises(UnsupportedError, match="solver='sgd' goes through the rows in their order"):
        search(LogisticRegression(), {"solver": Choice(["sgd", "lbfgs"])}, flights, fused="circular", **given)
