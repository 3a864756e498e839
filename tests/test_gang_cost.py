"""The formulas of the strategies: against their closed forms, and against the bytes that real workers hand over."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from braidwater.blocks.windows import RowForm
from braidwater.deep.layers import find_layers
from braidwater.deep.losses import LOSSES
from braidwater.encoding.design import design_of
from braidwater.engines import LocalEngine
from braidwater.parallel import STRATEGIES, AllReduce, Data, DiLoCo, Sharded, Training, strategy_class
from braidwater.parallel.all_reduce import AllReduceReplica
from braidwater.parallel.averaging import AveragingReplica
from braidwater.parallel.diloco import DiLoCoReplica
from braidwater.parallel.grid import Grid
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.pipeline.bubble import predict_bubble, predict_step_seconds
from braidwater.parallel.sharded import ShardedReplica
from braidwater.parallel.spatial import halo_layers, predict_halo_bytes
from braidwater.parallel.spatial.strategy import SpatialReplica
from braidwater.parallel.tensor_parallel.plan import make_plan
from braidwater.parallel.tensor_parallel.strategy import TensorReplica
from braidwater.planner import COSTS, REFERENCE, Layer
from braidwater.planner.cluster import Cluster
from braidwater.planner.strategies import Net, Place
from braidwater.planner.strategies.pipeline import balanced
from braidwater.planner.this_machine import ThisMachine
from braidwater.testing.strategies import uneven_store

MB = 1_000_000
QUIET = Cluster(bandwidth=1e9, latency=0.0, overlap=False)
LAYERS = tuple(
    Layer(f"{k}", 0.25, 10 * MB, 1000, (100, 1000), parted=True, exchanged=500, messages=1, block=f"{k}")
    for k in range(4)
)
NET = Net(
    step_rows=100,
    row_seconds=1e-3,
    call_seconds=0.0,
    update_seconds=2e-3,
    alone_seconds=0.1,
    weights=40 * MB,
    activations=4000,
    layers=LAYERS,
)


def price(name: str, workers: int = 4, place: Place = QUIET, net: Net = NET, **options: Any) -> Any:
    return COSTS[name].price(net, place, workers, options)


def test_every_strategy_has_a_formula_with_its_options_and_its_exactness():
    for name in STRATEGIES:
        kind, cost = strategy_class(name), COSTS[name]
        strategy = kind()
        own = {one.name: getattr(strategy, one.name) for one in fields(kind) if one.name != "workers"}
        assert own == cost.defaults, name
        assert strategy.exact == cost.is_exact(own), name
        assert cost.formula
        assert cost.why
    assert not COSTS["all_reduce"].is_exact({"compression": "bf16"})


def test_all_reduce_moves_the_gradients_once_around_and_compression_shrinks_them():
    found = price("all_reduce")
    assert found.compute == pytest.approx(0.025 + 0.002)
    assert found.sent == pytest.approx(2 * 3 / 4 * 40 * MB)
    assert found.exchange == pytest.approx(found.sent / 1e9)
    assert price("all_reduce", compression="bf16").sent == pytest.approx(found.sent / 2)
    assert price("all_reduce", compression="power_sgd").sent == pytest.approx(2 * 3 / 4 * 4 * 4 * 1100)
    assert price("all_reduce", compression="threshold").sent < found.sent / 50
    assert sum(price("all_reduce", compression="threshold").memory.values()) > sum(found.memory.values())


def test_on_this_machine_talking_and_contention_add_to_the_step():
    place = ThisMachine(REFERENCE)
    net = replace(NET, step_rows=512)
    gloo, shared = (price("all_reduce", 2, place, net, transport=way) for way in ("gloo", "shared_memory"))
    talk = 3 * REFERENCE.collective_latency + 40 * MB * REFERENCE.collective_byte
    assert gloo.exchange == pytest.approx(talk + REFERENCE.background_wait)  # its threads want a core
    waited = REFERENCE.meeting * math.sqrt(net.seconds(256))  # for the slower of two
    assert shared.exchange == pytest.approx(3 * REFERENCE.shared_latency + 40 * MB * REFERENCE.shared_byte + waited)
    assert price("all_reduce", 2, place, net).exchange == shared.exchange, "auto is through memory"
    assert gloo.compute == pytest.approx(REFERENCE.contention * (0.256 + 0.002))
    small = price("all_reduce", 2, place, replace(NET, step_rows=32))
    assert small.compute == pytest.approx(REFERENCE.contention_small * (0.016 + 0.002))
    assert price("all_reduce", 4, place, net).compute == pytest.approx(2 * REFERENCE.contention * (0.128 + 0.002), 0.05)


def test_strategies_that_meet_now_and_then_send_so_much_less():
    whole = price("all_reduce").sent
    assert price("averaging", every=8).sent == pytest.approx(whole / 8)
    assert price("averaging", every=8, optimizer_state="average").sent == pytest.approx(3 * whole / 8)
    assert price("diloco", every=100).sent == pytest.approx(whole / 100)
    assert price("elastic_averaging", every=10).sent == pytest.approx(whole / 10)
    assert price("hierarchical", groups=2, group_size=2, every=8).sent == pytest.approx(40 * MB * (1 + 1 / 8))


def test_members_of_an_ensemble_are_shared_out():
    four = replace(NET, models=4)
    parts, bags = price("ensemble", 2, net=four), price("ensemble", 2, net=four, data="bags")
    assert bags.compute == pytest.approx(2 * 0.102 / 4)
    assert parts.compute == pytest.approx(bags.compute / 4)
    assert parts.sent == 0
    assert parts.memory["weights"] == 40 * MB
    assert "no members" in price("ensemble", 2).refused


def test_sharding_divides_the_state_and_sends_half_as_much_again():
    plain, full, half = price("all_reduce"), price("sharded"), price("sharded", stage=2)
    assert full.sent == pytest.approx(1.5 * plain.sent)
    assert half.sent == pytest.approx(plain.sent)
    assert plain.memory["weights"] == 4 * 40 * MB
    assert full.memory["weights"] == 4 * 40 * MB / 4 + 2 * 10 * MB  # weights and gradients of the largest layer
    assert half.memory["weights"] == 40 * MB + 3 * 40 * MB / 4


@pytest.mark.parametrize(("workers", "pieces"), [(2, 4), (4, 8), (4, 4)])
def test_equal_stages_wait_as_long_as_the_bubble_says(workers, pieces):
    found = price("pipeline", workers, micro_batches=pieces)
    alone = 0.1 / workers
    update = 0.002 / workers
    assert alone / (found.compute - update) == pytest.approx(1 - predict_bubble(workers, pieces))
    assert found.memory["weights"] == 4 * 40 * MB / workers
    assert found.memory["activations"] == pytest.approx(100 / pieces * min(pieces, workers) * 4000 / workers)
    all_at_once = price("pipeline", workers, micro_batches=pieces, schedule="gpipe").memory["activations"]
    assert all_at_once == pytest.approx(100 * 4000 / workers)


def test_unequal_stages_follow_the_slowest():
    shares = (0.1, 0.2, 0.4, 0.3)
    net = replace(NET, layers=tuple(replace(layer, share=s) for layer, s in zip(LAYERS, shares, strict=True)))
    found = price("pipeline", 2, net=net, micro_batches=4)
    stages = [0.025 * (0.1 + 0.2), 0.025 * (0.4 + 0.3)]
    assert found.compute == pytest.approx(predict_step_seconds(stages, 4) + 0.002 / 2)
    bubbles = [
        price("pipeline", 2, net=net, micro_batches=4, schedule=s).compute for s in ("zero_bubble", "interleaved")
    ]
    assert bubbles[0] < bubbles[1] < found.compute
    assert "too few" in price("pipeline", 5).refused
    assert balanced([3, 1, 1, 1], 2) == [slice(0, 1), slice(1, 4)]


def test_a_mesh_of_one_axis_is_that_strategy():
    for axis, name in (("tensor", "tensor_parallel"), ("pipeline", "pipeline"), ("data", "all_reduce")):
        mesh, alone = price("mesh", 4, **{axis: 4}), price(name, 4)
        assert (mesh.compute, mesh.sent) == pytest.approx((alone.compute, alone.sent)), axis
        assert mesh.memory["weights"] == alone.memory["weights"]
    both = price("mesh", 4, data=2, tensor=2)
    assert both.memory["weights"] == 4 * 40 * MB / 2
    assert both.sent == pytest.approx(50 * 2000 + 40 * MB / 2)  # messages of half the rows, gradients of half the net
    assert "which axis" in price("mesh", 4).refused


def test_servers_are_the_bottleneck_of_many_workers():
    few, many = price("parameter_server", 2), price("parameter_server", 64)
    assert few.sent == many.sent == 40 * MB
    assert many.seconds > few.seconds
    assert price("parameter_server", 64, servers=8).seconds < many.seconds / 4
    assert few.others == 1


def picture_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(),
        nn.Linear(4 * 8 * 8, 32), nn.ReLU(), nn.Linear(32, 3),
    )  # fmt: skip


def test_the_layers_of_a_module_are_found_with_what_parting_them_sends():
    module = picture_net().eval()
    found = find_layers(module, torch.zeros(2, 1, 16, 16))
    assert [layer.name for layer in found.layers] == [f"{k}" for k in range(8)]
    assert sum(layer.parameters for layer in found.layers) == sum(p.nbytes for p in module.parameters())
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert found.flops == 2 * (16 * 16 * 4 * 9 + 8 * 8 * 4 * 4 * 9 + 256 * 32 + 32 * 3)
    assert [layer.regions for layer in found.layers] == [True] * 4 + [False] * 4
    halo = max(predict_halo_bytes(halo_layers(module, torch.zeros(1, 1, 16, 16), 2), 2))
    assert sum(layer.halo for layer in found.layers) == halo
    assert [layer.name for layer in found.layers if layer.parted] == ["5", "7"]
    assert found.layers[6].parted_output
    # the first of the pair sums up the gradient of its inputs, the second its outputs
    assert (found.layers[5].exchanged, found.layers[7].exchanged) == (4 * 256, 4 * 3)
    assert [layer.name for layer in found.layers if layer.block] == ["0", "3", "5", "7"]


def training() -> Training:
    form = RowForm(design_of([], [], label="y"), "pixels")
    optimizer = partial(torch.optim.SGD, lr=0.01)
    module = picture_net()
    return Training(module, LOSSES["cross_entropy"].function, lambda m: optimizer(m.parameters()), form, batch_size=16)


def store() -> Any:
    random = np.random.default_rng(0)
    columns = {"pixels": random.standard_normal((64, 1, 16, 16)).astype("f4"), "y": random.integers(0, 3, 64)}
    return uneven_store(columns, (32, 32))


WAYS: dict[str, dict[str, Any]] = {
    "all_reduce": {},
    "sharded": {"min_parameters": 1},
    "tensor_parallel": {},
    "spatial": {},
    "averaging": {"every": 2},
    "diloco": {"every": 4},
}


@pytest.fixture(scope="module")
def counted() -> dict[str, float]:
    """Bytes that worker 0 of two hands over in a step, all strategies one after another in one gang."""
    rows = Data(store())
    plan = make_plan(picture_net(), "auto", 2)

    def member(told: Any) -> dict[str, float]:
        replicas = {
            "all_reduce": lambda: AllReduceReplica(told, AllReduce(2)),
            "sharded": lambda: ShardedReplica(told, Sharded(2, min_parameters=1), "float32"),
            "tensor_parallel": lambda: TensorReplica(told, Grid({"tensor": 2}), plan),
            "spatial": lambda: SpatialReplica(told, Grid({"spatial": 2})),
            "averaging": lambda: AveragingReplica(told, 2, "local"),
            "diloco": lambda: DiLoCoReplica(told, DiLoCo(2, every=4)),
        }
        found = {}
        for name, make in replicas.items():
            replica = make()
            steps = run_epochs(training(), rows, replica, strategy=name).steps
            found[name] = replica.bytes_exchanged / steps
        return found

    return LocalEngine(2).gang(member, 2)[0]


@pytest.mark.parametrize("name", WAYS)
def test_workers_hand_over_the_bytes_that_were_predicted(name, counted):
    module = picture_net()
    found = find_layers(module.eval(), torch.zeros(1, 1, 16, 16))
    weights = sum(p.nbytes for p in module.parameters())
    net = replace(NET, step_rows=16, weights=weights, layers=found.layers)
    predicted = COSTS[name].price(net, ThisMachine(REFERENCE), 2, WAYS[name]).sent
    if name == "sharded":
        predicted += weights / 2  # all gradients are handed over, but a reduce-scatter keeps the worker's own half
    assert counted[name] == pytest.approx(predicted, rel=0.05)
