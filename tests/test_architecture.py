"""Architecture search: what nets a space holds, what they inherit, what a supernet shares, and whether it finds good ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.datasets import load_digits
from torch import nn

from architectures import pictures, plain, shared
from braidwater.deep import Trainer
from braidwater.deep.modules import MLP
from braidwater.errors import OptionError, UnsupportedError
from braidwater.model_selection import Choice, LogFloat, search
from braidwater.model_selection.architecture import (
    Architecture,
    Cell,
    Layer,
    OneOf,
    Optional,
    PathEvolution,
    Repeat,
    Residual,
    Supernet,
    blocks,
    evolve,
    inherit,
    morph,
    one_shot,
)
from braidwater.model_selection.architecture.evolution import PARENT, Heir
from braidwater.model_selection.architecture.recalibration import recalibrate
from braidwater.saving import load_model
from braidwater.tables import table, train_test_split

SPACES = {"plain": (plain, 6), "shared": (shared, 6), "pictures": (pictures, (8, 8))}


def digits(every: int = 3) -> pa.Table:
    found = load_digits()
    columns = {f"p{place}": found.data[::every, place] / 16 for place in range(64)}
    return pa.table({**columns, "digit": found.target[::every]})


# -- spaces --------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(SPACES)))
@settings(deadline=None, max_examples=25)
def test_every_choice_of_a_space_is_a_net_that_answers(seed, name) -> None:
    make, inputs = SPACES[name]
    architecture = make()
    choices = architecture.sample(np.random.default_rng(seed))
    assert set(choices) == set(architecture.decisions)
    net = architecture(inputs, 3, **choices)
    shape = (inputs,) if isinstance(inputs, int) else inputs
    assert net(torch.zeros(5, *shape)).shape == (5, 3)
    active = architecture.active(choices)
    other = {**architecture.sample(np.random.default_rng(seed + 1)), **active}
    again = architecture(inputs, 3, **other)
    assert [(n, t.shape) for n, t in again.state_dict().items()] == [(n, t.shape) for n, t in net.state_dict().items()]


def test_the_nets_of_a_space_are_listed_once() -> None:
    architecture = Architecture(Repeat(OneOf(a=blocks.linear(2), b=blocks.linear(3)), 0, 2), Optional(blocks.norm(1)))
    nets = architecture.nets(1000, np.random.default_rng(0))
    assert len(nets) == (1 + 2 + 4) * 2
    assert len({repr(architecture.active(one)) for one in nets}) == len(nets)
    assert len(architecture.nets(5, np.random.default_rng(0))) == 5


def test_an_ordinary_search_tries_nets_and_other_hyperparameters() -> None:
    architecture = plain()
    space = {**architecture.space(), "learning_rate": LogFloat(1e-3, 1e-1)}
    study = search(
        Trainer(architecture, epochs=1, batch_size=64, metrics=["accuracy"]), space, digits(), label="digit", metric="accuracy",
        sampler="random", budget=3, workers=2,
    )  # fmt: skip
    assert [trial.error for trial in study.trials] == [None] * 3
    chosen = {n.removeprefix("module_arguments."): v for n, v in study.best_parameters.items() if n != "learning_rate"}
    net = architecture(64, 10, **chosen)
    net.load_state_dict(study.best_model().module_.state_dict())


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: OneOf(a=blocks.linear(2)), OptionError, "two or more"),
        (lambda: Repeat(blocks.linear(2), 2, 2), OptionError, "low below high"),
        (lambda: Cell(nn.ReLU()), OptionError, "wrap a module's factory in Layer"),
        (lambda: blocks.linear(Choice([1, 1])), OptionError, "differ"),
        (lambda: plain()(6, 2, width=3), OptionError, "one of the decisions 0.width"),
        (lambda: plain()(6, 2, **{"0.width": 4}), OptionError, "1.times.*missing"),
        (lambda: Architecture(blocks.conv(4))(6, 2), OptionError, r"layer '0'.*rows of shape \(6,\)"),
        (lambda: Architecture(Residual(blocks.linear(2)))(6, 2), UnsupportedError, r"\(6,\) into \(2,\)"),
        (lambda: Supernet(plain(), 6, 2), UnsupportedError, "'0.width' is a range"),
        (
            lambda: Supernet(Architecture(OneOf(a=blocks.linear(2), b=blocks.linear(3))), 6, 2),
            UnsupportedError,
            r"a \(2,\), b \(3,\)",
        ),
        (lambda: Supernet(Architecture(Repeat(blocks.linear(2), 1, 2)), 6, 2), UnsupportedError, "repeated at '0'"),
        (lambda: evolve(Trainer(MLP), digits(), label="digit"), OptionError, "Trainer of an Architecture"),
        (lambda: evolve(Trainer(plain()), digits(), label="digit", population=4, sample=9), OptionError, "sample=9"),
        (lambda: one_shot(Trainer(shared()), digits(), label="digit", validation=None), OptionError, "validation=None"),
    ],
)
def test_mistakes_name_the_place(make, error, told) -> None:
    with pytest.raises(error, match=told):
        make()


# -- inheritance ---------------------------------------------------------------------------------------------------


def test_weights_of_the_same_name_and_shape_are_inherited_bit_for_bit() -> None:
    architecture = plain()
    choices = {**architecture.sample(np.random.default_rng(0)), "1.times": 2, "1.0.0.width": 8, "1.1.0.width": 8}
    parent = architecture(6, 3, **choices)
    child = architecture(6, 3, **{**choices, "1.times": 3, "1.1.0.width": 32, "1.2.0.width": 8})
    fresh = {name: tensor.clone() for name, tensor in child.state_dict().items()}
    taken = inherit(child, parent.state_dict())
    first = [f"body.{place}.{kind}" for place in ("0", "1.0.0") for kind in ("weight", "bias")]
    assert taken == [*first, "head.weight", "head.bias"]
    for name, tensor in child.state_dict().items():
        assert torch.equal(tensor, parent.state_dict()[name] if name in taken else fresh[name])
    assert inherit(child, {name: tensor.double() for name, tensor in parent.state_dict().items()}) == []


def test_new_blocks_change_nothing_where_that_is_exact_and_are_left_alone_where_it_is_not() -> None:
    rows = torch.randn(64, 6)

    def grown(architecture: Architecture, times: int, **more) -> tuple[nn.Module, nn.Module, bool, dict]:
        known = architecture.sample(np.random.default_rng(1)) | more
        name = next(one for one in known if one.endswith(".times"))
        parent = architecture(6, 3, **known | {name: times})
        child = architecture(6, 3, **known | {name: times + 1})
        inherited = inherit(child, parent.state_dict())
        before = {one: tensor.clone() for one, tensor in child.state_dict().items()}
        return parent, child, morph(child, parent, inherited, torch.randn(16, 6)), before

    parent, child, exact, before = grown(shared(), 1)  # a residual block: its last layer begins as zero
    assert exact
    assert torch.allclose(child.eval()(rows), parent.eval()(rows), atol=1e-6)
    changed = [name for name, tensor in child.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed
    assert all(name.startswith("body.2.1.") for name in changed)

    rectified = Repeat(Cell(blocks.linear(6), blocks.activation("relu")), 1, 3)
    parent, child, exact, _ = grown(
        Architecture(rectified), 1
    )  # an identity after a ReLU, which the next one leaves alone
    assert exact
    assert torch.allclose(child.eval()(rows), parent.eval()(rows), atol=1e-6)

    bent = Repeat(Cell(blocks.linear(6), blocks.activation("tanh")), 1, 3)
    parent, child, exact, before = grown(Architecture(bent), 1)
    assert not exact
    assert all(torch.equal(tensor, before[name]) for name, tensor in child.state_dict().items())


def test_children_begin_with_the_weights_that_their_parent_ended_with(tmp_path) -> None:
    trainer = Trainer(shared(), epochs=1, batch_size=64, metrics=["accuracy"], seed=3)
    study = evolve(
        trainer, digits(), label="digit", metric="accuracy", budget=7, population=3, sample=2, workers=1, keep=7,
        storage=tmp_path / "s.sqlite",
    )  # fmt: skip
    assert [trial.error for trial in study.trials] == [None] * 7
    parents = [trial.parameters[PARENT] for trial in study.trials]
    assert parents[:3] == [-1] * 3
    for number, parent in enumerate(parents[3:], 3):
        assert number - 3 <= parent < number  # the older ones have died
        own, its = (dict(study.trials[one].parameters) for one in (number, parent))
        assert sum(own[name] != its[name] for name in own if name != PARENT) == 1
        saved = load_model(study.folder / f"trial-{parent:06d}" / "model")
        choices = {n.removeprefix("module_arguments."): v for n, v in own.items() if n != PARENT}
        child = Heir(shared(), str(study.folder / f"trial-{parent:06d}" / "model"))(64, 10, **choices)
        same = [n for n, t in child.state_dict().items() if n in saved.arrays and t.shape == saved.arrays[n].shape]
        assert {"body.0.weight", "head.weight", "head.bias"} <= set(same)
        for name in same:
            assert np.array_equal(child.state_dict()[name].numpy(), saved.arrays[name])
    # the trial of a child is a training from exactly there
    last = study.trials[-1]
    choices = {n: v for n, v in last.parameters.items() if n != PARENT}
    training, held_out = train_test_split(table(digits()), 0.2, seed=0)
    again = Trainer(
        Heir(shared(), str(study.folder / f"trial-{parents[-1]:06d}" / "model")), epochs=1, batch_size=64, metrics=["accuracy"],
        seed=3, module_arguments={n.removeprefix("module_arguments."): v for n, v in choices.items()}, strategy="single",
    ).fit(training, label="digit", validation=held_out)  # fmt: skip
    assert again.history_[-1]["validation_accuracy"] == last.value
    longer = evolve(
        trainer, digits(), label="digit", metric="accuracy", budget=8, population=3, sample=2, workers=1, keep=2,
        storage=tmp_path / "s.sqlite",
    )  # fmt: skip
    assert [trial.parameters for trial in longer.trials[:7]] == [trial.parameters for trial in study.trials]
    kept = {int(place.parent.name.removeprefix("trial-")) for place in longer.folder.glob("trial-*/model")}
    ranked = sorted(longer.trials, key=lambda trial: (-trial.value, trial.number))
    assert kept == {5, 6, 7, *(trial.number for trial in ranked[:2])}
    assert longer.best_model().evaluate(digits())["accuracy"] > 0.3


# -- one-shot ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shared", "pictures"])
def test_a_path_of_a_supernet_is_the_net_with_these_weights(name) -> None:
    make, inputs = SPACES[name]
    architecture = make()
    torch.manual_seed(0)
    supernet = Supernet(architecture, inputs, 3).eval()
    rows = torch.randn(7, *((inputs,) if isinstance(inputs, int) else inputs))
    answers = []
    for choices in architecture.nets(100, np.random.default_rng(0)):
        net = architecture(inputs, 3, **choices).eval()
        net.load_state_dict(supernet.weights_of(net))
        supernet.set_path(choices)
        assert torch.equal(supernet(rows), net(rows))
        answers.append(net(rows))
    assert len({tuple(answer.flatten().tolist()) for answer in answers}) == len(answers) > 3


def test_each_step_trains_one_path_and_all_are_drawn_as_often() -> None:
    torch.manual_seed(0)
    supernet = Supernet(shared(), 6, 3).train()
    seen: Counter[str] = Counter()
    for _ in range(2400):
        choices = supernet.sample_path()
        seen[repr(choices)] += 1
    assert len(seen) == 3 * 2**3 * 2
    assert chisquare(list(seen.values())).pvalue > 1e-3
    for _ in range(8):
        supernet.zero_grad()
        supernet(torch.randn(4, 6)).sum().backward()
        trained = {name for name, parameter in supernet.net.named_parameters() if parameter.grad is not None}
        path = {
            m.decision: getattr(m, "chosen", getattr(m, "times", None))
            for m in supernet.net.modules()
            if hasattr(m, "decision")
        }
        net = shared()(6, 3, **path)
        assert trained == {name for name, _ in net.named_parameters()}


@pytest.mark.slow
def test_what_is_found_is_as_good_as_the_median_random_net_of_the_same_budget() -> None:
    rows = digits(2)
    trainer = Trainer(shared(), epochs=4, batch_size=32, learning_rate=3e-3, metrics=["accuracy"])
    random = search(
        trainer, shared().space(), rows, label="digit", metric="accuracy", sampler="random", budget=7, workers=2, seed=5
    )
    median = float(np.median([trial.value for trial in random.trials]))
    found = one_shot(trainer, rows, label="digit", metric="accuracy", epochs=8, paths=12, retrain=2, workers=2, seed=5)
    assert len(found.ranking) == 12
    assert [one.value for one in found.ranking] == sorted((one.value for one in found.ranking), reverse=True)
    assert found.ranking[0].value > 0.5
    assert found.study.best_value >= median
    net = shared()(64, 10, **found.best_choices)
    net.load_state_dict(found.best_model().module_.state_dict())
    evolved = evolve(
        trainer, rows, label="digit", metric="accuracy", budget=7, population=3, sample=2, workers=1, seed=5
    )
    assert evolved.best_value >= median


def test_modules_of_one_s_own_are_layers() -> None:
    def gated(shape: tuple[int, ...], width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(shape[0], 2 * width), nn.GLU())

    architecture = Architecture(Layer(gated, width=Choice([3, 5])), blocks.activation("gelu"))
    assert architecture(4, 2, **{"0.width": 5}).head.in_features == 5


# -- evolution over paths ------------------------------------------------------------------------------------------


def wide() -> Architecture:
    """Twelve decisions of three options: half a million nets."""
    kinds = {name: blocks.activation(name) for name in ("relu", "gelu", "tanh")}
    return Architecture(*(OneOf(**kinds) for _ in range(12)))


@given(st.integers(0, 99), st.integers(10, 120), st.integers(2, 40))
@settings(max_examples=10)
def test_evolution_looks_at_as_many_different_paths_as_it_may(seed, paths, population) -> None:
    architecture, looked_at = wide(), []

    def evaluate(path: dict[str, Any]) -> float:
        looked_at.append(architecture.key(path))
        return float(len(set(path.values())))

    found = PathEvolution(architecture, population, seed).search(evaluate, paths)
    assert len(looked_at) == len(set(looked_at)) == len(found) == paths
    assert [value for _, value in found] == sorted(value for _, value in found)


def test_evolution_finds_better_paths_than_random_search_with_as_many_looks() -> None:
    architecture = wide()
    gains = []
    for seed in range(10):
        worth = np.random.default_rng(seed).normal(size=(12, 3))
        names = {name: place for place, name in enumerate(architecture.values)}
        kinds = ("relu", "gelu", "tanh")

        def evaluate(path: dict[str, Any], worth: Any = worth, names: Any = names, kinds: Any = kinds) -> float:
            return -float(sum(worth[names[name], kinds.index(kind)] for name, kind in path.items()))

        best = -float(worth.max(1).sum())
        by_chance = PathEvolution(architecture, 200, seed).search(evaluate, 200)[0][1]
        evolved = PathEvolution(architecture, 20, seed).search(evaluate, 200)[0][1]
        gains.append((by_chance - evolved) / (by_chance - best))
    assert np.median(gains) > 0.4  # of the way from random search to the best net of all
    assert min(gains) > 0


def test_statistics_of_batches_are_those_of_the_path_alone() -> None:
    options = {"one": Cell(blocks.linear(5), blocks.batch_norm()), "two": Cell(blocks.linear(5), blocks.activation())}
    architecture = Architecture(blocks.linear(5), OneOf(**options), blocks.batch_norm())
    torch.manual_seed(0)
    supernet = Supernet(architecture, 6, 3).train()
    batches = [torch.randn(16, 6) * 3 + 1 for _ in range(4)]
    for batch in batches:
        supernet(batch)  # statistics of both paths together
    for choices in architecture.nets(9, np.random.default_rng(0)):
        supernet.set_path(choices)
        recalibrate(supernet, batches)
        net = architecture(6, 3, **choices)
        net.load_state_dict({**supernet.weights_of(net)})
        body, norm = net.body.eval(), next(m for m in reversed(list(net.modules())) if isinstance(m, nn.BatchNorm1d))
        seen: list[torch.Tensor] = []
        norm.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].detach()))
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.train()
        for batch in batches:
            body(batch)
        means = torch.stack([one.mean(0) for one in seen]).mean(0)
        variances = torch.stack([one.var(0) for one in seen]).mean(0)
        found = next(m for m in reversed(list(supernet.modules())) if isinstance(m, nn.BatchNorm1d))
        assert torch.allclose(found.running_mean, means, atol=1e-5)
        assert torch.allclose(found.running_var, variances, atol=1e-5)
        assert not supernet.training
        assert not found.training


def test_one_shot_ranks_by_evolution_with_statistics_of_each_path() -> None:
    kinds = {name: blocks.activation(name) for name in ("relu", "tanh")}
    cell = Cell(blocks.linear(12), blocks.batch_norm(), OneOf(**kinds))
    nets = Architecture(blocks.linear(12), cell, OneOf(**kinds), OneOf(**kinds))
    trainer = Trainer(nets, epochs=1, batch_size=64, learning_rate=3e-3)
    given = {"label": "digit", "metric": "accuracy", "retrain": 1, "workers": 1, "seed": 5}
    found = one_shot(trainer, digits(), paths=6, population=3, **given)
    assert len(found.ranking) == 6
    values = [one.value for one in found.ranking]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.3  # ten classes; with the mixed statistics of all paths a path guesses
    with pytest.raises(OptionError, match="evolution or random"):
        one_shot(trainer, digits(), ranking="luck", **given)
