"""Parallel loops: their turns give what a loop gives, however they are run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braidwater import dml
from braidwater.dml.context import Context
from braidwater.dml.explain import Explanation, Statistics
from braidwater.dml.interpreter.parfor import measure
from braidwater.dml.interpreter.parfor.measure import Measured, Trials
from braidwater.dml.interpreter.parfor.plan import Work, Workers, choose
from braidwater.errors import DMLError, DMLShapeError, DMLStopped, DMLValueError
from braidwater.tables import table

MODES = ("TURNS", "THREADS", "PROCESSES")
TURNS = 6

# Each statement of a turn i touches row i of A, column i of B, cell i of L, names of its own, or a sum.
NUMBERS = st.sampled_from(["i", "i * i", "x", "sum(A[i, ])", "as.scalar(A[i, 2])", "sum(X) - i", "ncol(X)", "2"])
ROWS = st.sampled_from(["X[i, ]", "2 * X[i, ] - i", "X[i, ] %*% t(X) %*% X", "A[i, ] + x", "matrix(i, 1, 4)"])


def _lines(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("if ({} > {}) {{ {} }} else {{ {} }}".format, NUMBERS, NUMBERS, inner, inner),
        st.builds("for (j in 1:3) {{ {} }}".format, inner),
    )


LINES = st.recursive(
    st.one_of(
        st.builds("x = {}".format, NUMBERS),
        st.builds("A[i, ] = {}".format, ROWS),
        st.builds("A[i, 2] = {}".format, NUMBERS),
        st.builds("B[, i] = t({})".format, ROWS),
        st.builds("total += {}".format, NUMBERS),
        st.builds("whole += {}".format, ROWS),
        st.builds("S[i, i] = {}".format, NUMBERS),
        st.builds('print("{{}} " + ({}))'.replace("{{}}", "turn").format, NUMBERS),
    ),
    _lines,
    max_leaves=3,
)
BODIES = st.lists(LINES, min_size=1, max_size=6).map(lambda lines: "\n  ".join(["x = i", *lines]))
START = """A = matrix(seq(1, 24), 6, 4)
B = matrix(0, 4, 6)
S = table(seq(1, 70), seq(1, 70))
total = 7
whole = matrix(1, 1, 4)
"""
OUTPUTS = ["A", "B", "S", "total", "whole"]


def ran(loop: str, body: str) -> tuple[dict[str, Any], list[str]]:
    shown: list[str] = []
    X = np.arange(24.0).reshape(TURNS, 4) % 5
    found = dml.run(f"{START}{loop} {{\n  {body}\n}}", {"X": X}, OUTPUTS, show=shown.append, threads=2, seed=1)
    cells = {name: found[name] for name in OUTPUTS}
    return {name: value.toarray() if hasattr(value, "toarray") else value for name, value in cells.items()}, shown


@given(BODIES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_turns_give_what_a_loop_gives_on_threads_too(body: str) -> None:
    expected, printed = ran(f"for (i in 1:{TURNS})", body)
    for mode in ("TURNS", "THREADS"):
        found, shown = ran(f"parfor (i in 1:{TURNS}, check=0, mode={mode})", body)
        assert shown == printed
        for name in OUTPUTS:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_turns_in_processes_give_what_a_loop_gives(tmp_path: Path) -> None:
    script = """
double_it = function(matrix[double] Y) return (matrix[double] Z) { Z = 2 * Y }
run_all = function(matrix[double] X, double shift) return (matrix[double] A, double total) {
  A = matrix(0, nrow(X), ncol(X)); total = 0; names = list(a = shift, b = X[1, ])
  LOOP {
    part = names["b"]
    A[i, ] = double_it(X[i, ]) * as.scalar(names["a"]) + part * $scale
    total += i
    if (i == 3) print("turn " + i)
  }
}
[A, total] = run_all(X, 0.5)
"""
    X = np.random.default_rng(0).normal(size=(8, 20_000))  # larger than what is sent with the turns
    expected = dml.run(script.replace("LOOP", "for (i in 1:8)"), {"X": X}, ["A", "total"], nvargs={"scale": "3"})
    shown: list[str] = []
    told = Explanation()
    loop = "parfor (i in 1:8, mode=PROCESSES)"
    found = dml.run(script.replace("LOOP", loop), {"X": X}, ["A", "total"], nvargs={"scale": "3"}, threads=2,
                    show=shown.append, explain=told)  # fmt: skip
    np.testing.assert_array_equal(found["A"], expected["A"])
    assert (found["total"], shown) == (expected["total"], ["turn 3"])
    assert told.notes == ["parfor in line 5, 8 turns, in processes (2): the script asks for it"]


# Rows that a turn i of 1 to 6 writes and reads in a matrix of 40 rows, as Python and DML both read them.
AFFINE = st.builds("{} * i + {}".format, st.sampled_from([-2, -1, 0, 1, 2, 3]), st.integers(14, 20))
ROW = st.one_of(
    AFFINE, st.sampled_from(["i * i", "38 - i * i", "round(i / 2) + 1", "min(i, 3)", "max(i, 2) + 9", "7 - i"])
)
CELLS = st.tuples(ROW, st.integers(0, 2), st.sampled_from([1, 2]))  # first row, further rows, column


def touched(cells: tuple[str, int, int], i: int) -> set[tuple[int, int]]:
    row, further, column = cells
    names = {"i": i, "round": lambda x: int(np.floor(x + 0.5)), "min": min, "max": max}
    first = eval(row, names)
    return {(first + step, column) for step in range(further + 1)}


@given(CELLS, CELLS)
@settings(max_examples=150, deadline=None)
def test_turns_that_meet_are_refused_and_others_give_what_a_loop_gives(
    written: tuple[str, int, int], looked_at: tuple[str, int, int]
) -> None:
    """What turns may depend on is found by trying all pairs of them, which is what the check's intervals stand for."""
    writes = [touched(written, i) for i in range(1, TURNS + 1)]
    reads = [touched(looked_at, i) for i in range(1, TURNS + 1)]
    pairs = [(i, j) for i in range(TURNS) for j in range(TURNS) if i != j]
    meet = any(writes[i] & (writes[j] | reads[j]) for i, j in pairs)
    (to, more, column), (source, further, other) = written, looked_at
    script = "\n".join([
        "A = matrix(seq(1, 80), 40, 2)", "LOOP {", f"  lo = {to}; k = {source}", f"  x = sum(A[k:(k + {further}), {other}])",
        f"  A[lo:(lo + {more}), {column}] = matrix(x / i + 1, {more + 1}, 1)", "}",
    ])  # fmt: skip

    def cells(loop: str) -> Any:
        return dml.run(script.replace("LOOP", loop), {}, ["A"], threads=2)["A"]

    for mode in MODES[:2]:
        loop = f"parfor (i in 1:{TURNS}, mode={mode})"
        if meet:
            with pytest.raises(DMLValueError, match="depend on one another"):
                cells(loop)
        else:
            np.testing.assert_array_equal(cells(loop), cells(f"for (i in 1:{TURNS})"))


@pytest.mark.parametrize(("large", "way"), [(1.0, "on threads (2)"), (0.0, "in processes (2)")])
def test_turns_after_the_first_run_as_is_estimated_to_be_faster(
    large: float, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "A = matrix(0, 8, 3)\nparfor (i in 1:8) A[i, ] = rand(rows=1, cols=3) + i"
    alone = dml.run(script, {}, ["A"], threads=1, seed=2)
    monkeypatch.setattr(Trials, "enough", property(lambda trials: trials.count >= 2))
    monkeypatch.setattr(Trials, "measured", Measured(10.0, 10.0, large))
    told = Explanation()
    found = dml.run(script, {}, ["A"], threads=2, seed=2, explain=told)
    assert told.notes[0].startswith(f"parfor in line 2, 8 turns, {way}: estimated in turns")
    np.testing.assert_array_equal(found["A"], alone["A"])


def test_turns_draw_the_same_numbers_however_they_are_run() -> None:
    script = "A = matrix(0, 6, 5)\nparfor (i in 1:6{}) A[i, ] = rand(rows=1, cols=5)"
    found = [dml.run(script.format(f", mode={mode}"), {}, ["A"], seed=3, threads=2)["A"] for mode in MODES[:2]]
    np.testing.assert_array_equal(found[0], found[1])
    assert len(np.unique(found[0])) == 30
    other = dml.run(script.format(""), {}, ["A"], seed=4)["A"]
    assert not np.array_equal(other, found[0])


@pytest.mark.parametrize("mode", MODES)
def test_the_error_is_that_of_the_first_turn_that_has_one(mode: str) -> None:
    script = f"""A = matrix(0, 9, 1)
parfor (i in 1:9, mode={mode}) {{
  print("in " + i)
  if (i == 4 | i == 7) A[i, 1] = sum(X[i, 2:9])
  A[i, 1] = i
}}"""
    shown: list[str] = []
    with pytest.raises(DMLShapeError) as caught:
        dml.run(script, {"X": np.ones((9, 3))}, ["A"], threads=2, show=shown.append)
    assert caught.value.line == 4
    assert "In the turn i = 4 of the parfor in line 2." in str(caught.value)
    assert shown == [f"in {turn}" for turn in range(1, 5)]


def test_a_script_that_stops_in_a_turn_has_stopped() -> None:
    with pytest.raises(DMLStopped, match="too many"):
        dml.run('A = matrix(0, 4, 1)\nparfor (i in 1:4, mode=THREADS) { A[i, 1] = i; if (i == 2) stop("too many") }')


def test_what_hands_on_values_runs_in_turns(tmp_path: Path) -> None:
    """check=0 is trusted for cells, but a variable that turns hand to each other needs them in their order."""
    told = Explanation()
    script = "x = 1\nA = matrix(0, 5, 1)\nparfor (i in 1:5, check=0, mode=THREADS) { x = x * 2; A[i, 1] = x }"
    found = dml.run(script, {}, ["A", "x"], explain=told, threads=2)
    np.testing.assert_array_equal(found["A"][:, 0], [2, 4, 8, 16, 32])
    assert told.notes == ["parfor in line 3, 5 turns, in turns: x may be handed from turn to turn"]
    pq.write_table(pa.table({"a": [1.0, 2.0], "b": [3.0, 5.0]}), tmp_path / "rows.parquet")
    told = Explanation()
    script = "A = matrix(0, 2, 1)\nparfor (i in 1:2, mode=THREADS) A[i, 1] = sum(X[, i])"
    rows = table(tmp_path / "rows.parquet")
    found = dml.run(script, {"X": rows}, ["A"], explain=told, threads=2, memory=100)  # too little to hold it
    np.testing.assert_array_equal(found["A"][:, 0], [3, 8])
    assert "X is read from a table" in told.notes[0]


def test_all_variables_are_there_where_no_outputs_are_named() -> None:
    script = "A = matrix(0, 5, 1)\nparfor (i in 1:5, mode={}) {{ last = 10 * i; A[i, 1] = last }}"
    for mode in MODES[:2]:
        found = dml.run(script.format(mode), threads=2)
        assert (found["last"], found["i"], set(found)) == (50, 5, {"A", "i", "last"})


def test_a_parallel_loop_in_a_parallel_loop_loses_no_cell() -> None:
    script = """A = matrix(0, 4, 5)
total = 0
parfor (i in 1:4, mode={}, check=0) {{
  parfor (j in 1:5, mode=THREADS, check=0) {{ A[i, j] = 10 * i + j; total += j }}
}}"""
    for outer in MODES:
        statistics = Statistics()
        found = dml.run(script.format(outer), {}, ["A", "total"], threads=2, statistics=statistics)
        np.testing.assert_array_equal(found["A"], 10 * np.arange(1, 5)[:, None] + np.arange(1, 6))
        assert found["total"] == 60
        assert "parfor in line" in statistics.text


def test_options_of_a_parallel_loop_are_checked() -> None:
    with pytest.raises(DMLValueError, match=r"par is 0(.|\n)*1 or more"):
        dml.run("A = matrix(0, 2, 1)\nparfor (i in 1:2, par=0) A[i, 1] = i")
    with pytest.raises(DMLError, match=r"no option 'pra'(.|\n)*Did you mean 'par'"):
        dml.run("A = matrix(0, 2, 1)\nparfor (i in 1:2, pra=2) A[i, 1] = i")


def test_the_plan_takes_what_is_estimated_to_end_first() -> None:
    def chosen(turns: int, cpu: float, large: float, reads: float = 0.0, warm: bool = True, tasks: int = 0) -> str:
        return str(choose(Work(turns, Measured(cpu, cpu, large), reads), Workers(4, warm, tasks, "spark"), None))

    assert chosen(4, 0.001, 0.9).startswith("in turns: estimated")  # over before anybody has started
    assert chosen(50, 0.1, 0.95, warm=False).startswith(
        "on threads (4)"
    )  # large operators leave the interpreter to others
    assert chosen(100, 0.1, 0.0).startswith("in processes (4)")
    assert chosen(20, 0.05, 0.0, warm=False).startswith("in turns")  # a program would have to be started first
    assert chosen(20, 0.05, 0.0, reads=1e10).startswith("in turns")  # to send the data takes longer
    assert chosen(400, 0.5, 0.95, tasks=40).startswith("as tasks of spark (40)")
    assert chosen(8, 0.5, 0.95, warm=False, tasks=40).startswith("on threads (4)")  # they would have to be started, too
    assert chosen(40, 0.5, 0.95, warm=False, reads=1e10, tasks=40).startswith("on threads (4)")
    busy = choose(Work(100, Measured(wall=0.1, cpu=0.4, large=1.0), 0.0), Workers(4, True), None)
    assert busy.way == "in turns"  # its operators have all cores already


def test_turns_are_measured_with_all_threads_and_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first turns take (planning, first calls, the looking at operators) is none of a turn; nor is an interruption."""
    seconds, threads = iter([5.0, 7.0, 1.0, 2.0, 1.1, 9.0, 1.2, 2.2]), []
    clock, context = [0.0], Context(threads=4)
    watches = {"perf_counter": 1.0, "process_time": 4.0, "thread_time": 0.5}  # their seconds to one of the clock
    clocks = {name: partial(lambda speed: clock[0] * speed, speed) for name, speed in watches.items()}
    monkeypatch.setattr(measure, "time", SimpleNamespace(**clocks))

    def turn() -> None:
        threads.append(context.threads)
        clock[0] += next(seconds)
        if context.statistics is not None:
            context.statistics.planned(2.0)
            context.statistics.ran(object(), 4.0 + measure.LARGE)

    trials = Trials(context)
    trials.run(turn)
    assert trials.measured == Measured(wall=3.0, cpu=18.0, large=1.0, planning=2.0)  # all its threads have computed
    for _ in range(7):
        trials.run(turn)
    assert threads == [4, 1] * 4
    assert (context.threads, context.statistics) == (4, None)
    assert trials.enough
    assert trials.measured == Measured(wall=1.0, cpu=1.0, large=0.8, planning=4.0)  # 4 of 5 seconds of the second one
