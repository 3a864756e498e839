"""Sharded training equals one process, and no worker holds more than its part. One gang trains them all."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from braidwater.blocks.windows import RowForm
from braidwater.encoding.design import NumberTerm, design_of
from braidwater.engines import LocalEngine
from braidwater.engines.local.gang import run_gang
from braidwater.errors import OptionError, UnsupportedError
from braidwater.parallel import Data, Sharded, Single, Training
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.sharded import ShardedReplica
from braidwater.testing.strategies import uneven_store

WIDTH, ROWS = 12, 203


def squared_error(output, target):
    return (output - target) ** 2


def adamw(module):
    return torch.optim.AdamW(module.parameters(), lr=0.01)


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        self.other.weight = self.one.weight

    def forward(self, features):
        return self.head(torch.tanh(self.other(torch.tanh(self.one(features)))))


class Attention(nn.Module):
    """Layers whose weights are read by the layer around them."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, features):
        return self.head(self.encoder(features.reshape(-1, 3, 4)).flatten(1))


def perceptron():
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Sequential(nn.Linear(16, 16), nn.Tanh()), nn.Linear(16, 1))


def training(module, **changes):
    names = [f"x{place}" for place in range(WIDTH)]
    form = RowForm(design_of([NumberTerm(tuple(names), 0)], names, label="y", weight="w"), dtype="float64")
    torch.manual_seed(0)
    settings = {"target": "number", "epochs": 2, "batch_size": 32, "precision": "float64", "clip_norm": 0.3}
    return Training(module(), squared_error, adamw, form, **{**settings, **changes})


def rows():
    random = np.random.default_rng(1)
    columns = {f"x{place}": random.standard_normal(ROWS) for place in range(WIDTH)}
    label = np.sin(columns["x0"]) + columns["x1"]
    store = uneven_store({**columns, "y": label, "w": random.uniform(0.5, 2.0, ROWS)}, (100, 90, 13))
    held_out = uneven_store({**{n: c[:9] for n, c in columns.items()}, "y": label[:9], "w": np.ones(9)}, (8, 1))
    return Data(store, held_out)


CASES = {
    "layers": (perceptron, Sharded(2, min_parameters=1), {}),
    "stage 2": (perceptron, Sharded(2, stage=2, min_parameters=1), {}),
    "one layer": (perceptron, Sharded(2), {}),
    "accumulated": (perceptron, Sharded(2, min_parameters=1), {"accumulate": 3}),
    "steps without rows": (perceptron, Sharded(2, min_parameters=1), {"batch_size": 1, "epochs": 1}),
    "best epoch": (perceptron, Sharded(2, min_parameters=1), {"patience": 1, "epochs": 3}),
    "tied": (Tied, Sharded(2, min_parameters=1), {}),
    "attention": (Attention, Sharded(2, min_parameters=1), {}),
}


def trained(member, case):
    module, strategy, changes = CASES[case]
    found = run_epochs(training(module, **changes), rows(), ShardedReplica(member, strategy, "float64"))
    return found.weights, [(record["loss"], record["validation_loss"]) for record in found.history]


def held(member):
    """The numbers that this worker keeps of a net, of its gradients and moments; and what it sends in a step."""
    replica = ShardedReplica(member, Sharded(2, min_parameters=1), "float64")
    learner = replica.learner(training(perceptron), 1)
    batch = next(iter_batches(member))
    learner.step(batch, 0, 0)
    parameters = list(learner.module.parameters())
    moments = [state["exp_avg"] for state in learner.optimizer.state.values()]
    kinds = (parameters, [p.grad for p in parameters], moments)
    return [sum(tensor.to_local().numel() for tensor in kind) for kind in kinds], replica.bytes_exchanged


def iter_batches(member):
    from braidwater.blocks.mini_batches import MiniBatches

    return MiniBatches(rows().rows, training(perceptron).form, batch_size=32, rank=member.rank, size=2).epoch(0)


def in_bf16(member):
    """Losses of a net with batch normalisation, whose statistics are float32."""
    module = lambda: nn.Sequential(nn.Linear(WIDTH, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))  # noqa: E731
    asked = training(module, precision="bf16", epochs=8)
    asked = replace(asked, form=replace(asked.form, dtype="float32"))
    found = run_epochs(asked, rows(), ShardedReplica(member, Sharded(2, min_parameters=1), "bf16"))
    return [record["loss"] for record in found.history], [str(w.dtype) for w in found.weights.values()]


@pytest.fixture(scope="module")
def gang():
    def member(told):
        return {case: trained(told, case) for case in CASES} | {"held": held(told), "bf16": in_bf16(told)}

    return run_gang(member, 2, timeout=60)


@pytest.mark.parametrize("case", CASES)
def test_it_equals_one_process(gang, case):
    module, _, changes = CASES[case]
    alone = Single().train(training(module, **changes), rows(), LocalEngine(1))
    weights, losses = gang[0][case]
    assert list(weights) == list(alone.weights)
    for name, expected in alone.weights.items():
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=1e-10, msg=name)
    np.testing.assert_allclose(losses, [(r["loss"], r["validation_loss"]) for r in alone.history], rtol=1e-10)
    assert gang[1][case][0] == {}, "one worker gathers the weights"


def test_a_worker_holds_its_part_and_sends_what_the_formula_says(gang):
    numbers = [p.numel() for p in perceptron().parameters()]
    for kept in zip(*(found["held"][0] for found in gang), strict=True):
        assert sum(kept) == sum(numbers)
        assert max(kept) < 0.6 * sum(numbers)
    ours = gang[0]["held"][0][0]
    # all parts are gathered twice, but for what belongs to the module itself: nothing here
    assert gang[0]["held"][1] == 8 * (2 * ours + sum(numbers)) + 8 * 0


def test_bf16_learns_and_keeps_float32_weights(gang):
    losses, kinds = gang[0]["bf16"]
    assert losses[-1] < 0.5 * losses[0]
    assert set(kinds) == {"torch.float32", "torch.int64"}


@pytest.mark.parametrize("options", [{"stage": 1}, {"workers": 0}, {"min_parameters": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(OptionError, match="is not possible"):
        Sharded(**options)


@pytest.mark.parametrize(("strategy", "changes"), [(Sharded(2, offload=True), {}), (Sharded(2), {"precision": "fp16"})])
def test_what_it_cannot_do_is_refused_before_a_worker_starts(strategy, changes):
    with pytest.raises(UnsupportedError):
        strategy.train(replace(training(perceptron, device="cpu"), **changes), rows(), None)
