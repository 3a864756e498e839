"""Scripts from Python and from the shell; values and files that go in and out."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from typer.testing import CliRunner

from braidwater import dml
from braidwater.cli.app import app
from braidwater.dml.reference import reference
from braidwater.errors import DMLError, DMLNameError, DMLStopped, DMLTypeError, DMLValueError, OptionError
from braidwater.options import options

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-u", "-m", "braidwater.cli", "dml"]
DENSE = np.array([[1.5, 0.0, -2.0], [1e-17, 1e300, 1 / 3]])
SPARSE = sparse.random_array((90, 80), density=0.03, format="csr", rng=np.random.default_rng(1))


def test_values_go_in_and_out_as_python_knows_them():
    import torch

    given = {
        "v": np.array([1, 2, 3]), "S": SPARSE, "T": torch.ones(2, 2, dtype=torch.float32), "n": 3, "x": 2.5, "b": True,
        "s": "text", "P": pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}), "F": pa.table({"k": ["u", "v"], "z": [1.0, None]}),
        "l": {"w": np.eye(2), "r": 1},
    }  # fmt: skip
    script = """
    rows = nrow(v); S2 = S * 2; t2 = T + n; y = x * n; c = !b; u = s + "s"; p = colSums(P); k = as.scalar(F[2, 1])
    G = F; out = list(a = as.matrix(l["w"]) * 2, b = "q"); plain = list(1, 2)
    """
    found = dml.run(script, given)
    assert (found["rows"], found["y"], found["c"], found["u"], found["k"]) == (3, 7.5, False, "texts", "v")
    assert sparse.issparse(found["S2"])
    np.testing.assert_array_equal(found["S2"].toarray(), SPARSE.toarray() * 2)
    assert found.tensor("t2").tolist() == [[4, 4], [4, 4]]
    np.testing.assert_array_equal(found["p"], [[3, 2]])
    assert found["G"].column_names == ["k", "z"]
    assert found["G"]["k"].to_pylist() == ["u", "v"]
    np.testing.assert_array_equal(found["out"]["a"], np.eye(2) * 2)
    assert found["plain"] == [1, 2]
    assert set(found) >= {"rows", "S2"}
    with pytest.raises(DMLNameError, match="There is no output 'nothing'"):
        found["nothing"]


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.array(["a"]).reshape(1, 1), "matrix holds numbers"), (np.ones((2, 2, 2)), "3 dimensions")],
)
def test_what_is_no_matrix_is_refused(value, message):
    with pytest.raises(DMLTypeError, match=message):
        dml.run("y = x", {"x": value})


def test_a_prepared_script_is_called_many_times_and_knows_its_inputs():
    prepared = dml.compile("m = mean(x) + shift\nx = 1", outputs=["m"])
    assert prepared.inputs == {"x", "shift"}
    assert [prepared({"x": np.arange(n + 1.0), "shift": 1})["m"] for n in range(3)] == [1, 1.5, 2]
    with pytest.raises(DMLNameError, match="There is no variable 'shift'"):
        prepared({"x": np.ones(2)})
    with pytest.raises(DMLNameError, match="without a value for its output 'z'"):
        dml.run("x = 1", outputs=["z"])
    with pytest.raises(OptionError, match="threads=0"):
        dml.run("x = 1", threads=0)


def test_arguments_have_the_types_that_they_look_like():
    script = "x = $1 + 1; y = $name; z = ifdef($reg, 0.5); t = typeof(y); b = $flag"
    found = dml.run(script, args=["2"], nvargs={"name": "1e-3", "flag": "true"})
    assert (found["x"], found["y"], found["z"], found["t"], found["b"]) == (3, 0.001, 0.5, "double", True)


@pytest.mark.parametrize(
    "last", ["write(x, $place)", "y = sum(matrix($place, 1, 1))", "[a, b] = qr(matrix($place, 2, 2))"]
)
def test_a_missing_argument_is_told_before_the_work(last):
    shown = []
    with pytest.raises(DMLNameError, match=r"script:2:.*no argument '\$place'"):
        dml.run(f"x = 1; print(x)\n{last}", show=shown.append)
    assert shown == []


def test_an_argument_that_may_not_be_asked_for_may_be_missing():
    script = (
        "x = ifdef($a, 3); if (x > 3) { x = $b }\nwhile (x < 0) { x = $c }\nf = function() return (int y) { y = $d }"
    )
    assert dml.run(script)["x"] == 3


@pytest.mark.parametrize("matrix", [DENSE, SPARSE, np.zeros((2, 3))], ids=["dense", "sparse", "zero"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [*((kind, "m") for kind in ("csv", "text", "mm", "binary", "parquet", "hdf5", "json")), ("parquet", "m.parquet")],
)
def test_a_matrix_that_is_written_is_read_back(tmp_path, kind, name, matrix):
    if kind == "hdf5":
        pytest.importorskip("h5py")
    place = str(tmp_path / name)
    dml.run("write(X, $place, format=$kind)", {"X": matrix}, [], nvargs={"place": place, "kind": kind})
    found = dml.run("X = read($place)", outputs=["X"], nvargs={"place": place})["X"]
    as_array = found.toarray() if sparse.issparse(found) else found
    np.testing.assert_array_equal(as_array, matrix.toarray() if sparse.issparse(matrix) else matrix)
    if name == "m":
        said = json.loads((tmp_path / "m.mtd").read_text())
        assert (said["rows"], said["cols"], said["format"], said["data_type"]) == (*matrix.shape, kind, "matrix")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("kind", ["csv", "binary", "json", "parquet"])
def test_a_frame_and_scalars_are_read_back(tmp_path, kind):
    frame = pa.table({"k": ["a,b", None, "c"], "n": [1, 2, 3], "x": [0.5, 1.5, -2.0], "b": [True, False, True]})
    script = """
    write(F, $p, format=$kind, header=TRUE); write(3.5, $q); write("text", $r)
    G = read($p); x = read($q); s = read($r)
    """
    places = {name: str(tmp_path / name) for name in "pqr"}
    found = dml.run(script, {"F": frame}, ["G", "x", "s"], nvargs={**places, "kind": kind})
    assert found["G"].to_pydict() == frame.to_pydict()
    assert (found["x"], found["s"]) == (3.5, "text")


def test_libsvm_holds_the_label_in_the_last_column(tmp_path):
    matrix = np.array([[0, 2, 1.0], [3, 0, -1]])
    found = dml.run(
        'write(X, $p, format="libsvm"); Y = read($p)', {"X": matrix}, ["Y"], nvargs={"p": str(tmp_path / "m")}
    )["Y"]
    np.testing.assert_array_equal(found.toarray() if sparse.issparse(found) else found, matrix)


def test_tables_of_any_place_are_matrices_or_frames(tmp_path):
    pq.write_table(pa.table({"a": [1, 2], "b": [0.5, 1.5]}), tmp_path / "t.parquet")
    script = 'X = read($p); s = colSums(X); F = read($p, data_type="frame"); write(X, $q)\nY = read($q)'
    found = dml.run(
        script, outputs=["s", "F", "Y"], nvargs={"p": str(tmp_path / "t.parquet"), "q": f"{tmp_path}/d.duckdb::m"}
    )
    np.testing.assert_array_equal(found["s"], [[3, 2]])
    assert found["F"].to_pydict() == {"a": [1, 2], "b": [0.5, 1.5]}
    np.testing.assert_array_equal(found["Y"], [[1, 0.5], [2, 1.5]])


def test_a_table_beyond_the_memory_is_read_block_by_block(tmp_path):
    cells = np.random.default_rng(3).normal(size=(400_000, 6))
    pq.write_table(pa.table({f"c{place}": column for place, column in enumerate(cells.T)}), tmp_path / "t.parquet")
    script = "X = read($p); n = nrow(X); G = t(X) %*% X; m = colMeans(X); s = sum(X ^ 2); w = sum(X %*% matrix(1, ncol(X), 1))"
    with options(cache_directory=tmp_path / "cache"):
        outputs = ["n", "G", "m", "s", "w"]
        found = dml.run(script, outputs=outputs, nvargs={"p": str(tmp_path / "t.parquet")}, memory="40MB")
        np.testing.assert_allclose(found["G"], cells.T @ cells, rtol=1e-9)
        np.testing.assert_allclose(found["m"][0], cells.mean(axis=0), rtol=1e-9, atol=1e-12)
        assert (found["n"], found["s"]) == (400_000, pytest.approx((cells**2).sum()))
        assert found["w"] == pytest.approx(cells.sum())


BROKEN = {
    "no such file": ({}, "read($p)", "There is no file"),
    "wrong rows": (
        {"m": "1,2\n3,4\n", "m.mtd": '{"rows": 3, "cols": 2, "format": "csv"}'},
        "read($p)",
        "m has 2 rows, and 3 were said",
    ),
    "wrong columns": ({"m": "1,2\n3,4\n"}, 'read($p, format="csv", cols=5)', "m has 2 columns, and 5 were said"),
    "two sizes": (
        {"m": "1 1 1\n", "m.mtd": '{"rows": 3, "cols": 2, "format": "text"}'},
        "read($p, rows=4)",
        "read says rows=4, and m.mtd says 3",
    ),
    "a word": ({"m": "1,2\n3,x4\n"}, 'read($p, format="csv")', "column 2 holds 'x4', which is no number"),
    "a ragged line": ({"m": "1,2\n3\n"}, 'read($p, format="csv")', "cannot be read as CSV"),
    "outside": (
        {"m": "1 1 1\n5 1 2\n", "m.mtd": '{"rows": 3, "cols": 2, "format": "text"}'},
        "read($p)",
        "a cell at 5, 1, outside of the 3 x 2",
    ),
    "no json": ({"m": "1", "m.mtd": "{rows"}, "read($p)", "m.mtd is no JSON"),
    "no format": ({"m": "1", "m.mtd": '{"format": "jpeg"}'}, "read($p)", "says format 'jpeg'"),
    "no array": ({"m": "rubbish"}, 'read($p, format="binary")', "no matrix in this package's binary format"),
    "no market": ({"m": "%%MatrixMarket rubbish\n"}, "read($p)", "cannot be read as Matrix Market"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_by_name(tmp_path, name):
    files, call, message = BROKEN[name]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    with pytest.raises(DMLError, match=message) as caught:
        dml.run(f"X = {call}\ny = sum(X)", nvargs={"p": str(tmp_path / "m")})
    assert str(caught.value).startswith("script:1:5: ")


def test_a_pickle_is_not_opened(tmp_path):
    np.save(tmp_path / "m.npy", np.array([[print]], dtype=object), allow_pickle=True)
    with pytest.raises(DMLValueError, match="no matrix in this package's binary format"):
        dml.run("X = read($p)", nvargs={"p": str(tmp_path / "m.npy")})


def command(*words: str):
    return CliRunner().invoke(app, ["dml", *words])


def test_the_command_runs_explains_and_measures(tmp_path):
    (tmp_path / "s.dml").write_text(
        'X = rand(rows=500, cols=4, seed=1)\nG = t(X) %*% X\nprint("n " + $n + " " + (sum(G) > 0) + " " + $who)'
    )
    found = command(str(tmp_path / "s.dml"), "-nvargs", "n=5", "who=-a=b", "--explain", "hops", "--stats")
    assert found.exit_code == 0
    assert found.stdout == "n 5 TRUE -a=b\n"
    assert "operators" in found.stderr
    assert "planning" in found.stderr
    (tmp_path / "a.dml").write_text("print($1 + $2)")
    assert command(str(tmp_path / "a.dml"), "-args", "2", "-3").stdout == "-1\n"


def test_the_command_says_what_is_wrong_where(tmp_path):
    (tmp_path / "s.dml").write_text("x = 1\nstop('enough: ' + x)")
    found = command(str(tmp_path / "s.dml"))
    assert (found.exit_code, found.stderr) == (
        1,
        "Error: s.dml:2:1: enough: 1\n  stop('enough: ' + x)\n  ^^^^^^^^^^^^^^^^^^^^\n",
    )
    assert "There is no script" in command(str(tmp_path / "missing.dml")).stderr
    assert "argument='rubbish'" in command(str(tmp_path / "s.dml"), "rubbish").stderr


def test_mistakes_are_found_without_running(tmp_path):
    (tmp_path / "s.dml").write_text(
        "f = function(double a, double b = 1) return (double r) { q = a }\n"
        "x = f(1, c=2) + f() + sums(matrix(1, 2, 2)) + order(by=1)\nprint(undefined)\ny = lmCG(X=x, y=x)\n"
    )
    found = command(str(tmp_path / "s.dml"), "--lint")
    assert found.exit_code == 1
    for message in (
        "value for the result 'r'",
        "no parameter 'c'",
        "needs the argument 'a'",
        "no function 'sums'",
        "order needs target",
        "no variable 'undefined'",
    ):
        assert message in found.stdout
    assert "lmCG" not in found.stdout
    (tmp_path / "s.dml").write_text("print(sum(matrix(1, 2, 2)))")
    assert "Nothing found" in command(str(tmp_path / "s.dml"), "--lint").stdout


def test_an_endless_loop_is_stopped_by_the_keyboard(tmp_path):
    (tmp_path / "s.dml").write_text('print("begun")\nx = 1\nwhile (TRUE) x = x + 1')
    process = subprocess.Popen(
        [*COMMAND, str(tmp_path / "s.dml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "Stopped.\n")


def test_a_kernel_that_takes_minutes_is_stopped_by_the_keyboard(tmp_path):
    (tmp_path / "s.dml").write_text(
        'A = rand(rows=6000, cols=6000, seed=1)\nprint("begun " + (sum(A) > 0))\n[v, V] = eigen(A + t(A))\nprint(sum(v))'
    )
    process = subprocess.Popen(
        [*COMMAND, str(tmp_path / "s.dml")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun TRUE\n"
    time.sleep(0.5)  # it is in LAPACK by now, for minutes
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "Stopped.\n")


SLOW_TO_END = """
import time
from braidwater.cli.interrupt import PATIENCE, answered_at_once

with answered_at_once():
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        time.sleep(3 * PATIENCE)
        print("cleaned up", flush=True)
"""


def test_who_has_heard_of_ctrl_c_may_take_long_to_clean_up():
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_END], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert printed == "cleaned up\n"
    assert errors.endswith("KeyboardInterrupt\n")


IMPORTED = """
import sys
from braidwater.cli import main
sys.argv = ["braidwater", "dml", sys.argv[1]]
main()
print(sorted(name for name in {names} if name in sys.modules))
"""
OPTIONAL = {
    "torch", "numba", "duckdb", "sqlglot", "sklearn", "pandas", "scipy", "scipy.sparse", "pyarrow", "pyarrow.compute",
    "typer", "pydantic", "rich", "importlib.metadata", "numpy.random", "concurrent.futures", "tempfile", "multiprocessing",
    "braidwater.tables", "braidwater.blocks", "braidwater.engines", "braidwater.planner.plan", "braidwater.dml.lazy",
    "braidwater.dml.explain", "braidwater.dml.interpreter.parfor",
}  # fmt: skip


@pytest.mark.parametrize(
    ("script", "needed"),
    [
        ("X = matrix(1, 3, 2)\nprint(sum(t(X) %*% X))", set()),
        (
            "X = matrix(1, 100, 90)\nA = t(X) %*% X + diag(matrix(1, 90, 1))\nprint(sum(solve(A, t(X) %*% X[, 1])))",
            set(),
        ),
        ('X = read("x.csv")\nprint(sum(X - colMeans(X)))', {"pyarrow", "tempfile"}),
        ("X = rand(rows=9, cols=9, seed=1)\nprint(sum(X))", {"numpy.random"}),
    ],
)
def test_a_script_imports_no_more_than_it_needs(script, needed, tmp_path):
    (tmp_path / "s.dml").write_text(script)
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")
    code = IMPORTED.format(names=OPTIONAL)
    done = subprocess.run(
        [sys.executable, "-c", code, "s.dml"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert set(ast.literal_eval(done.stdout.splitlines()[-1])) <= needed


def test_a_blas_that_is_imported_late_keeps_to_the_threads_of_the_others():
    code = """
from threadpoolctl import threadpool_info
from braidwater.dml.runtime.workers import blas
from braidwater.dml.scipy_on_demand import linalg

def threads():
    return [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]

before = threads()
with blas.held():
    linalg.get_lapack_funcs
    assert len(threads()) == len(before) + 1 and set(threads()) == {1}, threads()
assert set(threads()) == set(before), threads()
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_stop_is_an_error_of_its_own():
    with pytest.raises(DMLStopped):
        dml.run("stop('x')")


def test_the_reference_is_that_of_the_declarations():
    assert (ROOT / "docs" / "dml.md").read_text(encoding="utf-8") == reference()
