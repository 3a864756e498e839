"""Elastic averaging of four workers: the fixed points and rates of the paper (Zhang, Choromanska and LeCun 2015)."""

from dataclasses import replace
from functools import partial
from math import sqrt

import numpy as np
import pytest
import torch

from braidwater.blocks.windows import RowForm
from braidwater.engines.local.gang import run_gang
from braidwater.errors import OptionError
from braidwater.parallel import Data, ElasticAveraging, Training
from braidwater.parallel.base import Replica
from braidwater.parallel.elastic_averaging import ElasticReplica, ServedCentre, SharedCentre
from braidwater.parallel.loop import mini_batches, run_epochs
from braidwater.testing.strategies import _design, uneven_store

WORKERS = 4
RATE, ALPHA = 0.1, 0.9 / WORKERS
ROWS = 400
RANDOM = np.random.default_rng(0)
NOISE = Data(uneven_store({"x0": np.zeros(ROWS), "y": RANDOM.normal(3, 1, ROWS)}, (ROWS,)))
ZEROS = Data(uneven_store({"x0": np.zeros(ROWS), "y": np.zeros(ROWS)}, (ROWS,)))


class Point(torch.nn.Module):
    """One number, the same for every row."""

    def __init__(self):
        super().__init__()
        self.x = torch.nn.Parameter(torch.ones(1))

    def forward(self, features):
        return self.x.expand(len(features))


def half_square(output, target):
    return (output - target) ** 2 / 2


def sgd(module, rate=RATE, momentum=0.0):
    return torch.optim.SGD(module.parameters(), rate, momentum, nesterov=momentum > 0)


TRAINING = Training(
    Point(), half_square, sgd, RowForm(_design(1), dtype="float64"), target="number", batch_size=8, precision="float64"
)
STEPS = ROWS // TRAINING.batch_size


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One gang, many trainings: where the centre ended, and what the learner held after it."""
    folder = str(tmp_path_factory.mktemp("checkpoints"))

    def member(told):
        results = {}

        def train(name, every, data, training=TRAINING, served=False):
            centre = ServedCentre(told, name.encode(), ALPHA, 60.0) if served else SharedCentre(told.size, ALPHA)
            centre._name = name
            replica = ElasticReplica(told, every, centre)
            trained = run_epochs(training, data, replica, strategy=name)
            results[name] = float(trained.weights["x"]), replica.bytes_exchanged, [r["loss"] for r in trained.history]

        train("zeros", 1, ZEROS)
        train("fast", 1, ZEROS, replace(TRAINING, optimizer=partial(sgd, rate=1.9)))
        train("noise", 3, NOISE, replace(TRAINING, epochs=2))
        kept = replace(TRAINING, epochs=2, checkpoint=folder, checkpoint_every=16)
        train("resumed", 3, NOISE, replace(kept, epochs=1))
        train("resumed", 3, NOISE, kept)
        train("momentum", 3, NOISE, replace(TRAINING, optimizer=partial(sgd, rate=0.02, momentum=0.9), epochs=8))
        train("asynchronous", 3, NOISE, replace(TRAINING, epochs=6), served=True)
        return results

    return run_gang(member, WORKERS)


def centre_of_lemma(steps, rate):
    """Where the centre of the quadratic ``x^2 / 2`` is after `steps` steps from 1, by lemma 3.1 of the paper."""
    a, c2 = rate + (WORKERS + 1) * ALPHA, rate * WORKERS * ALPHA
    gamma, phi = 1 - (a - sqrt(a * a - 4 * c2)) / 2, 1 - (a + sqrt(a * a - 4 * c2)) / 2
    u = WORKERS * (1 - ALPHA / (1 - WORKERS * ALPHA - phi))
    return gamma**steps + (gamma**steps - phi**steps) / (gamma - phi) * ALPHA * u


def test_the_centre_moves_as_the_lemma_says(found):
    """The exchange after the last step is that of the next one in the paper, which exchanges before it steps."""
    assert found[0]["zeros"][0] == pytest.approx(centre_of_lemma(STEPS + 1, RATE), rel=1e-9)


def test_it_is_stable_where_the_lemma_is(found):
    """Plain SGD at this rate swings to and fro; a worker on a leash is past its bound and runs away."""
    assert abs(centre_of_lemma(STEPS, 1.9)) > 1e3
    assert found[0]["fast"][0] == pytest.approx(centre_of_lemma(STEPS + 1, 1.9), rel=1e-9)


def by_hand(every, epochs):
    """The same on rows that differ from worker to worker."""
    batches = []
    for rank in range(WORKERS):
        replica = Replica()
        replica.data_rank, replica.data_size = rank, WORKERS
        batches.append(mini_batches(TRAINING, NOISE, replica))
    x, centre, pull, step, since = np.ones(WORKERS), 1.0, np.zeros(WORKERS), 0, 0
    for epoch in range(epochs):
        for four in zip(*(own.epoch(epoch) for own in batches), strict=True):
            x = x - RATE * (x - [batch.labels.mean() for batch in four]) - pull
            pull, step, since = np.zeros(WORKERS), step + 1, since + 1
            if step % every == 0:
                pull, since = ALPHA * (x - centre), 0
                centre += pull.sum()
        x, pull = x - pull, np.zeros(WORKERS)
        if since:
            pull = ALPHA * (x - centre)
            x, centre, pull, since = x - pull, centre + pull.sum(), np.zeros(WORKERS), 0
    return centre


def test_workers_with_rows_of_their_own_draw_the_centre_as_the_algorithm_says(found):
    assert found[0]["noise"][0] == pytest.approx(by_hand(3, 2), rel=1e-12)


def test_all_workers_see_the_same_centre(found):
    assert [own["noise"][0] for own in found] == [found[0]["noise"][0]] * WORKERS
    assert len({own["asynchronous"][0] for own in found}) == 1


def test_training_goes_on_from_a_checkpoint_to_the_same_centre(found):
    assert found[0]["resumed"][0] == found[0]["noise"][0]


@pytest.mark.parametrize("name", ["noise", "momentum", "asynchronous"])
def test_the_centre_comes_to_the_minimum(found, name):
    centre, _, losses = found[0][name]
    assert centre == pytest.approx(float(np.mean(NOISE.rows.read(0)["y"])), abs=0.2)
    assert losses[-1] < 0.7 * losses[0]


def test_weights_are_sent_once_every_so_many_steps(found):
    assert found[0]["noise"][1] == (16 + 1 + 17 + 1) * 8, "in both epochs, and at their ends"


@pytest.mark.parametrize("options", [{"every": 0}, {"moving_rate": 0.0}, {"moving_rate": 1.5}, {"workers": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(OptionError):
        ElasticAveraging(**options)


def test_who_waits_for_nobody_says_that_it_cannot_be_repeated():
    assert ElasticAveraging().reproducible
    assert not ElasticAveraging(asynchronous=True).reproducible
