"""The parameter server: the same training in turns, on threads and in processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from braidwater import dml
from braidwater.dml.explain import Explanation
from braidwater.dml.interpreter.parfor.measure import Measured, Trials
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

# What SystemDS 3.4.0 finds for this net, mode LOCAL: of the second layer both weights, of the first a weighted sum and the sum of
# squares. Where workers go on with a model of their own it frees gradients that it has still to add up, unless the aggregation
# takes its time; there it was given 8000 sines to add up. Its random orders are its own, which batches of all rows do not
# depend on.
SYSTEMDS = """
gradients = function(list[unknown] model, list[unknown] hyperparams, matrix[double] features, matrix[double] labels)
    return (list[unknown] gradients) {
  A = as.matrix(model[1]); B = as.matrix(model[2])
  H = tanh(features %*% A)
  e = H %*% B - labels
  gradients = list(t(features) %*% ((e %*% t(B)) * (1 - H ^ 2)), t(H) %*% e)
}
aggregation = function(list[unknown] model, list[unknown] hyperparams, list[unknown] gradients)
    return (list[unknown] model_new) {
  rate = as.double(as.scalar(hyperparams["rate"]))
  model_new = list(as.matrix(model[1]) - rate * as.matrix(gradients[1]),
                   as.matrix(model[2]) - rate * as.matrix(gradients[2]))
}
X = sin(matrix(seq(1, 248), 62, 4) * 1.7)
y = X[, 1] - X[, 2] * X[, 3]
m = paramserv(model=list(cos(matrix(seq(1, 8), 4, 2)), matrix("0.5 -0.25", 2, 1)), features=X, labels=y, upd="gradients",
  agg="aggregation", mode="LOCAL", epochs=3, hyperparams=list(rate=0.01), OPTIONS)
A = as.matrix(m[1])
B = as.matrix(m[2])
found = cbind(t(B), matrix(sum(A * cos(matrix(seq(3, 10), 4, 2))), 1, 1), matrix(sum(A ^ 2), 1, 1))
"""
FOUND = [
    ('utype="BSP", freq="BATCH", k=4, batchsize=8, scheme="DISJOINT_CONTIGUOUS"',
     (0.4311444814461835, -0.6563908444587826, -1.8148712649622307, 3.5600934864561236)),
    ('utype="BSP", freq="BATCH", k=4, batchsize=8, scheme="DISJOINT_ROUND_ROBIN"',
     (0.43064760452349016, -0.6572248764344275, -1.8144869343282493, 3.5603124265487613)),
    ('utype="BSP", freq="EPOCH", k=4, batchsize=8, scheme="DISJOINT_CONTIGUOUS"',
     (0.4273997161057028, -0.6724571047325708, -1.8195027007756008, 3.5614958981642197)),
    ('utype="BSP", freq="EPOCH", k=3, batchsize=8, scheme="DISJOINT_ROUND_ROBIN"',
     (0.4301327931765219, -0.6677323822881822, -1.820186607372655, 3.5628351120379356)),
    ('utype="BSP", freq="NBATCHES", nbatches=2, k=3, batchsize=8, scheme="DISJOINT_CONTIGUOUS"',
     (0.43194887103607044, -0.6544768530973911, -1.8114935569562471, 3.559057455174636)),
    ('utype="BSP", freq="NBATCHES", nbatches=2, k=3, batchsize=8, scheme="DISJOINT_ROUND_ROBIN"',
     (0.43051004798295794, -0.6558166383469415, -1.8118412587885675, 3.5578466882144117)),
    ('utype="BSP", freq="BATCH", k=4, batchsize=8, modelAvg=TRUE',
     (0.4681110632859633, -0.39272111446726254, -1.7216412555763145, 3.4863617048168902)),
    ('utype="BSP", freq="EPOCH", k=4, batchsize=8, modelAvg=TRUE, scheme="DISJOINT_ROUND_ROBIN"',
     (0.4685034467872793, -0.39287573117291225, -1.7226511187225708, 3.4866147503040934)),
    ('utype="BSP", freq="NBATCHES", nbatches=2, k=3, batchsize=8, modelAvg=TRUE',
     (0.4615497405015069, -0.43105727247801096, -1.7356759993530146, 3.4954025286638664)),
    ('utype="ASP", freq="BATCH", k=1, batchsize=10',
     (0.43476584809066837, -0.6428861428145035, -1.8059026180625668, 3.5581734546124686)),
    ('utype="ASP", freq="EPOCH", k=1, batchsize=10',
     (0.43476584809066837, -0.6428861428145034, -1.8059026180625668, 3.5581734546124695)),
    ('utype="ASP", freq="NBATCHES", nbatches=3, k=1, batchsize=10',
     (0.4347658480906684, -0.6428861428145034, -1.8059026180625668, 3.5581734546124686)),
    ('utype="SBP", num_backup_workers=0, freq="BATCH", k=4, batchsize=8',
     (0.4311444814461835, -0.6563908444587826, -1.8148712649622307, 3.5600934864561236)),
    ('utype="BSP", freq="BATCH", k=3, batchsize=64, scheme="OVERLAP_RESHUFFLE"',
     (0.35077168216668564, -0.804635773459432, -1.8493093429152774, 3.475991791770802)),
    ('utype="BSP", freq="EPOCH", k=4, batchsize=64, scheme="DISJOINT_RANDOM"',
     (0.426920725836047, -0.6782496636912649, -1.8214114203898342, 3.5624744347284043)),
    ('utype="BSP", freq="BATCH", k=2, batchsize=64, modelAvg=TRUE, scheme="OVERLAP_RESHUFFLE"',
     (0.426920725836047, -0.6782496636912649, -1.8214114203898342, 3.5624744347284043)),
    ('utype="SBP", num_backup_workers=0, freq="EPOCH", k=4, batchsize=8, modelAvg=TRUE',
     (0.46794396440984115, -0.3925510248966292, -1.721472471021705, 3.486162744489339)),
]  # fmt: skip


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


@pytest.mark.parametrize(("options", "expected"), FOUND, ids=[options for options, _ in FOUND])
def test_a_training_finds_what_systemds_finds(options: str, expected: tuple[float, ...]) -> None:
    np.testing.assert_allclose(ran(SYSTEMDS, options, ["found"])["found"][0], expected, rtol=1e-12)


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


@pytest.mark.parametrize(("large", "way"), [(1.0, "on threads (3)"), (0.0, "in processes (3)")])
def test_workers_run_at_the_same_time_where_that_is_estimated_to_be_faster(
    large: float, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a training: what was sent before is not lost, and the bits are those of turns."""
    options = 'utype = "BSP", freq = "BATCH"'
    turns = ran(NET, f'{options}, mode = "TURNS"', ["A", "B"])
    monkeypatch.setattr(Trials, "enough", property(lambda trials: trials.count >= 2))
    monkeypatch.setattr(Trials, "measured", Measured(10.0, 10.0, large))
    found = ran(NET, options, ["A", "B"])
    assert f"{way}: estimated in turns" in found["notes"][-1]
    np.testing.assert_array_equal(found["A"], turns["A"])
    np.testing.assert_array_equal(found["B"], turns["B"])


def test_workers_whose_steps_are_short_run_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trials, "enough", property(lambda trials: trials.count >= 2))
    monkeypatch.setattr(Trials, "measured", Measured(0.001, 0.001, 0.99))
    assert "3 workers, in turns" in ran(NET, 'utype = "BSP", freq = "BATCH"', ["A"])["notes"][-1]


def test_more_backup_workers_than_workers_are_refused() -> None:
    with pytest.raises(DMLError, match="num_backup_workers=3 is not possible"):
        ran(NET, 'utype = "SBP", num_backup_workers = 3', ["A"])
