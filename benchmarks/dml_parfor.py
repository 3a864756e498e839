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
from dataclasses import replace
from typing import Any

import numpy as np

from braidwater import dml
from braidwater.dml.interpreter.paramserv import crew
from braidwater.dml.interpreter.parfor import loop as loops
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
  MORE
  g = list(V = t(features) %*% ((e %*% t(as.matrix(model["W"]))) * (1 - H ^ 2)), W = t(H) %*% e)
}
down = function(list[unknown] model, list[unknown] hyperparams, list[unknown] gradients) return (list[unknown] m) {
  m = list(V = as.matrix(model["V"]) - 0.0001 * as.matrix(gradients["V"]),
           W = as.matrix(model["W"]) - 0.0001 * as.matrix(gradients["W"]))
}
model = list(V = matrix(0.01, ncol(X), HIDDEN), W = matrix(0.01, HIDDEN, 1))
model = paramserv(model = model, features = X, labels = rowSums(X), upd = "up", agg = "down", epochs = EPOCHS,
  batchsize = BATCH, utype = "UTYPE", freq = "BATCH", k = 4, mode = "WAY")
A = as.matrix(model["W"])
"""  # a net of one hidden layer, four workers
NETS = {  # name: rows and columns of X, hidden units, rows of a batch, epochs, what else a worker does
    "a small net": ((4000, 20), 10, 50, 12, ""),
    "a large net": ((40_000, 100), 200, 500, 4, ""),
    "a wide net": ((8000, 784), 400, 100, 2, ""),
    "a net beside loops of numbers": ((400, 20), 10, 50, 12, """s = 0
  for (j in 1:nrow(features)) { for (k in 1:8) s = s + as.scalar(features[j, 1]) * k }"""),
}  # fmt: skip
PLANNED: list[tuple[plan.Work, plan.Workers, plan.ParforPlan]] = []  # the last one last


def _choose(work: plan.Work, workers: plan.Workers, wanted: plan.Way | None) -> plan.ParforPlan:
    PLANNED.append((work, workers, plan.choose(work, workers, wanted)))
    return PLANNED[-1][-1]


loops.choose = crew.choose = _choose  # EXPLAIN would tell too, but takes time of its own


def foreseen(turns: int) -> dict[str, float]:
    """The seconds of each way that the last plan has foreseen, for so many turns instead of those that were left."""
    work, workers, _ = PLANNED[-1]
    return plan.estimated(replace(work, turns=turns), workers)


def run(script: str, inputs: dict[str, Any], workers: int) -> tuple[float, float]:
    """Wall and CPU seconds of a script."""
    prepared = dml.compile(script, ["A"], threads=workers, seed=1)
    wall, cpu = time.perf_counter(), cpu_seconds()
    prepared(inputs)
    return time.perf_counter() - wall, cpu_seconds() - cpu


def script_of(turns: int, columns: int, body: str, way: str) -> str:
    mode = f", mode={way}" if way else ""
    return f"A = matrix(0, {turns}, {columns})\nparfor (i in 1:{turns}, check=0{mode}) {{\n  {body}\n}}"


def loop(name: str, workers: int, rounds: int) -> None:
    """Print one loop's seconds each way."""
    turns, shape, body = LOOPS[name]
    compare(f"{name}, {turns} turns", turns, lambda way: script_of(turns, shape[1], body, way), shape, workers, rounds)


def server(name: str, update: str, workers: int, rounds: int) -> None:
    """Print the seconds of a training by a parameter server each way."""
    shape, hidden, batch, epochs, more = NETS[name]
    given = {"HIDDEN": hidden, "BATCH,": f"{batch},", "EPOCHS": epochs, "MORE": more, "UTYPE": update}

    def script(way: str) -> str:
        text = PARAMSERV.replace("WAY", way or "LOCAL")
        for key, value in given.items():
            text = text.replace(key, str(value))
        return text

    visits = epochs * 4 * -(-shape[0] // 4 // batch)
    compare(f"paramserv, {name}, {update}, 4 workers", visits, script, shape, workers, rounds)


def compare(
    title: str, turns: int, script: Callable[[str], str], shape: tuple[int, int], workers: int, rounds: int
) -> None:
    """Print a script's seconds each way, beside those that the plan has foreseen."""
    inputs = {"X": np.random.default_rng(0).normal(size=shape)}
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(run(script(way), inputs, workers))
    chosen, estimates = PLANNED[-1][-1].way, foreseen(turns)
    print(f"\n{title}: {chosen}")
    alone = statistics.median(wall for wall, _ in found["TURNS"])
    for way in WAYS:
        wall, cpu = (statistics.median(each[place] for each in found[way]) for place in (0, 1))
        expected = estimates[plan.MODES[way] if way else chosen]
        print(f"  {way or 'as planned':12}{wall:8.3f} s  foreseen {expected:7.3f} s  CPU {cpu:7.3f} s"
              f"{alone / wall:7.2f} times as fast")  # fmt: skip


def constants(workers: int, rounds: int) -> list[tuple[str, float, float]]:
    """The constants of the plan: name, in force, measured here."""
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
    few, many = message(10, workers, rounds), message(100_000, workers, rounds)
    processes = plan.PROCESSES
    return [
        ("PROCESSES.first", processes.first, first - turns),
        ("PROCESSES.again", processes.again, more - turns),
        ("PROCESSES.message", processes.message, few - (more - turns) / MESSAGES),
        ("PROCESSES.byte", processes.byte, (many - few) / 1.6e6),
        ("THREADS", plan.THREADS, threads - turns),
        ("SENT", plan.SENT, sent / large["X"].nbytes / workers),
        ("CONTENDED", plan.CONTENDED, contended[1][0] / contended[0][0]),
    ]


MESSAGES = 320


def message(cells: int, workers: int, rounds: int) -> float:
    """Seconds of a request with a model of so many cells that costs nothing else, and of its answer."""
    script = f"""
up = function(list[unknown] model, list[unknown] hyperparams, matrix[double] features, matrix[double] labels)
    return (list[unknown] g) {{ g = list(as.matrix(model[1])) }}
down = function(list[unknown] model, list[unknown] hyperparams, list[unknown] gradients) return (list[unknown] m) {{
  m = list(as.matrix(gradients[1])) }}
m = paramserv(model = list(matrix(0, 1, {cells})), features = X, labels = X, upd = "up", agg = "down", epochs = 20, k = 4,
  batchsize = 4, utype = "BSP", freq = "BATCH", mode = "WAY")
A = as.matrix(m[1])
"""  # of each worker 16 rows: 4 batches
    inputs = {"X": np.ones((64, 2))}
    turns, processes = (
        min(run(script.replace("WAY", way), inputs, workers)[0] for _ in range(rounds))
        for way in ("TURNS", "PROCESSES")
    )
    return (processes - turns) / MESSAGES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[*LOOPS, *NETS], help="loops and nets to run")
    given = parser.parse_args()
    print(f"{'constant':18}{'in force':>10}{'here':>10}")
    for name, in_force, here in constants(given.workers, given.rounds):
        print(f"{name:18}{in_force:10.2g}{here:10.2g}")
    for name in given.only:
        if name in LOOPS:
            loop(name, given.workers, given.rounds)
        else:
            for update in ("BSP", "ASP"):
                server(name, update, given.workers, given.rounds)


if __name__ == "__main__":
    main()
