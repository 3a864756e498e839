"""Parallel loops of DML and its parameter server: in turns, on threads, in processes; and the constants of their plan.

python benchmarks/dml_parfor.py [--workers 2] [--rounds 3]

First what `interpreter/parfor/plan.py` takes for given, as it is here. Then loops: wall and CPU seconds (those of processes
too) are medians over the rounds, in which the ways come in turns. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from braidwater import dml
from braidwater.dml.explain import Explanation
from braidwater.dml.interpreter.parfor import plan
from harness import cpu_seconds

WAYS = ("TURNS", "THREADS", "PROCESSES", "")
LOOPS = {  # name: turns, rows and columns of X, a turn
    "large operators": (16, (1500, 400), "A[i, ] = colSums(exp(X * (i / 16)) / (1 + abs(X)))"),
    "products": (12, (600, 600), "Y = X + i\n  A[i, ] = colSums(abs((Y %*% t(X)) %*% X))"),
    "ten folds of logistic regression": (10, (4000, 20), """
  test = (seq(1, nrow(X)) %% 10) == (i - 1)
  B = multiLogReg(X=removeEmpty(target=X, margin="rows", select=1 - test),
                  Y=removeEmpty(target=(X[, 1] + X[, 2] > 0) + 1, margin="rows", select=1 - test),
                  icpt=0, tol=0.000001, reg=0.1, maxi=100, maxii=0, verbose=FALSE)
  A[i, 1] = sum(abs(B))"""),
    "small operators": (16, (40, 4), """
  s = 0
  for (j in 1:nrow(X)) { for (k in 1:20) s = s + as.scalar(X[j, 1]) * k }
  A[i, 1] = s"""),
}  # fmt: skip


PARAMSERV = """
up = function(list[unknown] model, list[unknown] hyperparams, matrix[double] features, matrix[double] labels)
    return (list[unknown] g) {
  V = as.matrix(model["V"]); H = tanh(features %*% V); e = H %*% as.matrix(model["W"]) - labels
  g = list(V = t(features) %*% ((e %*% t(as.matrix(model["W"]))) * (1 - H ^ 2)), W = t(H) %*% e)
}
down = function(list[unknown] model, list[unknown] hyperparams, list[unknown] gradients) return (list[unknown] m) {
  m = list(V = as.matrix(model["V"]) - 0.0001 * as.matrix(gradients["V"]),
           W = as.matrix(model["W"]) - 0.0001 * as.matrix(gradients["W"]))
}
model = list(V = matrix(0.01, ncol(X), 200), W = matrix(0.01, 200, 1))
model = paramserv(model = model, features = X, labels = rowSums(X), upd = "up", agg = "down", epochs = 4, batchsize = 500,
  utype = "UTYPE", freq = "BATCH", k = 4, mode = "WAY")
A = as.matrix(model["W"])
"""  # a net of one hidden layer: 40,000 rows, four workers


def run(script: str, inputs: dict[str, Any], workers: int) -> tuple[float, float, str]:
    """Wall and CPU seconds of a script, and what was planned."""
    told = Explanation()
    prepared = dml.compile(script, ["A"], threads=workers, seed=1, explain=told)
    wall, cpu = time.perf_counter(), cpu_seconds()
    prepared(inputs)
    return time.perf_counter() - wall, cpu_seconds() - cpu, next(iter(told.notes[-1:]), "")


def script_of(turns: int, columns: int, body: str, way: str) -> str:
    mode = f", mode={way}" if way else ""
    return f"A = matrix(0, {turns}, {columns})\nparfor (i in 1:{turns}, check=0{mode}) {{\n  {body}\n}}"


def loop(name: str, workers: int, rounds: int) -> None:
    """Print one loop's seconds each way."""
    turns, shape, body = LOOPS[name]
    compare(f"{name}, {turns} turns", lambda way: script_of(turns, shape[1], body, way), shape, workers, rounds)


def server(update: str, workers: int, rounds: int) -> None:
    """Print the seconds of a training by a parameter server each way."""

    def script(way: str) -> str:
        return PARAMSERV.replace("UTYPE", update).replace("WAY", way or "LOCAL")

    compare(f"paramserv, {update}, 4 workers", script, (40_000, 100), workers, rounds)


def compare(title: str, script: Callable[[str], str], shape: tuple[int, int], workers: int, rounds: int) -> None:
    """Print a script's seconds each way, and the plan beside them."""
    inputs = {"X": np.random.default_rng(0).normal(size=shape)}
    found: dict[str, list[tuple[float, float, str]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(run(script(way), inputs, workers))
    print(f"\n{title}")
    alone = statistics.median(wall for wall, _, _ in found["TURNS"])
    for way in WAYS:
        wall, cpu = (statistics.median(each[place] for each in found[way]) for place in (0, 1))
        print(f"  {way or 'as planned':12}{wall:8.3f} s  CPU {cpu:7.3f} s  {alone / wall:5.2f} times as fast")
    print(f"  {found[''][-1][2]}")


def constants(workers: int, rounds: int) -> dict[str, float]:
    """What the constants of the plan are here."""
    nothing, small = "A[i, 1] = i", LOOPS["small operators"]
    large = {"X": np.ones((1000, 10_000))}
    reads = "A[i, 1] = as.scalar(X[i, 1])"

    def wall(body: str, way: str, inputs: dict[str, Any]) -> float:
        return min(run(script_of(4, 1, body, way), inputs, workers)[0] for _ in range(rounds))

    first = run(script_of(4, 1, nothing, "PROCESSES"), {}, workers)[0]
    more, turns, threads = (wall(nothing, way, {}) for way in ("PROCESSES", "TURNS", "THREADS"))
    sent = wall(reads, "PROCESSES", large) - wall(reads, "PROCESSES", {"X": np.ones((4, 4))})
    shape, inputs = small[1], {"X": np.ones(small[1])}
    contended = [run(script_of(small[0], shape[1], small[2], way), inputs, workers) for way in ("TURNS", "THREADS")]
    return {
        "FIRST_PROCESSES": first - turns,
        "MORE_PROCESSES": more - turns,
        "THREADS": threads - turns,
        "SENT": sent / large["X"].nbytes / workers,
        "CONTENDED": contended[1][0] / contended[0][1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(LOOPS), help="loops to run")
    given = parser.parse_args()
    print(f"{'constant':18}{'in force':>10}{'here':>10}")
    for name, seconds in constants(given.workers, given.rounds).items():
        print(f"{name:18}{getattr(plan, name):10.2g}{seconds:10.2g}")
    for name in given.only:
        loop(name, given.workers, given.rounds)
    for update in ("BSP", "ASP"):
        server(update, given.workers, given.rounds)


if __name__ == "__main__":
    main()
