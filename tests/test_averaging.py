"""Averaging after a warm-up, and DiLoCo: real workers do what the algorithms say, written by hand for one process."""

import copy
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from braidwater.deep import Trainer
from braidwater.deep.modules import MLP
from braidwater.engines.local.gang import run_gang
from braidwater.errors import OptionError
from braidwater.parallel import Averaging, Data, DiLoCo, Single
from braidwater.parallel.averaging import AveragingReplica
from braidwater.parallel.base import Replica
from braidwater.parallel.diloco import DiLoCoReplica
from braidwater.parallel.flat import flatten, spread
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import mini_batches, run_epochs
from braidwater.testing.strategies import _mlp_training, _points, _train, uneven_store

WORKERS = 2
PLAIN = DiLoCo(WORKERS, every=5)
STREAM = DiLoCo(WORKERS, every=6, fragments=2, delay=2, mixing=0.5)
FEW_ROWS = replace(_mlp_training(), batch_size=2, epochs=1)  # in one of 101 steps a worker has no row
TRAINING = replace(_mlp_training(), epochs=2)
STEPS = 26  # of both epochs


class Interrupted(Exception):  # noqa: N818
    pass


class Breaking(torch.nn.Module):
    """A squared error that fails in its `last`-th call."""

    def __init__(self, last):
        super().__init__()
        self.calls, self.last = 0, last

    def forward(self, output, target):
        self.calls += torch.is_grad_enabled()
        if self.calls == self.last:
            raise Interrupted
        return (output - target) ** 2


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One gang, many trainings: weights by name, and the bytes that worker 0 sent."""
    data = Data(uneven_store(_points()))
    folder = str(tmp_path_factory.mktemp("checkpoints"))

    def member(told):
        results = {}

        def train(name, training, replica):
            trained = run_epochs(training, data, replica, strategy=name)
            results[name] = trained.weights, replica.bytes_exchanged

        train("warm", TRAINING, AveragingReplica(told, 4, "local", 1000))
        train("warm, few rows", FEW_ROWS, AveragingReplica(told, 4, "local", 1000))
        train("half warm", TRAINING, AveragingReplica(told, 4, "local", 5))
        train("plain", TRAINING, DiLoCoReplica(told, PLAIN))
        train("stream", TRAINING, DiLoCoReplica(told, STREAM))
        train("like averaging", TRAINING, DiLoCoReplica(told, DiLoCo(2, 4, 1.0, 0.0)))
        train("averaging", TRAINING, AveragingReplica(told, 4, "local"))
        kept = replace(TRAINING, checkpoint=folder, checkpoint_every=7)
        with pytest.raises(Interrupted):  # a message is under way then, and at the checkpoint before
            train("resumed", replace(kept, loss=Breaking(9)), DiLoCoReplica(told, STREAM))
        train("resumed", kept, DiLoCoReplica(told, STREAM))
        return results

    return run_gang(member, WORKERS)


def by_hand(options):
    """The same rows, steps and exchanges, one worker after another."""
    data = Data(uneven_store(_points()))
    replicas, learners, batches = [], [], []
    for rank in range(WORKERS):
        replica = Replica()
        replica.rank, replica.data_rank, replica.data_size = rank, rank, WORKERS
        replicas.append(replica)
        learners.append(replica.learner(TRAINING, STEPS))
        batches.append(mini_batches(TRAINING, data, replica))
    names = [list(learner.module.parameters()) for learner in learners]
    parts = [slice(0, 4)] if options.fragments == 1 else [slice(0, 1), slice(1, 4)]
    assert len(names[0]) == 4
    common = [flatten(names[0][part]) for part in parts]
    momentum = [torch.zeros_like(flat) for flat in common]
    weights = np.zeros((len(parts), WORKERS))
    sent = {}

    def send(place):
        moved = sum(
            w * (common[place] - flatten(own[parts[place]])) for w, own in zip(weights[place], names, strict=True)
        )
        sent[place] = moved / weights[place].sum()
        weights[place] = 0

    def apply(place, mixing):
        moved = sent.pop(place)
        momentum[place] = options.outer_momentum * momentum[place] + moved
        common[place] = common[place] - options.outer_learning_rate * (moved + options.outer_momentum * momentum[place])
        for own in names:
            mixed = mixing * flatten(own[parts[place]]) + (1 - mixing) * common[place]
            spread(mixed, own[parts[place]])

    step = 0
    for epoch in range(TRAINING.epochs):
        for pair in zip(*(own.epoch(epoch) for own in batches), strict=True):
            for learner, batch, place in zip(learners, pair, range(WORKERS), strict=True):
                learner.step(batch, step, epoch)
                weights[:, place] += batch.rows
            step += 1
            for place in range(len(parts)):
                since = step - options.every * place // len(parts)
                if since > 0 and since % options.every == 0:
                    send(place)
                if place in sent and since % options.every == options.delay:
                    apply(place, options.mixing if options.delay else 0.0)
        for place in list(sent):
            apply(place, options.mixing)
        for place in range(len(parts)):
            if weights[place].sum():
                send(place)
                apply(place, 0.0)
            for own in names:
                spread(common[place], own[parts[place]])
    return copy.deepcopy(learners[0].module.state_dict())


def assert_close(one, other, bound=1e-10):
    for name, weights in other.items():
        assert float((one[name] - weights).abs().max()) < bound, name


def test_the_warm_up_is_all_reduce(found):
    assert_close(found[0]["warm"][0], _train(Single(), TRAINING, _points()).weights)
    assert_close(found[0]["warm, few rows"][0], _train(Single(), FEW_ROWS, _points()).weights)


def test_after_the_warm_up_workers_are_on_their_own(found):
    size = sum(weights.nbytes for weights in found[0]["averaging"][0].values())
    assert found[0]["averaging"][1] == 8 * size, "steps 4, 8 and 12 of 13, and the end, of both epochs"
    exchanges = 5 + 6  # the warm-up's gradients; after steps 9, 13 (an epoch's end), 17, 21, 25, and 26
    assert found[0]["half warm"][1] == exchanges * size


def test_all_workers_end_with_the_same_weights(found):
    for name, (weights, _) in found[0].items():
        assert_close(found[1][name][0], weights, 1e-15)


@pytest.mark.parametrize(("name", "options"), [("plain", PLAIN), ("stream", STREAM)])
def test_diloco_is_the_algorithm_of_the_paper(found, name, options):
    assert_close(found[0][name][0], by_hand(options))


def test_an_outer_step_of_rate_one_without_momentum_is_an_average(found):
    assert_close(found[0]["like averaging"][0], found[0]["averaging"][0])


def test_diloco_goes_on_from_a_checkpoint_with_a_message_under_way(found):
    for name, weights in found[0]["stream"][0].items():
        assert torch.equal(found[0]["resumed"][0][name], weights), name


def test_diloco_sends_the_weights_once_every_so_many_steps(found):
    size = sum(weights.nbytes for weights in found[0]["plain"][0].values())
    assert found[0]["plain"][1] == 7 * size, "after steps 5, 10, 13 (an epoch's end), 15, 20, 25 and 26, all at once"


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (DiLoCo, {"every": 0}),
        (DiLoCo, {"every": 4, "fragments": 5}),
        (DiLoCo, {"every": 4, "delay": 4}),
        (DiLoCo, {"outer_momentum": 1.0}),
        (DiLoCo, {"outer_learning_rate": 0.0}),
        (DiLoCo, {"mixing": 1.0}),
        (Averaging, {"warmup": -1}),
    ],
)
def test_impossible_settings_are_refused(strategy, options):
    with pytest.raises(OptionError):
        strategy(**options)


def test_more_fragments_than_parameters_are_refused_before_a_worker_starts():
    with pytest.raises(OptionError, match="at most 4"):
        _train(DiLoCo(every=9, fragments=5), TRAINING, _points())


@pytest.mark.parametrize("optimizer_state", ["local", "average", "reset"])
def test_a_plain_net_s_learner_goes_on_through_all_epochs_with_the_bits_of_new_ones(optimizer_state, monkeypatch):
    random = np.random.default_rng(0)
    rows = pa.table({"x": random.normal(size=300), "z": random.normal(size=300), "y": random.integers(0, 2, 300)})
    made, new = [], Learner.__init__
    monkeypatch.setattr(Learner, "__init__", lambda self, *given: made.append(self) or new(self, *given))

    def trained():
        made.clear()
        strategy = Averaging(1, optimizer_state=optimizer_state)
        trainer = Trainer(MLP, strategy=strategy, epochs=4, batch_size=7, optimizer="adam", seed=2)
        return trainer.fit(rows, label="y").module_.state_dict(), len(made)

    found, learners = trained()
    monkeypatch.setattr(Learner, "is_plain", False)
    expected, anew = trained()
    assert anew == learners + 3  # one an epoch instead of one for all
    assert all(torch.equal(weights, expected[name]) for name, weights in found.items())
