"""Scripts on small data beside the same by hand in NumPy and SciPy: what the language costs where arithmetic is cheap.

python benchmarks/dml_small.py 1000 5000 20000

Fourteen cases: six algorithms on a matrix of 20 columns (the rows given) and on one of 100 (a fifth of them), linear regression
on a sparse one (1000 columns, one cell in a hundred), factors of a dense matrix. All contenders take turns in one process, data
in memory, each case warmed up; a time is the least of `TURNS`, of the wall clock. NumPy runs with one BLAS thread and with all,
and the better of the two is what a ratio is to.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

import dml_numpy
import dml_scripts
from braidwater import dml

TURNS = 25
CLASSES, RANK = 4, 10


@dataclass(frozen=True)
class Case:
    """A script, its twin in NumPy, and the inputs of both in the order of the twin."""

    name: str
    script: str
    by_hand: Callable[..., Any]
    inputs: Mapping[str, Any]


def cases(rows: int) -> list[Case]:
    rng = np.random.default_rng(1)
    found = []
    for shape, count, columns in (("long", rows, 20), ("wide", max(rows // 5, 50), 100)):
        X = rng.normal(size=(count, columns))
        noisy = X @ rng.normal(size=(columns, CLASSES + 1)) + rng.gumbel(size=(count, CLASSES + 1))
        data = {"X": X, "y": noisy[:, :1], "Y": np.eye(CLASSES + 1)[noisy.argmax(axis=1)][:, :CLASSES]}
        for name, script, by_hand, inputs in (
            ("LinearRegCG", dml_scripts.LINEAR_REGRESSION_CG, dml_numpy.linear_regression_cg, "Xy"),
            ("LinearRegDS", dml_scripts.LINEAR_REGRESSION_DS, dml_numpy.linear_regression_ds, "Xy"),
            ("l2-svm", dml_scripts.L2_SVM, dml_numpy.l2_svm, "Xy"),
            ("MultiLogReg", dml_scripts.MULTINOMIAL_REGRESSION, dml_numpy.multinomial_regression, "XY"),
            ("Kmeans", dml_scripts.K_MEANS, dml_numpy.k_means, "X"),
            ("PCA", dml_scripts.PCA, dml_numpy.pca, "X"),
        ):
            found.append(Case(f"{name}, {shape}", script, by_hand, {each: data[each] for each in inputs}))
    S = sparse.csr_array(sparse.random_array((rows, 1000), density=0.01, rng=rng))
    given = {"X": S, "y": rng.normal(size=(rows, 1))}
    found.append(Case("LinearRegCG, sparse", dml_scripts.LINEAR_REGRESSION_CG, dml_numpy.linear_regression_cg, given))
    shape = max(rows // 100, 20), max(rows // 200, 20)
    factors = {"W": rng.uniform(0.5, 1.5, shape), "X": rng.normal(size=shape)}
    factors |= {"U0": rng.normal(size=(shape[0], RANK)), "V0": rng.normal(size=(shape[1], RANK))}
    return [*found, Case("ALS-CG, dense", dml_scripts.ALS_CG, dml_numpy.als_cg, factors)]


def seconds(case: Case) -> tuple[float, float]:
    """Of the script, and of the better way by hand."""
    prepared = dml.compile(case.script, ["result"], memory="4GB")

    def ours() -> Any:
        return prepared(case.inputs)["result"]

    def by_hand() -> Any:
        return case.by_hand(*case.inputs.values())

    if not np.isclose(np.sum(np.square(ours())), np.sum(np.square(by_hand())), rtol=1e-6):
        raise RuntimeError(f"{case.name}: the results differ.")
    ours()
    taken: dict[str, float] = {}
    for _ in range(TURNS):
        for name, threads, run in (("ours", None, ours), ("one", 1, by_hand), ("all", None, by_hand)):
            with threadpool_limits(threads, user_api="blas"):
                begun = time.perf_counter()
                run()
                taken[name] = min(time.perf_counter() - begun, taken.get(name, np.inf))
    return taken["ours"], min(taken["one"], taken["all"])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    for rows in map(int, sys.argv[1:] or ["5000"]):
        print(f"{rows:,} rows{'':15}braidwater ms  by hand ms   ratio")
        ratios = []
        for case in cases(rows):
            ours, by_hand = seconds(case)
            ratios.append(ours / by_hand)
            print(f"{case.name:<24}{ours * 1e3:>12.3f}{by_hand * 1e3:>12.3f}{ratios[-1]:>8.2f}", flush=True)
        print(f"{'geometric mean':<48}{geometric_mean(ratios):>8.2f}\n")
