"""32 penalties trained by the same passes, held against one: with the rows in memory, and with the disk as the limit.

python benchmarks/path_of_penalties.py --rows 2000000

The disk is the limit when the block cache is larger than free memory; here the cache is told that none is free, so that it
reads with O_DIRECT. It was written before the clock starts, in both cases. One fit is that of the smallest penalty, which
needs the most passes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from data import FEATURES, load, normal_features
from harness import Benchmark, Found, cpu_seconds

bench = Benchmark("A path of 32 penalties and one fit", rows=2_000_000, make_data=normal_features)

ALPHAS = np.geomspace(1e-4, 1.0, 32)


def trained(data: Path, alphas: Any) -> str:
    from braidwater import LogisticRegression

    rows = data / "rows.parquet"
    if len(alphas) == 1:
        models = [LogisticRegression(alphas[0], solver="lbfgs").fit(rows, features=FEATURES, label="y")]
    else:
        models = LogisticRegression(solver="lbfgs").fit_path(rows, alphas=list(alphas), features=FEATURES, label="y")
    assert all(model.converged_ for model in models)
    passes = max(model.n_iter_ for model in models)
    plan = models[0].plan_
    cache = "" if plan is None else f", {plan.chosen.cache} cache"
    return f"{passes} passes{cache}, largest weight {np.abs(models[0].coef_).max():.6f}"


def in_memory(data: Path, alphas: Any) -> str:
    from braidwater import options

    with options(memory="8GB"):
        return trained(data, alphas)


def from_disk(data: Path, alphas: Any) -> Any:
    from braidwater import options
    from braidwater.blocks import disk

    disk._available_memory = lambda: 0
    with options(memory="64MB"):  # kept blocks may take a quarter of it in memory
        trained(data, alphas)
        os.sync()
        cpu, wall = cpu_seconds(), time.perf_counter()
        text = trained(data, alphas)
        return Found(text, {}, time.perf_counter() - wall, cpu_seconds() - cpu)


@bench.contender("one fit, in memory", ours=True)
def one_in_memory(data: Path) -> str:
    return in_memory(data, ALPHAS[:1])


@bench.contender("path of 32, in memory")
def path_in_memory(data: Path) -> str:
    return in_memory(data, ALPHAS)


@bench.contender("one fit, disk")
def one_from_disk(data: Path) -> Any:
    return from_disk(data, ALPHAS[:1])


@bench.contender("path of 32, disk")
def path_from_disk(data: Path) -> Any:
    return from_disk(data, ALPHAS)


@bench.contender("scikit-learn, 32 warm starts, float32 in memory", once=True)
def scikit_learn(data: Path) -> str:
    from sklearn.linear_model import LogisticRegression

    features, y = load(data, "y")
    model = LogisticRegression(tol=1e-6, max_iter=200, warm_start=True)
    for alpha in ALPHAS[::-1]:
        model.set_params(C=1 / (alpha * len(y))).fit(features, y)
    return f"largest weight {np.abs(model.coef_).max():.6f}"


if __name__ == "__main__":
    bench.main()
