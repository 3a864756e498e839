"""Scripts in the language of matrices: ours, the same by hand in NumPy and SciPy, SystemDS.

python benchmarks/dml.py --rows 200000

Each case is timed by itself in each contender's process (`values` of the figures: wall seconds and, with "cpu", CPU seconds);
the table shows their sums. Data are in memory before the clock starts. Each case runs once before it is timed. SystemDS is not
warmed up: a JVM is started for each case, its own clock measures from when the data are in memory; its CPU is that of all,
start and reading included. NumPy runs with one BLAS thread and with all: which is faster depends on the case, so both are
shown. `--rows` is the rows of the dense cases, 100 columns; ALS has a hundredth of the rows, dense, and three hundredths with
one cell in a hundred.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import io, sparse

import dml_numpy
import dml_scripts
from harness import Benchmark, Found

COLUMNS, CLASSES, RANK = 100, 4, 10


@dataclass(frozen=True)
class Case:
    """A script, its twin in NumPy, and the inputs of both."""

    script: str
    by_hand: Callable[..., Any]
    inputs: tuple[str, ...]


CASES = {
    "LinearRegCG": Case(dml_scripts.LINEAR_REGRESSION_CG, dml_numpy.linear_regression_cg, ("X", "y")),
    "LinearRegDS": Case(dml_scripts.LINEAR_REGRESSION_DS, dml_numpy.linear_regression_ds, ("X", "y")),
    "l2-svm": Case(dml_scripts.L2_SVM, dml_numpy.l2_svm, ("X", "y")),
    "MultiLogReg": Case(dml_scripts.MULTINOMIAL_REGRESSION, dml_numpy.multinomial_regression, ("X", "Y")),
    "Kmeans": Case(dml_scripts.K_MEANS, dml_numpy.k_means, ("X",)),
    "PCA": Case(dml_scripts.PCA, dml_numpy.pca, ("X",)),
    "ALS-CG dense": Case(dml_scripts.ALS_CG, dml_numpy.als_cg, ("Wd", "Xd", "Ud", "Vd")),
    "ALS-CG 1 %": Case(dml_scripts.ALS_CG, dml_numpy.als_cg, ("Ws", "Xs", "Us", "Vs")),
}


def make_data(folder: Path, rows: int) -> None:
    """All inputs, as .npy or .npz."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(rows, COLUMNS))
    y = X @ rng.normal(size=(COLUMNS, 1)) + rng.normal(size=(rows, 1))
    classes = np.argmax(X @ rng.normal(size=(COLUMNS, CLASSES + 1)) + rng.gumbel(size=(rows, CLASSES + 1)), axis=1)
    dense = {"X": X, "y": y, "Y": np.eye(CLASSES + 1)[classes][:, :CLASSES]}
    for suffix, count in (("d", rows // 100), ("s", 3 * rows // 100)):
        shape = max(count, 20), max(count // 2, 20)
        dense |= {f"U{suffix}": rng.normal(size=(shape[0], RANK)), f"V{suffix}": rng.normal(size=(shape[1], RANK))}
        if suffix == "d":
            dense |= {"Wd": rng.uniform(0.5, 1.5, shape), "Xd": rng.normal(size=shape)}
            continue
        pattern = sparse.random_array(shape, density=0.01, format="csr", rng=rng)
        pattern.data = rng.uniform(0.5, 1.5, pattern.nnz)
        sparse.save_npz(folder / "Ws.npz", pattern)
        pattern.data = rng.normal(size=pattern.nnz)
        sparse.save_npz(folder / "Xs.npz", pattern)
    for name, value in dense.items():
        np.save(folder / f"{name}.npy", value)


bench = Benchmark("scripts in the language of matrices", rows=200_000, make_data=make_data)


def load(data: Path, name: str) -> Any:
    path = data / f"{name}.npz"
    return sparse.csr_array(sparse.load_npz(path)) if path.exists() else np.load(data / f"{name}.npy")


def timed(data: Path, run: Callable[[Case, dict[str, Any]], Any]) -> Found:
    """Every case, warmed up once and timed once."""
    values, texts = {}, []
    for name, case in CASES.items():
        inputs = {parameter: load(data, parameter) for parameter in case.inputs}
        run(case, inputs)
        wall, cpu = time.perf_counter(), time.process_time()
        result = run(case, inputs)
        values[name], values[f"{name} cpu"] = time.perf_counter() - wall, time.process_time() - cpu
        texts.append(f"{name} {np.sum(np.square(result)):.9g}")
    return found(values, texts)


def found(values: dict[str, float], texts: list[str]) -> Found:
    walls = [seconds for name, seconds in values.items() if not name.endswith(" cpu")]
    cpus = [seconds for name, seconds in values.items() if name.endswith(" cpu")]
    return Found("; ".join(texts), values, sum(walls), sum(cpus) if cpus else None)


PLAIN_NAMES = {"Wd": "W", "Xd": "X", "Ud": "U0", "Vd": "V0", "Ws": "W", "Xs": "X", "Us": "U0", "Vs": "V0"}


@bench.contender("braidwater", ours=True)
def braidwater(data: Path) -> Found:
    from braidwater import dml

    prepared = {case.script: dml.compile(case.script, ["result"], memory="4GB") for case in CASES.values()}

    def run(case: Case, inputs: dict[str, Any]) -> Any:
        return prepared[case.script]({PLAIN_NAMES.get(name, name): value for name, value in inputs.items()})["result"]

    return timed(data, run)


def by_hand(data: Path, threads: int | None) -> Found:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads, user_api="blas"):
        return timed(data, lambda case, inputs: case.by_hand(*inputs.values()))


@bench.contender("NumPy and SciPy, one BLAS thread")
def one_thread(data: Path) -> Found:
    return by_hand(data, 1)


@bench.contender("NumPy and SciPy, all BLAS threads")
def all_threads(data: Path) -> Found:
    return by_hand(data, None)


@bench.contender("SystemDS, a cold JVM for each case", once=True)
def system_ds(data: Path) -> Found:
    jar = system_ds_jar()
    values, texts = {}, []
    for name, case in CASES.items():
        script = data / "case.dml"
        script.write_text(_with_input_and_clock(case, data))
        command = ["java", "-Xmx6g", "-Xms6g", "--add-modules=jdk.incubator.vector", "-cp", f"{jar}:{jar.parent}/lib/*"]
        done = subprocess.run([*command, "org.apache.sysds.api.DMLScript", "-exec", "singlenode", "-f", str(script)],
                              capture_output=True, text=True, check=True)  # fmt: skip
        told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("SECONDS ", "RESULT ")))
        values[name] = float(told["SECONDS"])
        texts.append(f"{name} {float(told['RESULT']):.9g}")
    return found(values, texts)


def system_ds_jar() -> Path:
    """The jar in the folder SYSTEMDS_HOME, else that of the `systemds` package of this interpreter."""
    if shutil.which("java") is None:
        raise ModuleNotFoundError("Java is not installed", name="java")
    home = os.environ.get("SYSTEMDS_HOME")
    folders = [Path(home)] if home else sorted(Path(sys.prefix).glob("lib/python3*/site-packages/systemds"))
    jars = [folder / "SystemDS.jar" for folder in folders if (folder / "SystemDS.jar").is_file()]
    if not jars:
        raise ModuleNotFoundError("SystemDS is not installed", name="SystemDS (SYSTEMDS_HOME)")
    return jars[0]


def _with_input_and_clock(case: Case, data: Path) -> str:
    """The script with its inputs read from text files, and the seconds from when they are in memory."""
    lines = []
    for name in case.inputs:
        path, given = _as_text(data, name)
        plain = PLAIN_NAMES.get(name, name)
        lines += [f'{plain} = read("{path}", {given})', f'print("READ " + sum({plain}))']
    clock = ['if (sum(result) == 0.123) { print("never") }', 'print("SECONDS " + ((time() - begun) / 1000000000))']
    return "\n".join([*lines, "begun = time()", case.script, *clock, 'print("RESULT " + sum(result ^ 2))'])


def _as_text(data: Path, name: str) -> tuple[Path, str]:
    """An input as a file that SystemDS reads, all digits kept, and what has to be said of it."""
    value = load(data, name)
    if sparse.issparse(value):
        path = data / f"{name}.mtx"
        if not path.exists():
            io.mmwrite(path, sparse.coo_array(value), precision=17)
        return path, 'format="mm"'
    path = data / f"{name}.csv"
    if not path.exists():
        np.savetxt(path, value, delimiter=",", fmt="%.17g")
    return path, f'format="csv", header=FALSE, rows={value.shape[0]}, cols={value.shape[1]}'


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    bench.main()
