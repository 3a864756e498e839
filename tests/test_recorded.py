"""Steps without autograd's bookkeeping: the bits are those of a loop that a person would write."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.blocks.windows import RowForm
from braidwater.deep.losses import LOSSES
from braidwater.deep.modules import CNN, MLP
from braidwater.deep.optimizers import OptimizerPlan
from braidwater.errors import LabelError
from braidwater.parallel import replay
from braidwater.parallel.base import Replica, Training
from braidwater.parallel.device import torch_threads
from braidwater.parallel.learner import Learner
from braidwater.parallel.recorded import WORTH_STEPS, Recorded

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 3 * WORTH_STEPS
PLAIN = {
    "MLP": lambda: MLP(9, 3, hidden=[8, 5]),
    "one layer": lambda: nn.Linear(9, 3),
    "CNN": lambda: CNN(9, 3, channels=[4]),
    "smooth, normalised": lambda: nn.Sequential(
        nn.Linear(9, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3), nn.Tanh()
    ),
    "views of the rows": lambda: nn.Sequential(nn.Unflatten(1, (3, 3)), nn.Linear(3, 3), nn.Flatten(), nn.Linear(9, 3)),
    "a weight used twice": lambda: nn.Sequential(*[nn.Linear(9, 9)] * 2, nn.Linear(9, 3)),
}


@pytest.fixture
def one_thread():
    with torch_threads(1):
        yield


class Own(nn.Module):
    """Does something else from its thirtieth call on, which no operation tells of."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(9, 3), 0

    def forward(self, rows):
        self.calls += 1
        return self.layer(rows) if self.calls < 30 else self.layer(rows.tanh())


class Half(nn.Sequential):
    """Has a layer that nothing goes through."""

    def forward(self, rows):
        return self[0](rows)


def _hooked():
    module = nn.Linear(9, 3)
    module.register_forward_hook(lambda module, rows, out: out * 2)
    return module


def _frozen():
    module = MLP(9, 3)
    module.head.bias.requires_grad_(False)
    return module


OTHERS = {
    "dropout": lambda: MLP(9, 3, dropout=0.5),
    "statistics": lambda: nn.Sequential(nn.BatchNorm1d(9), nn.Linear(9, 3)),
    "own": Own,
    "hook": _hooked,
    "in place": lambda: nn.Sequential(nn.Linear(9, 3), nn.ReLU(inplace=True)),
    "unused": lambda: Half(nn.Linear(9, 3), nn.Linear(9, 3)),
}


def _steps(sizes, kind, seed=0, steps=STEPS):
    random = np.random.default_rng(seed)
    for number in range(steps):
        rows = sizes[number % len(sizes)]
        label = random.integers(0, 3, rows) if kind == "class" else random.normal(size=(rows, 3)).astype(np.float32)
        yield random.normal(size=(rows, 9)).astype(np.float32), label


def _trained(module, loss, plan, steps):
    training = Training(module, LOSSES[loss].function, plan, RowForm(None), target=LOSSES[loss].target)
    learner, total = Learner(training, Replica(), STEPS), 0.0
    for number, (features, label) in enumerate(steps):
        rows = len(features)
        total += learner.step(MiniBatch(number, rows, rows, features, label, None), number, 0)[0]
    return learner, total


def _by_hand(module, loss, plan, steps):
    module, total = copy.deepcopy(module), 0.0
    optimizer = plan(module)
    for features, label in steps:
        optimizer.zero_grad()
        mean = LOSSES[loss].function.mean_of_rows(module(torch.from_numpy(features)), torch.from_numpy(label))
        mean.backward()
        optimizer.step()
        total += mean.item() * len(features)
    return module, total


def _same(learner, module):
    pairs = zip(learner.module.state_dict().values(), module.state_dict().values(), strict=True)
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(sorted(PLAIN)),
    st.sampled_from([("cross_entropy", "class"), ("mse", "number"), ("huber", "number")]),
    st.sampled_from(["sgd", "adam", "adamw", "rmsprop"]),
    st.sampled_from([(8,), (7, 8)]),
)
def test_recorded_steps_have_the_bits_of_a_loop_by_hand(net, loss, optimizer, sizes):
    torch.manual_seed(3)
    module, plan = PLAIN[net](), OptimizerPlan(optimizer, 0.01)
    learner, total = _trained(module, loss[0], plan, _steps(sizes, loss[1]))
    by_hand, wanted = _by_hand(module, loss[0], plan, _steps(sizes, loss[1]))
    assert _same(learner, by_hand)
    assert total == pytest.approx(wanted, rel=1e-12)
    assert [shape.believed for shape in learner._recorded._shapes.values()] == [True] * len(sizes)


@pytest.mark.parametrize("net", sorted(OTHERS))
def test_a_net_that_may_do_something_else_each_time_is_left_to_autograd(net):
    torch.manual_seed(3)
    module, plan = OTHERS[net](), OptimizerPlan("adamw", 0.01)
    torch.manual_seed(4)
    learner, _ = _trained(module, "cross_entropy", plan, _steps((8,), "class"))
    torch.manual_seed(4)
    by_hand, _ = _by_hand(module, "cross_entropy", plan, _steps((8,), "class"))
    assert _same(learner, by_hand)
    assert learner._recorded is None or not any(shape.believed for shape in learner._recorded._shapes.values())


def test_frozen_weights_stay_and_groups_have_their_rates():
    module, plan = _frozen(), OptimizerPlan("adam", 0.01, freeze=("layers.0.bias",), groups={"head.*": 0.1})
    learner, _ = _trained(module, "cross_entropy", plan, _steps((8,), "class"))
    by_hand, _ = _by_hand(module, "cross_entropy", plan, _steps((8,), "class"))
    assert _same(learner, by_hand)
    assert torch.equal(learner.module.head.bias, module.head.bias)
    assert any(shape.believed for shape in learner._recorded._shapes.values())


def test_a_class_without_an_output_is_named_after_recording_too():
    learner, _ = _trained(MLP(9, 3), "cross_entropy", OptimizerPlan("sgd"), _steps((8,), "class"))
    bad = MiniBatch(0, 8, 8, np.zeros((8, 9), np.float32), np.full(8, 3), None)
    with pytest.raises(LabelError, match="class number 3, but the module has 3 outputs"):
        learner.step(bad, STEPS, 0)


def _by_hand_and_recorded(mean, parameters, batches):
    """Losses and gradients of each of `batches`, by autograd and as they were recorded, in copies."""
    recorded = Recorded(mean, parameters)
    for features, target in batches:
        expected = mean(features, target)
        expected = [expected.detach(), *torch.autograd.grad(expected, parameters)]
        loss = recorded(features, target)
        yield expected, [loss.clone(), *(parameter.grad.clone() for parameter in parameters)], recorded


def _drawn(count, rows=8):
    return [(torch.randn(rows, 9), torch.randint(0, 3, (rows,))) for _ in range(count)]


def test_weights_that_are_laid_elsewhere_are_read_there():
    layer = nn.Linear(9, 3)
    steps = _by_hand_and_recorded(
        lambda rows, target: nn.functional.cross_entropy(layer(rows), target), [*layer.parameters()], _drawn(2 * STEPS)
    )
    for number, (expected, found, recorded) in enumerate(steps):
        assert all(map(torch.equal, expected, found))
        if number == STEPS:
            assert recorded._shapes[torch.Size([8, 9]), torch.Size([8])].believed
            for parameter in layer.parameters():
                parameter.data = torch.randn_like(parameter)


@pytest.mark.parametrize("what", ["one gradient for two weights", "too much to keep"])
def test_a_step_that_cannot_be_replayed_is_left_to_autograd(what, monkeypatch):
    if what == "too much to keep":
        monkeypatch.setattr(replay, "_MOST_BYTES", 500)
    weights, first, second = (nn.Parameter(torch.randn(*shape)) for shape in ((9, 3), (3,), (3,)))
    own = [weights, first, second] if what == "one gradient for two weights" else [weights, first]

    def mean(rows, target):
        return nn.functional.cross_entropy(rows @ weights + sum(own[1:]), target)

    steps = list(_by_hand_and_recorded(mean, own, _drawn(STEPS)))
    assert all(torch.equal(*pair) for expected, found, _ in steps for pair in zip(expected, found, strict=True))
    recorded = steps[-1][2]
    assert [shape.refused for shape in recorded._shapes.values()] == [True]


@pytest.mark.parametrize("what", ["loaded", "cleared"])
def test_moments_that_are_changed_from_outside_are_those_of_the_next_step(what):
    module, plan = MLP(9, 3), OptimizerPlan("adamw", 0.01)
    learner, _ = _trained(module, "cross_entropy", plan, _steps((8,), "class"))
    other = plan(by_hand := copy.deepcopy(learner.module))
    if what == "cleared":
        learner.optimizer.state.clear()
    else:
        earlier, _ = _trained(module, "cross_entropy", plan, _steps((8,), "class", seed=9))
        state = earlier.optimizer.state_dict()
        learner.load(learner.weights(), copy.deepcopy(state))
        other.load_state_dict(copy.deepcopy(state))
    for number, (features, label) in enumerate(_steps((8,), "class", seed=5, steps=3)):
        learner.step(MiniBatch(number, 8, 8, features, label, None), number, 0)
        other.zero_grad()
        nn.functional.cross_entropy(by_hand(torch.from_numpy(features)), torch.from_numpy(label)).backward()
        other.step()
    assert _same(learner, by_hand)
    assert learner.optimizer.state_dict()["state"][0]["step"] == (3 if what == "cleared" else STEPS + 3)


@pytest.mark.parametrize("layer", [nn.Dropout(0.2), nn.RReLU()], ids=["dropout", "a random slope"])
def test_what_draws_is_never_replayed_whatever_memory_holds(layer):
    """A mask that was left out would be what the memory of the last one still holds: the very bits, once."""
    module = nn.Sequential(nn.Linear(9, 6), layer, nn.Linear(6, 3)).train()
    recorded = Recorded(lambda x, y: nn.functional.cross_entropy(module(x), y), list(module.parameters()), [])
    for _ in range(STEPS):
        recorded(torch.randn(32, 9), torch.randint(0, 3, (32,)))
    (shape,) = recorded._shapes.values()
    assert shape.refused
    assert shape.replay is None
