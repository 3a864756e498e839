"""The executor: scans, streamed matrices, memory, plans that are found again."""

from __future__ import annotations

import errno
import gc
import math
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from threadpoolctl import threadpool_info

from braidwater.dml.context import Context
from braidwater.dml.explain import Explanation, Statistics
from braidwater.dml.hops import Dag, Hop, reachable
from braidwater.dml.operators import OPERATORS, cellwise
from braidwater.dml.plan import scans
from braidwater.dml.plan.cost import CELLWISE
from braidwater.dml.plan.scan import FOLDS, ROW_AGGREGATES
from braidwater.dml.runtime import kernels
from braidwater.dml.runtime.deferred import whole
from braidwater.dml.runtime.evaluate import evaluate
from braidwater.dml.runtime.kernels import ALL
from braidwater.dml.runtime.pool import Pool
from braidwater.dml.runtime.streamed import TableMatrix
from braidwater.dml.runtime.workers import run_parts
from braidwater.errors import BudgetError, CacheError, DMLError
from braidwater.options import options
from braidwater.tables import table

Build = Callable[..., Any]


@pytest.fixture
def always_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans are formed wherever they can be, so that small matrices test them."""
    monkeypatch.setattr(scans, "seconds", lambda *_: -1.0)
    monkeypatch.setattr(scans, "FEWEST_CELLS", 0)


def planned(build: Build, leaves: dict[str, Any]) -> tuple[Dag, list[Hop]]:
    dag = Dag(ALL)
    hops = {name: dag.leaf(name, value) for name, value in leaves.items()}
    made = build(dag, **hops)
    return dag, list(made) if isinstance(made, tuple) else [made]


def ran(build: Build, leaves: dict[str, Any], **given: Any) -> list[Any]:
    dag, roots = planned(build, leaves)
    return evaluate(dag, roots, Context(**{"threads": 2, **given}))


def by_kernels(build: Build, leaves: dict[str, Any]) -> list[Any]:
    """The values by the operators' own kernels, nothing rewritten or fused."""
    dag, roots = planned(build, leaves)
    found: dict[Hop, Any] = {}
    with np.errstate(all="ignore"):
        for hop in reachable(roots):
            if hop.op == "leaf":
                found[hop] = dag.values[hop.attributes["name"]]
            elif hop.op == "literal":
                found[hop] = hop.attributes["value"]
            else:
                found[hop] = ALL[hop.op].kernel([found[each] for each in hop.inputs], hop.attributes)
    return [found[root] for root in roots]


def agree(one: list[Any], other: list[Any], tolerance: float = 1e-12) -> None:
    for a, b in zip(one, other, strict=True):
        a, b = (value.toarray() if sparse.issparse(value) else np.asarray(value) for value in (a, b))
        assert a.shape == b.shape
        finite = np.abs(b[np.isfinite(b)])
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * (finite.max() if finite.size else 0.0))


def cells(rows: int, cols: int, seed: int = 0, spoilt: bool = False) -> Any:
    rng = np.random.default_rng(seed)
    made = rng.integers(-3, 4, (rows, cols)) + rng.choice([0.0, 0.5, 0.25], (rows, cols))
    if spoilt:
        for bad in (np.nan, np.inf, -np.inf, -0.0):
            made[rng.integers(rows, size=5), rng.integers(cols, size=5)] = bad
    return made


# --- scans -----------------------------------------------------------------------------------------------------------

UNARY = sorted(CELLWISE & set(cellwise.UNARY))


@pytest.mark.parametrize("width", [1, 3, 100])  # a vector; column by column; row by row
def test_every_cell_wise_kernel_of_a_scan_is_the_operator(always_scanned: None, width: int) -> None:
    leaves = {"A": cells(1500, width, 1, spoilt=True), "B": cells(1500, width, 2), "C": cells(1500, 1, 3)}
    leaves |= {"r": cells(1, width, 4), "m": cells(width, width, 5)}

    def build(dag: Dag, A: Hop, B: Hop, C: Hop, r: Hop, m: Hop) -> tuple[Hop, ...]:
        narrow = dag.node("matmul", B, m)  # a block of the other order
        made = [dag.node(op, X) for op in UNARY for X in (A, narrow)]
        for op in sorted(CELLWISE - {*UNARY, "ifelse"}):
            made += [dag.node(op, A, B), dag.node(op, narrow, C), dag.node(op, A, r), dag.node(op, dag.literal(3), A)]
        return *made, dag.node("ifelse", dag.node(">", B, C), A, dag.literal(7)), dag.node("^", A, dag.literal(2))

    agree(ran(build, leaves), by_kernels(build, leaves))


@pytest.mark.parametrize("width", [1, 3, 100])
@pytest.mark.parametrize("spoilt", [False, True])
def test_every_reduction_and_product_of_a_scan_is_the_operator(always_scanned: None, width: int, spoilt: bool) -> None:
    leaves = {
        "A": cells(5000, width, 1, spoilt),
        "B": cells(5000, width, 2),
        "y": cells(5000, 1, 3),
        "m": cells(width, 3, 4),
    }

    def build(dag: Dag, A: Hop, B: Hop, y: Hop, m: Hop) -> tuple[Hop, ...]:
        values = [A, dag.node("+", A, B), dag.node("matmul", B, m)]
        made = [dag.node(op, X) for op in sorted(ROW_AGGREGATES | FOLDS - {"tmatmul", "sumprod"}) for X in values]
        made += [
            dag.node("tmatmul", A, y),
            dag.node("tmatmul", y, A),
            dag.node("tmatmul", A, B),
            dag.node("sumprod", A, B),
        ]
        made += [dag.node("sumprod", values[1], B), dag.node("sumprod", values[2], values[2])]
        made += [dag.node("matmul", B, m), dag.node("matmult", B, dag.node("t", m))]
        made.append(dag.node("cbind", values[1], y, values[2]))
        made += [dag.node("replace", X, dag.literal(bad), dag.literal(7.5)) for X in values for bad in (math.nan, 0.25)]
        return *made, dag.node("index", A, *map(dag.literal, (1, 5000, 1, max(width - 1, 1))))

    agree(ran(build, leaves), by_kernels(build, leaves))


def test_no_kernel_of_a_scan_is_left_out_of_the_tests() -> None:
    from braidwater.dml.runtime import block_kernels

    tested = {*CELLWISE, *ROW_AGGREGATES, "matmul", "matmult", "index", "cbind", "replace", "square"}
    assert set(block_kernels.MAPS) == tested
    assert set(block_kernels.FOLDS) == FOLDS


def k_means(dag: Dag, X: Hop, C: Hop) -> tuple[Hop, ...]:
    node, two = dag.node, dag.literal(2)
    D = node(
        "+", node("*", dag.literal(-2), node("matmul", X, node("t", C))), node("t", node("rowSums", node("^", C, two)))
    )
    nearest = node("rowMins", D)
    P = node("<=", D, nearest)
    P = node("/", P, node("rowSums", P))
    return node("sum", nearest), node("/", node("matmul", node("t", P), X), node("t", node("colSums", P)))


def logistic(dag: Dag, X: Hop, B: Hop, Y: Hop, v: Hop) -> tuple[Hop, ...]:
    node = dag.node
    E = node("exp", node("matmul", X, B))
    P = node("/", E, node("+", node("rowSums", E), dag.literal(1)))
    Q = node("*", P, node("matmul", X, v))
    H = node("matmul", node("t", X), node("-", Q, node("*", P, node("rowSums", Q))))
    return node("matmul", node("t", X), node("-", P, Y)), H


def test_results_do_not_depend_on_the_number_of_threads_in_the_last_bit() -> None:
    rng = np.random.default_rng(1)
    leaves = {"X": rng.normal(size=(30_011, 40)), "C": rng.normal(size=(5, 40))}
    first, *others = (ran(k_means, leaves, threads=threads) for threads in (1, 2, 3))
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert np.array_equal(a, b)
    agree(first, by_kernels(k_means, leaves), 1e-10)


def test_what_goes_over_the_same_rows_is_one_scan() -> None:
    rng = np.random.default_rng(2)
    told = Explanation("runtime")
    leaves = {"X": rng.normal(size=(20_000, 40)), "C": rng.normal(size=(5, 40))}
    ran(k_means, leaves, explain=told)
    assert sum(instruction.scan is not None for instruction in told.programs[0].instructions) == 1

    def least_squares(dag: Dag, X: Hop, y: Hop) -> tuple[Hop, ...]:
        node = dag.node
        return (
            node("matmul", node("t", X), X),
            node("matmul", node("t", X), y),
            node("colSums", X),
            node("sum", node("^", y, dag.literal(2))),
        )

    told = Explanation("runtime")
    ran(least_squares, {"X": leaves["X"], "y": rng.normal(size=(20_000, 1))}, explain=told)
    assert [instruction.name for instruction in told.programs[0].instructions] == ["scan"]


def test_a_fold_that_is_needed_as_a_whole_comes_before_the_scan_that_needs_it(always_scanned: None) -> None:
    def standardised(dag: Dag, X: Hop) -> Hop:
        node = dag.node
        Z = node("-", X, node("colMeans", X))
        S = node("sqrt", node("/", node("colSums", node("^", Z, dag.literal(2))), dag.literal(999)))
        scaled = node("/", Z, S)
        return node("matmul", node("t", scaled), scaled)

    X = np.random.default_rng(0).normal(size=(1000, 3))
    told = Explanation("runtime")
    (found,) = ran(standardised, {"X": X}, explain=told)
    np.testing.assert_allclose(found, 999 * np.corrcoef(X.T), rtol=1e-12)
    assert sum(instruction.scan is not None for instruction in told.programs[0].instructions) == 3


def test_a_square_matrix_is_source_and_constant_of_its_own_product(always_scanned: None) -> None:
    X = cells(64, 64)
    (found,) = ran(
        lambda dag, X: dag.node("rowSums", dag.node("exp", dag.node("*", dag.node("matmul", X, X), dag.literal(0.01)))),
        {"X": X},
    )
    np.testing.assert_allclose(found, np.exp(X @ X * 0.01).sum(1, keepdims=True), rtol=1e-12)


def test_the_first_error_of_a_part_is_raised_and_the_others_stop() -> None:
    done: list[int] = []

    def run(part: int) -> None:
        if part == 3:
            raise ValueError("part 3")
        time.sleep(0.001)
        done.append(part)

    with pytest.raises(ValueError, match="part 3"):
        run_parts(run, 100_000, threads=2)
    assert len(done) < 50_000
    run_parts(done.append, 5, threads=2)  # the threads are there for the next scan
    assert sorted(done[-5:]) == [0, 1, 2, 3, 4]


def test_blas_has_its_threads_back_after_a_run() -> None:
    before = [library["num_threads"] for library in threadpool_info()]
    ran(logistic, {"X": cells(2000, 20), "B": cells(20, 3, 1), "Y": cells(2000, 3, 2), "v": cells(20, 3, 3)})
    assert [library["num_threads"] for library in threadpool_info()] == before


# --- streamed matrices -----------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[tuple[TableMatrix, Any]]:
    rng = np.random.default_rng(5)
    values = np.column_stack([rng.normal(size=(40_000, 5)), rng.integers(0, 200, 40_000)])
    pq.write_table(pa.table({f"c{i}": values[:, i] for i in range(6)}), tmp_path / "rows.parquet", row_group_size=7000)
    with options(cache_directory=tmp_path / "cache"), TableMatrix(table(tmp_path / "rows.parquet")) as matrix:
        yield matrix, values


def regression(dag: Dag, D: Hop) -> tuple[Hop, ...]:
    node, (rows, cols) = dag.node, D.facts.shape
    X = node("index", D, *map(dag.literal, (1, rows, 1, cols - 1)))
    y = node("index", D, *map(dag.literal, (1, rows, cols, cols)))
    beta = node("solve", node("matmul", node("t", X), X), node("matmul", node("t", X), y))
    residual = node("-", y, node("matmul", X, beta))
    return beta, node("colMaxs", D), node("sum", node("*", residual, residual)), residual


def test_a_streamed_matrix_gives_what_the_matrix_in_memory_gives(rows: tuple[TableMatrix, Any]) -> None:
    matrix, values = rows
    expected = by_kernels(regression, {"D": values})
    for _ in range(2):  # from the table, then from the kept blocks
        agree(ran(regression, {"D": matrix}), expected, 1e-9)
    beside = {"D": matrix, "w": values[:, :1]}

    def weighted(dag: Dag, D: Hop, w: Hop) -> Hop:
        return dag.node("matmul", dag.node("t", D), dag.node("*", w, dag.node("rowSums", D)))

    agree(ran(weighted, beside), by_kernels(weighted, {**beside, "D": values}), 1e-9)


def test_a_table_on_the_right_of_a_matrix_in_memory_is_gathered(rows: tuple[TableMatrix, Any]) -> None:
    matrix, values = rows
    left = np.zeros((70, len(values)))
    left[np.arange(70), np.arange(70) * 500] = 1.0

    def chosen(dag: Dag, P: Hop, D: Hop) -> Hop:
        return dag.node("rowSums", dag.node("^", dag.node("matmul", P, D), dag.literal(2.0)))

    agree(ran(chosen, {"P": left, "D": matrix}), by_kernels(chosen, {"P": left, "D": values}), 1e-9)


def test_folds_over_a_table_take_one_pass(rows: tuple[TableMatrix, Any]) -> None:
    matrix, values = rows

    def folds(dag: Dag, D: Hop) -> tuple[Hop, ...]:
        node = dag.node
        return (
            node("matmul", node("t", D), D),
            node("colSums", D),
            node("sum", node("exp", node("neg", node("abs", D)))),
            node("max", D),
        )

    agree(ran(folds, {"D": matrix}), by_kernels(folds, {"D": values}), 1e-9)
    assert matrix.source.passes_done == 1


def test_what_needs_a_streamed_matrix_whole_is_refused_when_it_does_not_fit(rows: tuple[TableMatrix, Any]) -> None:
    matrix, values = rows

    def running(dag: Dag, D: Hop) -> Hop:
        return dag.node("cumsum", D)

    agree(ran(running, {"D": matrix}), by_kernels(running, {"D": values}), 1e-9)
    with pytest.raises(
        BudgetError, match=r"cumsum\(D\) needs all 40000 x 6 cells.*1.9 MB; the memory option is 1.0 MB"
    ):
        ran(running, {"D": matrix}, memory=1_000_000)
    (late,) = ran(lambda dag, D: dag.node("exp", D), {"D": matrix}, memory=1_000_000)
    assert late.shape == (40_000, 6)  # an expression, for scans to come
    with pytest.raises(BudgetError, match=r"exp\(D\) is needed as a whole: 40000 x 6"):
        whole(late, Context(memory=1_000_000))
    np.testing.assert_allclose(whole(late, Context(memory=10_000_000)), np.exp(values), rtol=1e-12)


# --- memory ----------------------------------------------------------------------------------------------------------


def test_values_are_freed_after_their_last_use() -> None:
    X = np.ones((1000, 1000))

    def chain(dag: Dag, X: Hop) -> Hop:
        for step in range(12):
            X = dag.node("cumsum", dag.node("rev", X)) if step % 2 else dag.node("*", X, dag.node("cumsum", X))
        return dag.node("sum", X)

    ran(chain, {"X": X})
    tracemalloc.start()
    ran(chain, {"X": X})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4.5 * X.nbytes  # 18 matrices are made


def test_a_matrix_that_nobody_else_holds_is_changed_in_place() -> None:
    def put(dag: Dag, X: Hop) -> Hop:
        return dag.node("leftindex", X, dag.literal(7.0), *map(dag.literal, (2, 2, 3, 3)))

    dag, roots = planned(put, {"X": np.zeros((1000, 500))})
    address = dag.values["X"].ctypes.data
    (made,) = evaluate(dag, roots, Context())
    assert made.ctypes.data == address
    assert made[1, 2] == 7
    (other,) = ran(put, {"X": made})  # `made` is held here: value semantics
    assert other is not made
    view = made[:, :]
    agree(
        ran(lambda dag, X: dag.node("leftindex", X, dag.literal(9.0), *map(dag.literal, (1, 1, 1, 1))), {"X": view}),
        [other * 0 + np.where(np.arange(500000).reshape(1000, 500) == 0, 9.0, other)],
    )
    assert made[0, 0] == 0


def test_the_pool_never_exceeds_its_budget_and_loses_no_cell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pool = Pool(20_000_000, tmp_path)
    made: dict[int, tuple[Any, float]] = {}
    for step in range(60):
        action = rng.integers(3)
        if action == 0 or len(made) < 3:
            rows = int(rng.integers(150, 900))
            made[step] = pool.keep(np.full((rows, 1000), float(step))), rows * 1000.0 * step
        elif action == 1:
            made.pop(int(rng.choice(list(made))))
        else:
            value, total = made[int(rng.choice(list(made)))]
            pool.touch(value)
            assert value.sum() == total
        value = None
        assert pool.resident <= pool.budget
        assert pool.own + pool.on_disk == sum(value.nbytes for value, _ in made.values())
    assert pool.spills > 5
    made.clear()
    gc.collect()
    assert (pool.own, pool.mapped, pool.on_disk) == (0, 0, 0)
    assert not list(tmp_path.iterdir())


def test_a_spilled_matrix_goes_on_as_an_ordinary_one() -> None:
    def steps(dag: Dag, X: Hop) -> tuple[Hop, ...]:
        made = [dag.node("cumsum", X)]
        for _ in range(5):
            made.append(dag.node("cumsum", dag.node("rev", made[-1])))
        return tuple(made)

    X = cells(2000, 1000)
    context = Context(threads=2, memory=50_000_000)
    dag, roots = planned(steps, {"X": X})
    found = evaluate(dag, roots, context)
    assert context.pool.spills >= 3
    agree(found, by_kernels(steps, {"X": X}))
    assert context.pool.largest <= 50_000_000


def test_a_full_disk_and_a_full_quota_are_errors_that_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cells = np.ones((1000, 1000))
    with (
        options(cache_quota="5MB"),
        pytest.raises(CacheError, match=r"8.0 MB on disk; the cache_quota\s+option is 5.0 MB"),
    ):
        Pool(10_000_000, tmp_path).keep(cells)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CacheError, match=r"8\.0 MB.*No space left on device.*cache_directory"):
        Pool(10_000_000, tmp_path).keep(cells)
    with pytest.raises(BudgetError, match=r"1000 x 1000 cells takes 8\.0 MB; the memory option is 5\.0 MB"):
        Pool(5_000_000, tmp_path).keep(cells)


HOLDS_TEN = """
import numpy as np, sys
from braidwater.dml.context import Context
from braidwater.dml.hops import Dag
from braidwater.dml.operators import OPERATORS, cellwise
from braidwater.dml.runtime import kernels
from braidwater.dml.runtime.evaluate import evaluate

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) * 1024

context = Context(threads=1, memory=200_000_000)
X, held, highest = np.ones((1000, 5)), [], 0
def grown(value):
    dag = Dag(OPERATORS)
    return evaluate(dag, [dag.node("cumsum", dag.leaf("X", value))], context)[0]
grown(X)
base = resident()
value = np.ones((8_000, 1000))
for _ in range(10):
    value = grown(value)
    held.append(value)
    highest = max(highest, resident())
print((highest - base) / 1e6, context.pool.largest / 1e6, held[0][-1, 0], held[9][1, 1])
"""


@pytest.mark.slow
def test_resident_memory_stays_within_the_budget_and_one_operator(tmp_path: Path) -> None:
    environment = {**os.environ, "BRAIDWATER_CACHE": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", HOLDS_TEN], env=environment, capture_output=True, text=True, check=True
    )
    grew, counted, first, second = map(float, told.stdout.split())
    assert counted <= 200
    assert (
        grew < 200 + 2 * 64 + 30
    )  # ten matrices of 64 MB are held; a kernel may have its input and output beside the pool
    assert (first, second) == (8000.0, 11.0)


# --- plans -----------------------------------------------------------------------------------------------------------


def test_a_plan_is_found_again_for_other_values_of_the_same_sizes() -> None:
    def step(dag: Dag, X: Hop, length: float) -> Hop:
        return dag.node("*", dag.node("matmul", dag.node("t", X), X), dag.literal(length))

    statistics = Statistics()
    for turn in range(5):
        X, length = cells(37, 11, turn), 0.3 + turn
        dag = Dag(OPERATORS)
        (found,) = evaluate(dag, [step(dag, dag.leaf("X", X), length)], Context(statistics=statistics))
        np.testing.assert_allclose(found, X.T @ X * length, rtol=1e-12)
    assert statistics.blocks == 1
    dag = Dag(OPERATORS)
    X = sparse.csr_array(cells(37, 11))
    (found,) = evaluate(dag, [step(dag, dag.leaf("X", X), 1.5)], Context(statistics=statistics))
    agree([found], [X.toarray().T @ X.toarray() * 1.5])
    assert statistics.blocks == 2


def test_plans_hold_no_matrices() -> None:
    X = np.ones((2000, 100))
    before = sys.getrefcount(X)
    ran(lambda dag, X: dag.node("sum", dag.node("exp", X)), {"X": X})
    gc.collect()
    assert sys.getrefcount(X) == before


def test_an_error_of_a_kernel_names_its_place() -> None:
    from braidwater.dml.syntax import Source, Span

    text = "x = solve(A, b)"
    span = Span(Source(text, "fit.dml"), 4, len(text))
    dag = Dag(OPERATORS)
    root = dag.node("solve", dag.leaf("A", np.zeros((3, 3))), dag.leaf("b", np.ones((3, 1))), span=span)
    with pytest.raises(DMLError, match=r"fit\.dml:1:5"):
        evaluate(dag, [root], Context())


def test_statistics_and_explain_tell_what_ran() -> None:
    statistics, told = Statistics(), Explanation("hops")
    leaves = {
        "X": np.random.default_rng(0).normal(size=(120_000, 20)),
        "w": np.ones((120_000, 1)),
        "v": np.ones((20, 1)),
    }

    def chain(dag: Dag, X: Hop, w: Hop, v: Hop) -> Hop:
        return dag.node("matmul", dag.node("t", X), dag.node("*", w, dag.node("matmul", X, v)))

    ran(chain, leaves, statistics=statistics, explain=told)
    assert "scan: tmatmul(X, w * (X %*% v))" in statistics.text
    lines = told.text.splitlines()
    assert any("120000 x 20" in line and "19.2 MB" in line for line in lines)
    assert any("applied   transposed product: t(X) %*%" in line for line in lines)
    assert any("rejected  weighted product" in line and "(+" in line for line in lines)
    assert "over 120000 rows" in Explanation("runtime", told.programs).text


# --- loops -----------------------------------------------------------------------------------------------------------


def turn_of_a_loop(context: Context, X: Any, v: Any, step: float) -> Any:
    dag = Dag(OPERATORS)
    leaf, other, node = dag.leaf("X", X), dag.leaf("v", v), dag.node
    gram = node("matmul", node("t", leaf), leaf)
    squares = node("sum", node("^", leaf, dag.literal(2)))
    moved = node("*", node("+", node("matmul", gram, other), squares), dag.literal(step))
    return evaluate(dag, [moved], context)[0]


def test_what_does_not_change_in_a_loop_is_computed_once() -> None:
    X = np.random.default_rng(0).normal(size=(30_000, 50))
    context, statistics = Context(threads=2), Statistics(shown=100)
    context.statistics = statistics
    for turn in range(6):
        v, step = cells(50, 1, turn), 0.3 + turn
        found = turn_of_a_loop(context, X, v, step)
        np.testing.assert_allclose(found, (X.T @ X @ v + (X**2).sum()) * step, rtol=1e-10)
    over_X = [
        count for name, (count, _) in statistics._spent.items() if name.startswith(("scan: ", "tsmm", "sumsquares"))
    ]
    assert sum(over_X) <= 3  # the first turn; on the second what is kept, by itself; then none
    assert context.pool.reuse.hits >= 4


def test_a_kept_value_is_not_taken_for_another_matrix_or_one_that_was_changed() -> None:
    rng = np.random.default_rng(0)
    context, v = Context(threads=1), np.ones((50, 1))
    matrices = [rng.normal(size=(30_000, 50)) for _ in range(2)]
    for X in (*matrices, *matrices, matrices[0], matrices[0], matrices[1]):
        np.testing.assert_allclose(turn_of_a_loop(context, X, v, 2.5), (X.T @ X @ v + (X**2).sum()) * 2.5, rtol=1e-10)
    only = [matrices[0]]
    del matrices, X
    for turn in range(5):  # changed in place where nobody holds it; a kept value does
        for _ in range(2):
            expected = (only[0].T @ only[0] @ v + (only[0] ** 2).sum()) * 2.5
            np.testing.assert_allclose(turn_of_a_loop(context, only[0], v, 2.5), expected, rtol=1e-10)
        dag = Dag(OPERATORS)
        bounds = map(dag.literal, (1, 1, 1, 1))
        root = dag.node("leftindex", dag.leaf("X", only.pop()), dag.literal(100.0 + turn), *bounds)
        only += evaluate(dag, [root], context)


def test_a_dead_matrix_is_written_over_and_a_held_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    dead = kernels._dead
    monkeypatch.setattr(scans, "seconds", lambda *_: math.inf)  # one operator after the other
    monkeypatch.setattr(kernels, "_dead", lambda values, shape: found.append(dead(values, shape)) or found[-1])
    X = cells(150, 150, 1)
    held = X.copy()

    def steps(dag: Dag, X: Hop) -> tuple[Hop, ...]:
        node = dag.node
        first = node("cumsum", X)
        doubled = node("*", first, dag.literal(2.0))  # `first` dies here, and so does its memory's old content
        twice = node("+", node("rev", doubled), node("rev", doubled))
        kept = node("cumsum", node("neg", X))
        return node("cumsum", node("ifelse", node(">", twice, kept), twice, kept)), kept

    with_plan = ran(steps, {"X": X}, threads=1)
    agree(with_plan, by_kernels(steps, {"X": held}))
    assert np.array_equal(X, held)
    assert sum(each is not None for each in found) >= 1
