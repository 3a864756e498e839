"""Scripts of DML whose turns and workers run as tasks of an engine, checked against the same in turns.

Worker processes import this, so it lies in a file of its own.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from braidwater import dml
from braidwater.dml.explain import Explanation
from braidwater.dml.interpreter.paramserv import tasks as requests
from braidwater.dml.interpreter.parfor import tasks as shares
from braidwater.engines import Engine

LOOP = """
source("twice.dml") as other
rows = function(matrix[double] X) return (matrix[double] A, double total) {
  A = matrix(0, nrow(X), 4); total = 0; shift = list(by = 0.5)
  parfor (i in 1:nrow(X), mode=WAY) {
    A[i, ] = other::twice(X[i, 1:4]) + as.scalar(shift["by"]) + rand(rows=1, cols=4)
    total += sum(X[i, ])
    if (i == 3) print("turn " + i)
  }
}
[A, total] = rows(X)
"""
TWICE = "twice = function(matrix[double] Y) return (matrix[double] Z) { Z = 2 * Y }\n"
NET = """
up = function(list[unknown] model, list[unknown] hyperparams, matrix[double] features, matrix[double] labels)
    return (list[unknown] g) {
  V = as.matrix(model["V"]); W = as.matrix(model["W"])
  H = tanh(features %*% V) * (rand(rows=nrow(features), cols=ncol(V)) < 0.8)
  e = H %*% W - labels
  g = list(V = t(features) %*% ((e %*% t(W)) * (1 - H ^ 2)), W = t(H) %*% e)
}
down = function(list[unknown] model, list[unknown] hyperparams, list[unknown] gradients) return (list[unknown] m) {
  m = list(V = as.matrix(model["V"]) - 0.001 * as.matrix(gradients["V"]),
           W = as.matrix(model["W"]) - 0.001 * as.matrix(gradients["W"]))
}
m = paramserv(model = list(V = V, W = matrix(0.1, 4, 1)), features = X, labels = rowSums(X), upd = "up", agg = "down", k = 4,
  epochs = 2, batchsize = 8, utype = "BSP", freq = "BATCH", mode = "WAY")
V = as.matrix(m["V"])
"""


def check_turns(engine: Engine, folder: Path) -> None:
    """Turns as tasks leave what turns one after the other do: cells, sums, random numbers, what they print."""
    (folder / "twice.dml").write_text(TWICE)
    (folder / "loop.dml").write_text(LOOP)
    X = np.random.default_rng(0).normal(
        size=(8, 20_000)
    )  # more than what travels with a task where files can be mapped
    text = (folder / "loop.dml").read_text()

    def ran(way: str, **more: Any) -> tuple[Any, list[str]]:
        shown: list[str] = []
        (folder / "loop.dml").write_text(text.replace("WAY", way))
        found = dml.run(folder / "loop.dml", {"X": X}, ["A", "total"], seed=1, show=shown.append, **more)
        return (found["A"], found["total"]), shown

    told = Explanation()
    (cells, total), shown = ran("REMOTE_SPARK", engine=engine, explain=told)
    (expected, added), printed = ran("TURNS")
    np.testing.assert_array_equal(cells, expected)
    assert (total, shown) == (added, printed)
    assert told.notes == [
        f"parfor in line 5, 8 turns, as tasks of {engine.name} ({engine.workers}): the script asks for it"
    ]


def check_training(engine: Engine) -> None:
    """Workers as tasks bring the server to the same model, in every bit, as workers in turns."""
    X = np.random.default_rng(1).normal(size=(64, 3000))
    inputs = {"X": X, "V": np.random.default_rng(2).normal(size=(3000, 4)) / 50}
    told = Explanation()
    found = dml.run(NET.replace("WAY", "REMOTE_SPARK"), inputs, ["V"], seed=1, engine=engine, explain=told)
    expected = dml.run(NET.replace("WAY", "TURNS"), inputs, ["V"], seed=1)
    np.testing.assert_array_equal(found["V"], expected["V"])
    assert told.notes == [
        f"paramserv in line 13, 4 workers, as tasks of {engine.name} ({engine.workers}): the script asks for it"
    ]


def share_that_dies(folder: str, share: Any) -> Any:
    """Turns whose process is killed before their end, once."""
    found = shares.run_share(share)
    _die_once(folder)
    return found


def request_that_dies(folder: str, training: str, site: Any, request: Any) -> Any:
    """Steps of a worker whose process is killed, once, in the middle of the training."""
    if request.number == 5:
        _die_once(folder)
    return requests.run_request(training, site, request)


def _die_once(folder: str) -> None:
    flag = Path(folder) / "died"
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
