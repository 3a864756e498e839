"""Every strategy that runs as a gang trains on Spark what it trains on this machine; its services are found where they are."""

from __future__ import annotations

import socket
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from braidwater import Trainer
from braidwater.encoding import Image
from braidwater.engines import LocalEngine
from braidwater.engines.spark import SparkEngine
from braidwater.engines.spark.session import Session
from braidwater.parallel import (
    STRATEGIES,
    AllReduce,
    Averaging,
    DiLoCo,
    ElasticAveraging,
    Ensemble,
    Hierarchical,
    Mesh,
    ParameterServer,
    Pipeline,
    Sharded,
    Single,
    SpatialParallel,
    TensorParallel,
    strategy_class,
)
from braidwater.parallel.ensemble import EnsembleModule
from braidwater.parallel.service import Service, connect

DRIVER, WORKERS = "127.0.0.3", "127.0.0.2"  # the workers' is set in `spark_sessions.SETTINGS`
SIDE = 8
EXAMPLES = (
    AllReduce(2),
    Sharded(2, min_parameters=1),
    Averaging(2),
    Averaging(2, every=3),
    DiLoCo(2, every=5),
    ElasticAveraging(2, every=3),
    ElasticAveraging(2, every=3, asynchronous=True),
    ParameterServer(1),
    ParameterServer(2, servers=2, staleness=1),
    Ensemble(2),
    TensorParallel(2),
    SpatialParallel(2),
    Pipeline(2, micro_batches=2),
    Mesh(data=2, tensor=2),
    Hierarchical(groups=2, group_size=2, every=3),
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """211 rows with a small picture and a class, in two files of uneven row groups."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(7)
    for number, rows in enumerate((150, 61)):
        pixels = random.normal(size=(rows, SIDE * SIDE)).astype(np.float32)
        kind = (pixels[:, : SIDE * SIDE // 2].sum(1) > pixels[:, SIDE * SIDE // 2 :].sum(1)).astype(np.int64)
        columns = {"pixels": pa.array(list(pixels), pa.list_(pa.float32())), "kind": kind}
        pq.write_table(pa.table(columns), folder / f"part{number}.parquet", row_group_size=40)
    return str(folder)


class Net(nn.Sequential):
    """Layers that can be cut by the rows of pictures, by their width, and one after another."""

    def __init__(self, inputs, outputs):
        convolution = nn.Conv2d(1, 4, 3, padding=1)
        width = 4 * SIDE * SIDE
        super().__init__(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, outputs))


def two_nets(inputs, outputs):
    return EnsembleModule([Net(inputs, outputs), Net(inputs, outputs)], outputs=outputs)


def trained(strategy, rows, engine):
    module = two_nets if isinstance(strategy, Ensemble) else Net
    trainer = Trainer(module, strategy=strategy, epochs=3, batch_size=16, seed=3, shuffle=False)
    return trainer.fit(rows, label="kind", features={"pixels": Image((1, SIDE, SIDE), dtype="float32")}, engine=engine)


def compare(strategy, rows, engine):
    found = trained(strategy, rows, engine)
    if not strategy.reproducible:  # who comes first decides there
        losses = [record["loss"] for record in found.history_]
        assert losses[-1] < losses[0]
        return
    expected = trained(strategy, rows, LocalEngine(strategy.workers)).module_.state_dict()
    for name, weights in found.module_.state_dict().items():
        assert torch.equal(weights, expected[name]), f"{strategy}: {name}"


def test_no_strategy_is_left_out():
    assert {strategy_class(name) for name in STRATEGIES} == {type(one) for one in EXAMPLES} | {Single}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("strategy", EXAMPLES, ids=str)
def test_a_strategy_trains_the_same_net_on_executors(four_slots, pictures, strategy):
    compare(strategy, pictures, SparkEngine(four_slots, host=DRIVER))


def test_asynchronous_workers_meet_at_the_address_of_theirs(spark, pictures):
    compare(ElasticAveraging(2, every=3, asynchronous=True), pictures, SparkEngine(spark, host=DRIVER))


def test_a_service_is_found_at_its_member_s_address_and_nowhere_else(spark):
    def member(told):
        if told.rank == 1:
            service = Service(told, "echo", b"key", lambda line: line.send(line.recv() + 1))
            told.store.wait(["done"])
            service.close()
            return told.host
        line = connect(told, "echo", b"key", 30)
        line.send(41)
        host, port = told.store.get("echo").decode().split()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)), timeout=10)
        answer = line.recv()
        told.store.set("done", "")
        return host, answer

    assert SparkEngine(spark, host=DRIVER).gang(member, 2) == [(WORKERS, 42), WORKERS]
    # a gang whose driver is this machine stays on it
    assert SparkEngine(spark).gang(lambda told: told.host, 2) == ["127.0.0.1"] * 2


def test_epochs_averaged_are_one_job_with_the_bits_of_a_job_each(spark, pictures, monkeypatch):
    jobs, run = [], Session.run
    monkeypatch.setattr(Session, "run", lambda self, *a, tag, **k: jobs.append(tag) or run(self, *a, tag=tag, **k))
    monkeypatch.setattr("braidwater.deep.rows.GANG_MEMORY", 0)  # so that the blocks lie with the workers
    engine = SparkEngine(spark, 2)
    found = trained(Averaging(2), pictures, engine).module_.state_dict()
    assert [tag.partition("-")[0] for tag in jobs] == ["pass", "residents"]  # the blocks are made, then three epochs
    jobs.clear()
    monkeypatch.setattr(engine, "staying", lambda source: nullcontext())
    expected = trained(Averaging(2), pictures, engine).module_.state_dict()
    assert [tag.partition("-")[0] for tag in jobs] == ["pass"] * 4
    assert all(torch.equal(weights, expected[name]) for name, weights in found.items())


def test_a_validation_elsewhere_has_slots_of_its_own(spark, pictures, monkeypatch):
    monkeypatch.setattr("braidwater.deep.rows.GANG_MEMORY", 0)
    trainer = Trainer(Net, strategy=Averaging(3), epochs=2, batch_size=16, shuffle=False)
    features = {"pixels": Image((1, SIDE, SIDE), dtype="float32")}
    trainer.fit(pictures, label="kind", features=features, validation=pictures, engine=SparkEngine(spark, 3))
    assert all(np.isfinite(record["validation_loss"]) for record in trainer.history_)
