"""Strategies side by side on a grid of workers train to the weights of one process."""

from dataclasses import replace
from functools import partial

import pytest
from torch import nn

from braidwater.deep.modules import CNN, MLP
from braidwater.engines import LocalEngine
from braidwater.errors import OptionError, UnsupportedError
from braidwater.parallel import Hierarchical, Mesh, Pipeline, SpatialParallel
from braidwater.parallel.grid import Grid
from braidwater.parallel.hierarchical import BETWEEN, INSIDE, HierarchicalReplica
from braidwater.parallel.mesh import make_replica
from model_parallel import adam, alone, apart, data, in_gang, rows, sgd, training

SHAPE = (2, 7, 5)


def deep():
    return nn.Sequential(
        nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3)
    )


PLAIN = partial(sgd, momentum=0.0)
HIERARCHICAL = {
    "every step": training(deep, optimizer=PLAIN, weights=True),
    "one row a step": training(deep, optimizer=PLAIN, batch_size=2, epochs=1),
}
CASES = {
    "data x tensor": (training(deep, weights=True, clip_norm=0.1), Mesh(data=2, tensor=2)),
    "data x pipeline": (training(deep, weights=True, optimizer=adam, clip_norm=0.1), Mesh(data=2, pipeline=2)),
    "pipeline x tensor": (
        training(lambda: MLP(6, 3, hidden=(8, 4, 8)), clip_norm=0.1),
        Mesh(pipeline=Pipeline(2, micro_batches=2, schedule="gpipe"), tensor=2),
    ),
    "data x spatial": (
        training(lambda: CNN(SHAPE, 3), image="pixels", weights=True, clip_norm=0.1),
        Mesh(data=2, spatial=2),
    ),
    "data x tensor, one row a step": (training(deep, batch_size=1, epochs=1), Mesh(data=2, tensor=2)),
    "data x pipeline, one row a step": (
        training(deep, batch_size=1, epochs=1),
        Mesh(data=2, pipeline=Pipeline(2, 1, "gpipe")),
    ),
    "data x pipeline, rows that do not divide": (
        training(deep, batch_size=5, epochs=1),
        Mesh(data=2, pipeline=Pipeline(2, 2, "zero_bubble")),
    ),
}


STOPPED = {
    "first half": training(deep, optimizer=adam, epochs=1),
    "resumed": training(deep, optimizer=adam),
    "not stopped": training(deep, optimizer=adam),
}


def stores(name):
    shape = SHAPE if "spatial" in name else None
    return data(rows(image_shape=shape), rows(image_shape=shape, units=(9, 8)))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    cases = {name: (made, stores(name)) for name, (made, _) in CASES.items()}
    cases |= {name: (made, stores(name)) for name, made in HIERARCHICAL.items()}
    plans = {name: planned(made, mesh, cases[name][1]) for name, (made, mesh) in CASES.items()}
    folder = str(tmp_path_factory.mktemp("checkpoints"))
    for name, made in STOPPED.items():
        plans[name] = planned(made, Mesh(pipeline=Pipeline(2, 2, split=["4"]), tensor=2), stores(name))
        cases[name] = replace(made, checkpoint=None if name == "not stopped" else folder), stores(name)

    def replica(member, name):
        if name in HIERARCHICAL:
            return HierarchicalReplica(member, Grid({BETWEEN: 2, INSIDE: 2}), 1, "local")
        sizes, parts, stages = plans[name]
        return make_replica(member, Grid(sizes), parts, stages)

    return in_gang(4, replica, cases), alone({name: case for name, case in cases.items() if name not in STOPPED})


def planned(made, mesh, stored):
    parts = mesh._parts(made)
    return mesh._sizes, parts, mesh._stages(made, stored, parts)


@pytest.mark.parametrize("name", [*CASES, *HIERARCHICAL])
def test_four_workers_equal_one_process(found, name):
    combined, whole = found
    assert apart(combined[name], whole[name]) < 1e-10


def test_a_resumed_training_is_the_one_that_was_not_stopped(found):
    assert apart(found[0]["resumed"], found[0]["not stopped"]) == 0


@pytest.mark.slow
def test_eight_workers_on_three_axes_equal_one_process():
    made, stored = training(lambda: MLP(6, 3, hidden=(8, 4, 8)), weights=True, clip_norm=0.1), stores("")
    trained = Mesh(data=2, pipeline=2, tensor=2).train(made, stored, LocalEngine(2))
    assert apart(trained, alone({"": (made, stored)})[""]) < 1e-10


@pytest.mark.parametrize(
    ("made", "error", "said"),
    [
        (lambda: Mesh(data=0), OptionError, "data=0.*from 1 on"),
        (lambda: Mesh(tensor=Pipeline()), OptionError, "or TensorParallel"),
        (lambda: Mesh(spatial=SpatialParallel(2), tensor=2), UnsupportedError, "spatial with data only"),
        (lambda: Hierarchical(groups=0), OptionError, "groups=0"),
        (lambda: Hierarchical(every="epoch"), OptionError, "number of steps"),
        (lambda: Hierarchical(every=0), OptionError, "every=0"),
    ],
)
def test_impossible_combinations_are_refused(made, error, said):
    with pytest.raises(error, match=said):
        made()


def test_a_mesh_counts_its_workers():
    assert Mesh(data=2, pipeline=Pipeline(3), tensor=2).workers == 12
    assert Hierarchical(groups=3, group_size=2).workers == 6
