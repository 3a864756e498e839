"""Layers in stages train to the weights of one process, whatever the schedule."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from braidwater.deep.modules import CNN, MLP
from braidwater.errors import OptionError, UnsupportedError
from braidwater.parallel import Pipeline
from braidwater.parallel.grid import Grid
from braidwater.parallel.model_replica import PIPELINE
from braidwater.parallel.pipeline import predict_bubble, predict_step_seconds
from braidwater.parallel.pipeline.replica import PipelineReplica
from braidwater.parallel.pipeline.split import balanced
from model_parallel import adam, alone, apart, data, in_gang, rows, training

WORKERS = 2


class Crossing(nn.Module):
    """Values that jump over stages: a residual, a size, a parameter used by itself; and what differs in evaluation."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.shift = nn.Parameter(torch.linspace(-1, 1, 8))
        self.head = nn.Linear(8, 3)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)

    def forward(self, x):
        rows = x.size(0)
        start = self.first(x).relu()
        found = self.third(self.second(start).view(rows, 2, 4).flatten(1).tanh() + self.shift)
        found = torch.add(found, start, alpha=0.5 * self.training)  # other in evaluation
        return self.head(self.frozen(found + start) * functional.hardtanh(x[:, :1]))


class Chain(nn.Module):
    """A forward pass that cannot be traced, and names its stages."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Linear(5, 3)])

    def pipeline_stages(self):
        return [f"blocks.{place}" for place in range(4)]

    def forward(self, x):
        if x.abs().sum() < 0:
            raise ValueError
        for block in self.blocks:
            x = block(x)
        return x


def deep(layers=4):
    return nn.Sequential(
        nn.Linear(6, 5), *(nn.Sequential(nn.Tanh(), nn.Linear(5, 5)) for _ in range(layers)), nn.Linear(5, 3)
    )


BY_HAND = Pipeline(micro_batches=3, schedule="interleaved", split=["1.1", "3.1", "4.1"])
CASES = {
    "1f1b": (training(lambda: MLP(6, 3, hidden=(8, 8)), clip_norm=0.1), Pipeline()),
    "gpipe, weights": (training(Crossing, weights=True, optimizer=adam), Pipeline(micro_batches=5, schedule="gpipe")),
    "interleaved": (training(deep, weights=True), BY_HAND),
    "zero bubble": (training(deep), Pipeline(micro_batches=2, schedule="zero_bubble")),
    "two stages a worker": (training(Crossing, clip_norm=0.1), Pipeline(schedule="zero_bubble", stages_per_worker=2)),
    "chain": (training(Chain), Pipeline(micro_batches=12)),
    "cnn": (training(lambda: CNN((2, 3), 3, channels=(4,))), Pipeline()),
    "computed twice": (training(lambda: MLP(6, 3, hidden=(8, 8)), recompute=["layers"]), Pipeline()),
    "float32": (training(deep, precision="float32"), Pipeline()),
}


def dropping():
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.4), nn.Tanh()) for _ in range(3)), nn.Linear(6, 3)
    )


RANDOM = {
    "cut early": (training(dropping), Pipeline(split=["1.0"])),
    "cut late": (training(dropping), Pipeline(split=["3"], schedule="gpipe")),
    "first half": (training(dropping, epochs=1), Pipeline(split=["1.0"])),
    "resumed": (training(dropping), Pipeline()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def found(folder):
    stores = data(rows(), rows(units=(9, 8)))
    cases = {name: (made, stores) for name, (made, _) in (CASES | RANDOM).items()}
    for name in ("first half", "resumed"):
        cases[name] = replace(cases[name][0], checkpoint=folder), stores
    plans = {name: strategy.plan(cases[name][0], stores) for name, (_, strategy) in (CASES | RANDOM).items()}
    plans["resumed"] = plans["first half"]

    def replica(member, name):
        return PipelineReplica(member, Grid({PIPELINE: WORKERS}), plans[name])

    return in_gang(WORKERS, replica, cases), alone({name: cases[name] for name in CASES})


@pytest.mark.parametrize("name", CASES)
def test_training_equals_one_process(found, name):
    parted, whole = found
    assert apart(parted[name], whole[name]) < (1e-6 if name == "float32" else 1e-10)


def test_random_numbers_do_not_depend_on_where_layers_are_cut(found):
    assert apart(found[0]["cut early"], found[0]["cut late"]) == 0


def test_a_resumed_training_is_the_one_that_was_not_stopped(found, folder):
    assert apart(found[0]["resumed"], found[0]["cut early"]) == 0
    plan = Pipeline().plan(replace(RANDOM["resumed"][0], checkpoint=folder), data(rows()))
    assert plan.begins == (1,)  # as in the checkpoint, and not where layers would be balanced


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.integers(1, 4))
def test_a_balanced_split_is_the_best_of_all(costs, stages):
    if len(costs) < stages:
        return

    def slowest(begins):
        bounds = [0, *begins, len(costs)]
        return max(sum(costs[a:b]) for a, b in itertools.pairwise(bounds))

    found = balanced(costs, stages)
    assert len(found) == stages - 1
    assert all(a < b for a, b in itertools.pairwise([0, *found, len(costs)]))
    best = min(slowest(begins) for begins in itertools.combinations(range(1, len(costs)), stages - 1))
    assert slowest(found) == pytest.approx(best)


def test_the_automatic_split_follows_the_time_of_layers():
    wide = training(
        lambda: nn.Sequential(
            nn.Linear(6, 4), nn.Linear(4, 2), nn.Linear(2, 900), nn.Linear(900, 900), nn.Linear(900, 3)
        )
    )
    plan = Pipeline().plan(wide, data(rows()))
    assert plan.names[plan.begins[0]] in "34"
    assert len(plan.stage_seconds) == 2


def test_the_bubble_is_the_idle_share_of_a_step():
    step = predict_step_seconds([1.0] * 4, micro_batches=8)
    assert predict_bubble(4, 8) == pytest.approx(1 - 8 / step)
    assert predict_bubble(4, 8, "zero_bubble") < predict_bubble(4, 8, "interleaved", 2) < predict_bubble(4, 8, "gpipe")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"schedule": "2f2b"}, "one of gpipe"),
        ({"split": "even"}, "list of layers"),
        ({"micro_batches": 0}, "at least 1"),
        ({"workers": 5}, "at least the 5 stages"),
        ({"stages_per_worker": 2}, "'interleaved' and 'zero_bubble' take more"),
        ({"schedule": "zero_bubble", "micro_batches": 5}, "a multiple of the 2 workers"),
    ],
)
def test_impossible_settings_are_refused(arguments, said):
    with pytest.raises(OptionError, match=said):
        Pipeline(**arguments)


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x) if x.sum() > 0 else -self.head(x)


def tied():
    made = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3))
    made[1].weight = made[0].weight
    return made


@pytest.mark.parametrize(
    ("made", "strategy", "error", "said"),
    [
        (training(Decides), Pipeline(), UnsupportedError, r"cannot follow.*Decides.*pipeline_stages\(\)"),
        (training(tied), Pipeline(split=["1"]), UnsupportedError, "shares weights"),
        (training(deep), Pipeline(7, micro_batches=7), OptionError, "at most 6.*0, 1.1"),
        (training(deep), Pipeline(micro_batches=13), OptionError, "at most 12"),
        (training(deep), Pipeline(split=["1.0"]), OptionError, "'1.0'.*a layer with parameters"),
        (training(deep), Pipeline(split=["0"]), OptionError, "without the first"),
        (training(deep, accumulate=2), Pipeline(), OptionError, "micro_batches"),
    ],
)
def test_what_cannot_be_cut_is_refused_before_workers_start(made, strategy, error, said):
    with pytest.raises(error, match=said):
        strategy.train(made, data(rows()), None)
