"""The parameter server: the same training in turns, on threads and in processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from braidwater import dml
from braidwater.dml.explain import Explanation
from braidwater.errors import DMLError, DMLStopped

MODES = ("TURNS", "THREADS", "PROCESSES")
ROWS, WORKERS = 30, 3

# A net of one hidden layer with dropout, so that what a worker computes depends on its rows, its model and its random numbers.
NET = """
up = function(list[unknown] model, list[unknown] hyperparams, matrix[double] features, matrix[double] labels)
    return (list[unknown] g) {
  A = as.matrix(model["A"]); B = as.matrix(model["B"])
  H = tanh(features %*% A) * (rand(rows=nrow(features), cols=ncol(A)) < 0.8)
  e = (H %*% B - labels) / nrow(features)
  g = list(A = t(features) %*% ((e %*% t(B)) * (1 - H ^ 2)), B = t(H) %*% e)
  if (sum(labels) == 0) stop("labels are gone")
}
down = function(list[unknown] model, list[unknown] hyperparams, list[unknown] gradients) return (list[unknown] m) {
  rate = as.scalar(hyperparams["rate"])
  m = list(A = as.matrix(model["A"]) - rate * as.matrix(gradients["A"]),
           B = as.matrix(model["B"]) - rate * as.matrix(gradients["B"]))
}
m = paramserv(model = list(A = A, B = B), features = X, labels = y, upd = "up", agg = "down", epochs = 3, k = 3,
  batchsize = 4, hyperparams = list(rate = 0.05), OPTIONS)
A = as.matrix(m["A"]); B = as.matrix(m["B"])
"""
# Counts the rows that workers bring, the updates and, by rows of ones and noughts, how often each row was brought.
COUNT = """
up = function(list[unknown] model, list[unknown] hyperparams, matrix[double] features, matrix[double] labels)
    return (list[unknown] g) { print("batch " + sum(labels)); g = list(t(colSums(features))) }
down = function(list[unknown] model, list[unknown] hyperparams, list[unknown] gradients) return (list[unknown] m) {
  m = list(seen = as.matrix(model[1]) + as.matrix(gradients[1]), updates = as.scalar(model[2]) + 1) }
m = paramserv(model = list(seen = matrix(0, ncol(X), 1), updates = 0.0), features = X, labels = y, upd = "up", agg = "down",
  k = 3, OPTIONS)
seen = as.matrix(m["seen"]); updates = as.scalar(m["updates"])
"""


def ran(script: str, options: str, outputs: list[str], **given: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, 5))
    inputs = {"X": X, "y": X[:, :1] - X[:, 1:2], "A": rng.normal(size=(5, 4)), "B": rng.normal(size=(4, 1))}
    script = script.replace("OPTIONS", options)
    inputs = {name: value for name, value in (inputs | given).items() if name in script.replace(",", " ")}
    found = dml.run(
        script, inputs, outputs, seed=5, threads=WORKERS, explain=(told := Explanation()), show=lambda _: None
    )
    return {name: found[name] for name in outputs} | {"notes": told.notes}


@pytest.mark.parametrize(
    "options",
    [
        'freq = "BATCH"',
        'freq = "EPOCH", scheme = "DISJOINT_RANDOM"',
        'freq = "NBATCHES", nbatches = 2, scheme = "OVERLAP_RESHUFFLE"',
        'freq = "EPOCH", scheme = "DISJOINT_ROUND_ROBIN", modelAvg = TRUE',
    ],
)
def test_workers_that_wait_for_each_other_give_the_same_bits_wherever_they_run(options: str) -> None:
    turns, threads, processes = (ran(NET, f'utype = "BSP", mode = "{mode}", {options}', ["A", "B"]) for mode in MODES)
    assert threads["notes"][-1].endswith("on threads (3): the script asks for it")
    assert processes["notes"][-1].endswith("in processes (3): the script asks for it")
    for name in "AB":
        np.testing.assert_array_equal(threads[name], turns[name])
        np.testing.assert_array_equal(processes[name], turns[name])


@pytest.mark.parametrize("mode", MODES)
def test_workers_that_do_not_wait_bring_every_row_once_an_epoch(mode: str) -> None:
    """A column for each row, which is 1 in it: sums of rows tell how often each was brought."""
    options = f'utype = "ASP", freq = "BATCH", batchsize = 4, epochs = 5, mode = "{mode}"'
    found = ran(COUNT, options, ["seen", "updates"], X=np.eye(ROWS), y=np.ones((ROWS, 1)))
    np.testing.assert_array_equal(found["seen"].ravel(), np.full(ROWS, 5.0))
    assert found["updates"] == 5 * WORKERS * 3  # ten rows a worker are three batches


@pytest.mark.parametrize("mode", MODES)
def test_a_server_with_backup_workers_takes_the_first_and_drops_the_late(mode: str) -> None:
    options = f'utype = "SBP", num_backup_workers = 1, freq = "BATCH", batchsize = 5, epochs = 6, mode = "{mode}"'
    found = ran(COUNT, options, ["seen", "updates"], X=np.eye(ROWS), y=np.ones((ROWS, 1)))
    batches = found["seen"].sum() / 5
    assert found["seen"].max() <= 6
    assert batches < 36  # of 12 a worker: the late ones are lost
    assert found["updates"] < batches <= 2 * found["updates"]  # two workers' batches each, until only one has any left


@pytest.mark.parametrize("mode", MODES)
def test_the_error_of_a_worker_is_that_of_the_training(mode: str) -> None:
    with pytest.raises(DMLStopped, match="labels are gone"):
        ran(NET, f'utype = "ASP", mode = "{mode}"', ["A"], y=np.zeros((ROWS, 1)))


def test_workers_run_at_the_same_time_where_that_is_estimated_to_be_faster() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(2400, 600))
    script = COUNT.replace("t(colSums(features))", "t(colSums(exp(features %*% t(features)) %*% tanh(features)))")
    options = 'utype = "BSP", freq = "BATCH", batchsize = 400, epochs = 4'
    found = ran(script, options, ["updates"], X=X, y=np.ones((2400, 1)))
    assert "on threads (3): estimated in turns" in found["notes"][-1]
    small = ran(COUNT, options, ["updates"], X=np.eye(ROWS), y=np.ones((ROWS, 1)))
    assert "in turns" in small["notes"][-1]


def test_more_backup_workers_than_workers_are_refused() -> None:
    with pytest.raises(DMLError, match="num_backup_workers=3 is not possible"):
        ran(NET, 'utype = "SBP", num_backup_workers = 3', ["A"])
