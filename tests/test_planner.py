"""The planner: what it picks, what it prints, what it refuses, and that its estimates can be measured against."""

from __future__ import annotations

import json
import math
import os
import time
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from braidwater.errors import BudgetError, OptionError, UnsupportedError, UserError
from braidwater.events import BlockDone, PassFinished, PassStarted, emit
from braidwater.options import options
from braidwater.planner import REFERENCE, Layer, Machine, StepTimes, Work, machine, plan, plan_table, stored_machine
from braidwater.planner import constants as machine_constants
from braidwater.planner.calibrate import calibrate
from braidwater.planner.cost import Cost, Job, Setting, compute_seconds, first_pass, later_pass
from braidwater.tables import table, train_test_split
from braidwater.tables.base import TableStatistics

CASES = sorted((Path(__file__).parent / "cases" / "plans").glob("*.txt"))
LINE = "\n----\n"

GLM = Work(
    "logistic_regression", "aggregate", 9, 120, 121, tuple(f"x{j}" for j in range(31)), state_bytes=2000, kernel="fused"
)
NET = Work(
    "cnn", "gang", 10, 1e8, 3073, ("image", "label"), 4_000_000, kernel="torch", step_rows=128,
    working_bytes=60_000_000, strategies=("single", "all_reduce", "averaging"),
)  # fmt: skip


def planned(rows: int, work: Work, **wishes: Any) -> Any:
    known: dict[str, Any] = {"memory": "1GB", "machine": REFERENCE, "disk_room": 50 * 10**9, "reader": "parquet"}
    return plan(TableStatistics(rows, rows * work.row_bytes), work, table_name="flights", **(known | wishes))


def answer(question: str) -> str:
    """What the planner says to a case: the plan, or the error."""
    case = tomllib.loads(question)
    work = case["work"]
    work["read_columns"] = tuple(f"x{j}" for j in range(work.pop("columns")))
    work["strategies"] = tuple(work.get("strategies", ("data",)))
    layers, equal = work.pop("layers", []), work.pop("equal_layers", 1)
    work["layers"] = tuple(replace(Layer(**layer), name=f"{k}", block=f"{k}") for layer in layers for k in range(equal))
    wishes = {"memory": "1GB", "disk_room": 50 * 10**9} | case.get("wishes", {})
    try:
        statistics = TableStatistics(case["rows"], case["bytes"])
        known = {"table_name": "flights", "reader": case["reader"], "machine": REFERENCE}
        return str(plan(statistics, Work(**work), **known, **wishes))
    except UserError as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_plan_reads_as_in_the_case(case: Path) -> None:
    question, _, expected = case.read_text().partition(LINE)
    found = answer(question)
    if os.environ.get("BRAIDWATER_REWRITE_CASES"):
        case.write_text(question + LINE + found + "\n")
        return
    assert found == expected.rstrip("\n")


def test_the_cheapest_way_that_fits_is_chosen() -> None:
    small, large = planned(2_000_000, GLM), planned(60_000_000, GLM)
    assert small.chosen.cache == "memory"
    assert large.chosen.cache == "disk"
    assert planned(60_000_000, GLM, disk_room=10**6).chosen.cache == "none"
    assert planned(60_000_000, replace(GLM, passes=1)).chosen.cache == "none"


@pytest.mark.parametrize(
    "wish",
    [{"workers": 1}, {"cache": "none"}, {"cache": "disk"}, {"kernel": "blas"}, {"workers": 7, "kernel": "fused"}],
)
def test_what_is_asked_for_is_kept(wish: dict[str, Any]) -> None:
    chosen = planned(2_000_000, GLM, **wish).chosen
    assert {name: getattr(chosen, name) for name in wish} == wish


def test_a_strategy_that_learns_something_else_is_taken_by_name_only() -> None:
    automatic = planned(1_000_000, NET)
    assert automatic.chosen.strategy in ("single", "all_reduce")
    offers = {offer.name: offer for offer in automatic.offers}
    assert "by name" in offers["averaging"].why
    assert not offers["averaging"].exact
    assert [offer.name for offer in automatic.offers if offer.chosen] == [automatic.chosen.strategy]
    assert f"▸ {automatic.chosen.strategy}" in str(automatic)
    assert planned(1_000_000, NET, strategy="averaging", workers=2).chosen.strategy == "averaging"


def test_members_of_a_gang_share_blocks_through_a_file() -> None:
    assert planned(20_000, NET, strategy="all_reduce", workers=2).chosen.cache == "disk"
    assert planned(1_000, NET, strategy="all_reduce", workers=2).chosen.cache == "memory", "small ones are handed over"
    with pytest.raises(UnsupportedError, match="cache='disk' keeps memory small"):
        planned(10_000, NET, cache="none")


def test_what_cannot_fit_is_refused_with_figures_and_advice_that_works() -> None:
    heavy = replace(GLM, state_bytes=200_000_000)
    with pytest.raises(BudgetError, match=r"states 1\.0 GB") as refused:
        planned(2_000_000, heavy, workers=2)
    message = str(refused.value)
    assert "memory is 1.0 GB" in message
    assert "workers=1" in message
    assert planned(2_000_000, heavy, workers=1).chosen.workers == 1
    advised = message.split("memory='")[1].split("'")[0]
    assert planned(2_000_000, heavy, workers=2, memory=advised).chosen.workers == 2


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"cache": "ram"}, "cache='ram' is not possible; it must be one of auto, none, memory, disk"),
        ({"kernel": "cuda"}, "kernel='cuda'"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_impossible_wishes_name_the_possible_ones(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        planned(1000, GLM, **wish)


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match="with auto, single, all_reduce, averaging"):
        planned(1000, NET, strategy="pipeline")
    with pytest.raises(UnsupportedError, match="strategy='spatial': the net has no convolution"):
        planned(1000, replace(NET, strategies=("single", "spatial")), strategy="spatial")
    with pytest.raises(UnsupportedError, match="runs on one worker"):
        planned(1000, NET, strategy="single", workers=2)


def job(work: Work = GLM, rows: int = 10_000_000, **constants: Any) -> Job:
    statistics = TableStatistics(rows, rows * work.row_bytes)
    return Job(statistics, work, replace(REFERENCE, **constants), "parquet", 10**9, REFERENCE.memory_bytes)


def test_a_fused_pass_costs_what_was_measured() -> None:
    # outofcore.md 2.3: C f32 -> f64, 9.4 ns a row at d = 30, and 8.1-9.4 for a warm pass including pread
    seconds = compute_seconds(job(), "fused")
    assert 8e-9 < seconds / 10_000_000 < 16e-9


def test_a_cold_pass_runs_at_the_speed_of_the_disk() -> None:
    setting = Setting("data", 2, "disk", "fused")
    cold = later_pass(job(rows=200_000_000), setting)
    assert cold.seconds == pytest.approx(200e6 * 121 / REFERENCE.disk_read, rel=0.01)
    warm = later_pass(job(rows=10_000_000), setting)
    assert warm.seconds < 10e6 * 121 / REFERENCE.disk_read / 4


def test_more_workers_never_take_longer_and_never_less_cpu() -> None:
    for cache in ("none", "memory", "disk"):
        one, two = (first_pass(job(), Setting("data", n, cache, "blas")) for n in (1, 2))  # type: ignore[arg-type]
        assert two.seconds < one.seconds
        assert two.cpu_seconds >= one.cpu_seconds
        assert two.memory > one.memory


def test_costs_add_up_and_the_larger_peak_counts() -> None:
    total = Cost(1, 2, 30, 4, 5, 6) + Cost(1, 2, 3, 4, 5, 6).times(2)
    assert total == Cost(3, 6, 30, 12, 15, 18)
    assert Cost(1, 2, 3).times(0) == Cost()


def run(passes: int = 3, origin: str = "memory") -> None:
    for number in range(1, passes + 1):
        emit(PassStarted(number=number, what="gradient", rows=10, origin="table+write" if number == 1 else origin))
        emit(BlockDone(worker=0, rows=10, start=time.time(), seconds=0.01))
        emit(
            PassFinished(
                number=number, what="gradient", rows=10, seconds=0.5, cpu_seconds=0.25, bytes_read=100 * number
            )
        )


def test_what_was_measured_stands_beside_the_estimate() -> None:
    found = planned(2_000_000, GLM)
    assert "measured" not in str(found)
    with found.measuring():
        run(3)
    first, later = (next(n for n in found.root.children if n.role == role) for role in ("first", "later"))
    assert first.measured == replace(first.measured, seconds=0.5, cpu_seconds=0.25, bytes_read=100)
    assert later.measured == replace(later.measured, seconds=1.0, cpu_seconds=0.5, bytes_read=500)
    assert found.root.measured is not None
    assert found.root.measured.bytes_read == 600
    assert found.root.measured.seconds < 0.5, "the whole is measured by the clock, not added up"
    line = next(line for line in str(found).splitlines() if "passes 2 to 9" in line)
    cells = line.split("│")[-1].split()
    assert cells[:4] == ["1.0", "s", "500", "ms"]
    assert cells[-2:] == ["500", "B"]  # between them the memory, which may have grown by a page meanwhile


def test_a_cache_from_before_leaves_the_first_pass_unmeasured() -> None:
    found = planned(60_000_000, GLM)
    with found.measuring():
        emit(PassStarted(number=1, what="gradient", origin="disk"))
        emit(PassFinished(number=1, what="gradient", rows=10, seconds=0.5))
    first, later = (next(n for n in found.root.children if n.role == role) for role in ("first", "later"))
    assert first.measured is None
    assert later.measured is not None


def test_measuring_counts_the_memory_that_is_held() -> None:
    found = planned(2_000_000, GLM)
    with found.measuring():
        emit(PassStarted(number=1, what="gradient"))
        held = bytearray(os.urandom(1)) * 80_000_000
        emit(PassFinished(number=1, what="gradient", rows=10, seconds=0.5))
        del held
    assert found.root.measured is not None
    assert 60_000_000 < found.root.measured.memory < 200_000_000


def test_a_failed_run_is_measured_too() -> None:
    found = planned(2_000_000, GLM)

    def fail() -> None:
        with found.measuring():
            run(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert found.root.measured is not None


def test_the_json_of_a_plan_holds_all_that_is_printed() -> None:
    found = planned(2_000_000, GLM)
    document = json.loads(json.dumps(found.to_json()))
    assert document["chosen"] == {
        "strategy": "data",
        "workers": 2,
        "cache": "memory",
        "kernel": "fused",
        "engine": "local",
        "options": {},
    }
    assert document["steps"]["estimated"]["seconds"] == found.root.estimated.seconds
    assert {choice["name"] for choice in document["choices"]} == {"engine", "strategy", "workers", "cache", "kernel"}
    assert document["text"] == str(found)


def test_how_a_table_is_read_is_known(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    data = pa.table({"x": [1.0, 2.0, 3.0, 4.0]})
    pq.write_table(data, tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("x\n1\n2\n")
    assert table(data).reader == "arrow"
    assert table(tmp_path / "t.parquet").reader == "parquet"
    assert table(tmp_path / "t.csv").reader == "csv"
    assert train_test_split(table(tmp_path / "t.parquet"), 0.5)[0].reader == "parquet"
    found = plan_table(table(data, name="four"), GLM, machine=REFERENCE)
    assert (found.table, found.rows) == ("four", 4)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Path]:
    folder = tmp_path_factory.mktemp("cache")
    with options(cache_directory=folder):
        return calibrate(), folder


def test_calibration_measures_every_constant(calibrated: tuple[Machine, Path]) -> None:
    found = calibrated[0]
    for field in fields(Machine):
        value = getattr(found, field.name)
        if isinstance(value, float):  # how fast a loaded machine is nobody knows: only that a rate is one
            assert 0 < value < math.inf, field.name
    assert found.measured


def test_calibration_is_stored_and_found_again(
    calibrated: tuple[Machine, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, folder = calibrated
    machine_constants._read.cache_clear()
    monkeypatch.setattr("braidwater.planner.calibrate.calibrate", None)  # calling it would fail
    with options(cache_directory=folder):
        assert machine() == stored_machine() == found
        assert not list(folder.glob("probe-*")), "the probe of the disk was left"


def test_another_number_of_workers_is_another_machine(calibrated: tuple[Machine, Path]) -> None:
    with options(cache_directory=calibrated[1], workers=63):
        assert stored_machine() is None


def test_damaged_constants_are_measured_anew(tmp_path: Path) -> None:
    with options(cache_directory=tmp_path):
        machine_constants.machine_path().write_text("{")
        machine_constants._read.cache_clear()
        assert stored_machine() is None


def test_without_a_writable_folder_the_session_keeps_the_constants(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with options(cache_directory=tmp_path / "file" / "cache"):
        machine_constants.store_machine(REFERENCE)
        assert stored_machine() == REFERENCE


def test_small_work_is_planned_without_calibrating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def count() -> Machine:
        calls.append(1)
        return replace(REFERENCE, measured="2026-01-01")

    monkeypatch.setattr(machine_constants, "machine", count)
    with options(cache_directory=tmp_path):
        plan(TableStatistics(1000, 100_000), GLM, table_name="t")
        assert not calls
        found = plan(TableStatistics(200_000_000, 20 * 10**9), GLM, table_name="t", disk_room=10**11)
    assert calls == [1]
    assert "measured on 2026-01-01" in str(found)


def test_talking_is_measured_for_nets_that_train_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def count(talking: bool = False) -> Machine:
        calls.append(talking)
        return replace(REFERENCE, measured="2026-01-01", talked=talking)

    monkeypatch.setattr(machine_constants, "machine", count)
    with options(cache_directory=tmp_path, memory="4GB"):
        for rows in (1000, 20_000, 1_000_000):
            plan(TableStatistics(rows, rows * 3073), NET, table_name="t", disk_room=10**11)
    assert calls == [False, True]


def test_collectives_are_measured_when_asked(tmp_path: Path) -> None:
    with options(cache_directory=tmp_path):
        found = calibrate(collectives=lambda: {"collective_latency": 0.5, "contention": 2.0}, store=False)
        assert (found.collective_latency, found.contention, found.talked) == (0.5, 2.0, True)
        assert stored_machine() is None


@pytest.fixture
def numbers() -> pa.Table:
    random = np.random.default_rng(0)
    return pa.table({"x": random.standard_normal(4000), "y": random.integers(0, 3, 4000)})


def test_a_long_training_is_planned_with_steps_that_were_timed(
    numbers: pa.Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from braidwater.deep import mlp, planning

    times = StepTimes(call=0.01, row=0.001, update=0.002, alone=0.05)
    asked = []

    def measured(training: Any, form: Any, workers: int | None, budget: float) -> Any:
        asked.append(training.batch_size)
        assert 0 < budget < 0.1 * 200 * times.alone
        return times, planning.count_layers(training.module, form).layers

    monkeypatch.setattr(planning, "measure_steps", measured)
    with options(cache_directory=tmp_path):
        model = mlp(hidden=(16, 16), epochs=2, batch_size=40)
        model.explain(numbers, label="y")
        assert not asked, "it takes no time"
        monkeypatch.setattr(planning, "WORTH_MEASURING", 0.0)
        found = model.explain(numbers, label="y", strategy="single", machine=REFERENCE)
    assert asked == [40]
    assert found.root.estimated.seconds == pytest.approx(200 * 0.05, rel=0.01)


def test_timing_steps_leaves_the_module_and_random_numbers_alone(numbers: pa.Table) -> None:
    import torch

    from braidwater.deep import mlp
    from braidwater.deep.inputs import InputForm
    from braidwater.deep.step_times import measure_steps

    model = mlp(hidden=(16,), dropout=0.5, batch_size=64)
    encoding = model.encode(table(numbers), "y")
    form, loss = InputForm(encoding), model.loss_of(encoding)
    training = model.make_training(model.make_module(form, loss), form, loss)
    before, state = torch.get_rng_state(), {n: t.clone() for n, t in training.module.state_dict().items()}
    times, layers = measure_steps(training, form, 2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[name], tensor) for name, tensor in training.module.state_dict().items())
    assert min(times.alone, times.call + times.row, times.update) > 0
    assert sum(layer.share for layer in layers) == pytest.approx(1)


@pytest.mark.parametrize(("order", "told"), [(np.sort, 1), (np.random.default_rng(0).permutation, 0)])
def test_a_plan_notes_labels_that_differ_from_share_to_share(order: Any, told: int) -> None:
    from braidwater.deep.planning import notes_on
    from braidwater.parallel import Data
    from braidwater.testing.strategies import _mlp_training, uneven_store

    labels = order(np.arange(400) % 4).astype(np.uint8)
    data = Data(uneven_store({"x0": np.zeros(400), "y": labels}, (100,) * 4))
    notes = notes_on(data, replace(_mlp_training(), target="class"), 2)
    assert len(notes) == told
    assert all("total variation distance 1.00" in note and "Averaging(every=<steps>)" in note for note in notes)
