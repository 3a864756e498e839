"""Measures the constants of `braidwater.dml.plan` and prints them beside those in force. One thread; about ten seconds.

python benchmarks/dml_constants.py

Run it on a quiet machine, twice. Plans are made with the constants of the reference machine, on every machine, so that a script
gives the same digits everywhere (decision 12): another machine's figures are no reason to change them. On the reference machine,
a constant that is marked, both times, by more than a factor of two from what is in force goes into `plan/cost.py` (`START` into
`plan/scans.py`); then `pytest tests/dml/test_rewrites.py` shows, as lines of its case files, which choices turn over, and
`benchmarks/dml.py` before and after, whether they were right to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from braidwater.dml.context import Context
from braidwater.dml.hops import Dag
from braidwater.dml.operators import OPERATORS
from braidwater.dml.plan import cost, scans
from braidwater.dml.rewrites.sampled import sampled_product
from braidwater.dml.runtime.evaluate import evaluate
from braidwater.dml.runtime.workers import run_parts


def best(work: Callable[[], Any], rounds: int = 5) -> float:
    """Seconds of the fastest call."""
    work()
    spent = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)
    return min(spent)


def sampled(S: Any, rank: int) -> float:
    U, V = np.ones((S.shape[0], rank)), np.ones((rank, S.shape[1]))
    return best(lambda: sampled_product(S.indptr, S.indices, U, V)) / S.nnz


def cellwise(op: str, *arguments: Any) -> float:
    """Seconds a cell of an operator on blocks that stay in the cache."""
    X = np.random.default_rng(0).uniform(0.1, 2.0, (64, 512))
    out = np.empty_like(X)
    function = {"exp": np.exp, "log": np.log, "^": np.power, "%%": np.fmod, "+": np.add}[op]
    return best(lambda: [function(X, *arguments, out) for _ in range(20)]) / 20 / X.size


def call() -> float:
    """Seconds of an operator on tiny matrices, whatever it computes."""
    value, context = np.ones((4, 4)), Context(threads=1)

    def block() -> None:
        dag = Dag(OPERATORS)
        leaf = hop = dag.leaf("X", value)
        for _ in range(200):
            hop = dag.node("*", hop, leaf)
        made.append((dag, hop))

    made: list[Any] = []
    for _ in range(12):
        block()
    return best(lambda: evaluate(made[-1][0], [made.pop()[1]], context)) / 200


def measured() -> dict[str, float]:
    """The constants, by name."""
    S = sparse.random_array((20_000, 5000), density=0.01, format="csr", rng=1)
    T = sparse.random_array((5000, 2000), density=0.01, format="csr", rng=2)
    tiny = sparse.random_array((10, 10), density=0.3, format="csr", rng=3)
    dense = np.ones((5000, 16))
    X = np.ones((2000, 2000))
    kernel = {name: OPERATORS[name].kernel for name in ("*", "t", "order")}
    few, many = sampled(S, 4), sampled(S, 36)
    column = np.random.default_rng(0).normal(size=(200_000, 1))
    return {
        "CALL": call(),
        "START": best(lambda: run_parts(lambda part: None, 2, threads=2), 500),
        "SPARSE_PRODUCT": best(lambda: S @ dense) / S.nnz / 16,
        "SPARSE_SPARSE": best(lambda: S @ T) / (S.nnz * T.nnz / 5000),
        "SPARSE_CELLWISE": best(lambda: kernel["*"]([S, S], {})) / S.nnz,
        "CSR_CALL": best(lambda: kernel["*"]([tiny, tiny], {}), 500),
        "SAMPLED_PRODUCT": (many - few) / 32,
        "SAMPLED_CELL": few - (many - few) / 8,
        "STRIDED": (best(lambda: X.T + X) - best(lambda: X + X)) / X.size,
        "SORT": best(lambda: np.argsort(column[:, 0], kind="stable")) / column.size / np.log2(column.size),
        "PLAIN_CELL": cellwise("+", 1.0),
        "exp": cellwise("exp"),
        "log": cellwise("log"),
        "^": cellwise("^", 2.3),
        "%%": cellwise("%%", 0.7),
    }


if __name__ == "__main__":
    with threadpool_limits(1):
        for name, seconds in measured().items():
            in_force = cost.CELL[name] if name in cost.CELL else getattr(cost if hasattr(cost, name) else scans, name)
            mark = "   <- differs" if not 0.5 < seconds / in_force < 2 else ""
            print(f"{name:16} {seconds * 1e9:10.2f} ns   in force {in_force * 1e9:10.2f} ns{mark}")
