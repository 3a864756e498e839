"""The same scripts run by braidwater and by SystemDS: as whole processes, and their core again and again in one process.

SYSTEMDS_HOME=.../site-packages/systemds python benchmarks/dml_systemds.py --rounds 1

Fourteen cases: six algorithms on a long matrix (`--rows` x 20) and on a wide one (a fifth of the rows, 100 columns), linear
regression on a sparse one (1000 columns, one cell in a hundred), factors of a dense matrix. Both read the same script and the
same text files. *Whole processes* are timed from the command to its end: start, reading, compiling, running. *Warm* is the
script's core six times in one process, the first not counted: the mean of the process's CPU seconds, and the fewest wall seconds.
The package's modules are compiled to bytecode before, as pip leaves them behind (a checkout may have none).
Both use all cores as they come. SystemDS is found in the folder SYSTEMDS_HOME (it holds SystemDS.jar and lib/).
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy import io, sparse

import braidwater
import dml_scripts
from dml import system_ds_jar
from harness import Benchmark, Found

REPEATS = 6
SHORTEST = 0.002  # seconds: what five turns tell of a clock of hundredths
SHAPES = {"long": (1, 20), "wide": (5, 100)}  # parts of the rows, columns
CLASSES = 4


@dataclass(frozen=True)
class Case:
    script: str
    inputs: dict[str, str]  # variable -> file


def _cases() -> dict[str, Case]:
    found = {}
    for shape in SHAPES:
        X, y, Y = f"X_{shape}.csv", f"y_{shape}.csv", f"Y_{shape}.csv"
        found |= {
            f"LinearRegCG, {shape}": Case(dml_scripts.LINEAR_REGRESSION_CG, {"X": X, "y": y}),
            f"LinearRegDS, {shape}": Case(dml_scripts.LINEAR_REGRESSION_DS, {"X": X, "y": y}),
            f"l2-svm, {shape}": Case(dml_scripts.L2_SVM, {"X": X, "y": y}),
            f"MultiLogReg, {shape}": Case(dml_scripts.MULTINOMIAL_REGRESSION, {"X": X, "Y": Y}),
            f"Kmeans, {shape}": Case(dml_scripts.K_MEANS, {"X": X}),
            f"PCA, {shape}": Case(dml_scripts.PCA, {"X": X}),
        }
    found["LinearRegCG, sparse"] = Case(dml_scripts.LINEAR_REGRESSION_CG, {"X": "X_sparse.mtx", "y": "y_sparse.csv"})
    found["ALS-CG"] = Case(dml_scripts.ALS_CG, {"W": "W.csv", "X": "D.csv", "U0": "U.csv", "V0": "V.csv"})
    return found


CASES = _cases()


def make_data(folder: Path, rows: int) -> None:
    """Text files, and an empty folder that tells the warm-up to do nothing: what is cold here is meant to be."""
    if not compileall.compile_dir(Path(braidwater.__file__).parent, quiet=2):
        raise RuntimeError("The package's bytecode cannot be written.")
    rng = np.random.default_rng(1)
    (folder / "warm").mkdir()
    for shape, (part, columns) in SHAPES.items():
        X = rng.normal(size=(max(rows // part, 50), columns))
        noisy = X @ rng.normal(size=(columns, CLASSES + 1)) + rng.gumbel(size=(len(X), CLASSES + 1))
        _csv(folder / f"X_{shape}.csv", X)
        _csv(folder / f"y_{shape}.csv", noisy[:, :1])
        _csv(folder / f"Y_{shape}.csv", np.eye(CLASSES + 1)[noisy.argmax(axis=1)][:, :CLASSES])
    S = sparse.random_array((max(rows, 50), 1000), density=0.01, format="csr", rng=rng)
    io.mmwrite(folder / "X_sparse.mtx", sparse.coo_array(S), precision=6)
    _csv(folder / "y_sparse.csv", S @ rng.normal(size=(1000, 1)) + rng.normal(size=(S.shape[0], 1)))
    shape = max(rows // 250, 20), max(rows // 500, 20)
    _csv(folder / "W.csv", rng.uniform(0.5, 1.5, shape))
    _csv(folder / "D.csv", rng.normal(size=shape))
    _csv(folder / "U.csv", rng.normal(size=(shape[0], 10)))
    _csv(folder / "V.csv", rng.normal(size=(shape[1], 10)))


def _csv(path: Path, matrix: np.ndarray) -> None:
    np.savetxt(path, matrix, delimiter=",", fmt="%.6g")


bench = Benchmark("scripts run by SystemDS", rows=250_000, make_data=make_data)


def reading(case: Case, data: Path) -> str:
    """The lines that read a case's inputs; a sum makes both read them now."""
    lines = []
    for name, file in case.inputs.items():
        form = 'format="mm"' if file.endswith(".mtx") else 'format="csv", header=FALSE'
        lines += [f'{name} = read("{data / file}", {form})', f'print("READ " + sum({name}))']
    return "\n".join(lines)


def whole(case: Case, data: Path) -> str:
    return f'{reading(case, data)}\n{case.script}\nprint("RESULT " + sum(result ^ 2))\n'


def repeated(case: Case, data: Path) -> str:
    """The core in a loop. Conditions keep the clock's lines where they stand, beyond which neither moves operators; the data
    are another matrix each turn, so that nothing is left over from the turn before."""
    data_name = next(iter(case.inputs))
    begin = f'{data_name} = {data_name} * 1.000001\nif (sum({data_name}) != turn / 7) {{ print("BEGIN " + turn) }}'
    end = 'told = sum(result ^ 2)\nif (told != turn / 7) { print("RESULT " + told)\nprint("END " + turn) }'
    return f"{reading(case, data)}\nfor (turn in 1:{REPEATS}) {{\n{begin}\n{case.script}\n{end}\n}}\n"


def ours(script: Path) -> list[str]:
    return [str(Path(sys.executable).parent / "braidwater"), "dml", str(script)]


def systemds(script: Path) -> list[str]:
    home = system_ds_jar().parent
    java = ["java", "-Xmx6g", "-Xms6g", "-Xmn600m", "--add-modules=jdk.incubator.vector"]
    parts = ("java.nio", "java.io", "java.util", "java.lang", "java.lang.ref", "java.util.concurrent", "sun.nio.ch")
    opened = [f"--add-opens=java.base/{part}=ALL-UNNAMED" for part in parts]
    run = ["-cp", f"{home}/SystemDS.jar:{home}/lib/*", "org.apache.sysds.api.DMLScript"]
    return [*java, *opened, *run, "-exec", "singlenode", "-f", str(script)]


def processes(data: Path, command: object) -> Found:
    """Wall and CPU seconds of a process for each case, from its command to its end."""
    if data.name == "warm":
        return Found("", {}, 0.0, 0.0)
    values, texts = {}, []
    for name, case in CASES.items():
        script = data / "whole.dml"
        script.write_text(whole(case, data))
        wall, before = time.perf_counter(), os.times()
        done = subprocess.run(command(script), capture_output=True, text=True, check=True, cwd=data)  # type: ignore[operator]
        after = os.times()
        values[name] = time.perf_counter() - wall
        values[f"{name} cpu"] = sum(after[2:4]) - sum(before[2:4])
        texts.append(_result(name, done.stdout.splitlines()))
    return _found(values, texts)


def warm(data: Path, command: object) -> Found:
    """The fewest wall seconds and the mean CPU seconds of a case's core in one process, the first turn left out."""
    if data.name == "warm":
        return Found("", {}, 0.0, 0.0)
    values, texts = {}, []
    for name, case in CASES.items():
        script = data / "warm.dml"
        script.write_text(repeated(case, data))
        lines, spent = [], []
        told_at_once = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            command(script),  # type: ignore[operator]
            stdout=subprocess.PIPE,
            text=True,
            cwd=data,
            env=told_at_once,
        ) as process:
            begun = (0.0, 0.0)
            for line in process.stdout or ():
                if line.startswith("BEGIN"):
                    begun = _clocks(process.pid)
                elif line.startswith("END"):
                    spent.append(
                        tuple(after - before for after, before in zip(_clocks(process.pid), begun, strict=True))
                    )
                lines.append(line)
        if len(spent) != REPEATS:
            raise RuntimeError(f"{name}: {''.join(lines)[-500:]}")
        values[name] = min(wall for wall, _ in spent[1:])
        values[f"{name} cpu"] = max(fmean(cpu for _, cpu in spent[1:]), SHORTEST)
        texts.append(_result(name, lines))
    return _found(values, texts)


def _clocks(process: int) -> tuple[float, float]:
    """Wall seconds, and the CPU seconds of a process with the threads that have ended (Linux; hundredths)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return time.perf_counter(), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _result(name: str, lines: Sequence[str]) -> str:
    last = [line.split()[1] for line in lines if line.startswith("RESULT ")][-1]
    return f"{name} {float(last):.6g}"


def _found(values: dict[str, float], texts: list[str]) -> Found:
    walls = [seconds for name, seconds in values.items() if not name.endswith(" cpu")]
    cpus = [seconds for name, seconds in values.items() if name.endswith(" cpu")]
    return Found("; ".join(texts), values, sum(walls), sum(cpus))


@bench.contender("braidwater, whole processes", ours=True)
def our_processes(data: Path) -> Found:
    return processes(data, ours)


@bench.contender("SystemDS, whole processes", once=True)
def their_processes(data: Path) -> Found:
    return processes(data, systemds)


@bench.contender("braidwater, warm", ours=True)
def our_warm(data: Path) -> Found:
    return warm(data, ours)


@bench.contender("SystemDS, warm", once=True)
def their_warm(data: Path) -> Found:
    return warm(data, systemds)


if __name__ == "__main__":
    bench.main()
