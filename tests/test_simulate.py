"""The simulator: closed forms, published scaling results, and the command line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from braidwater.cli.app import app
from braidwater.errors import OptionError, UnsupportedError
from braidwater.planner.cluster import Cluster
from braidwater.planner.simulate import Model, simulate

FAST = Cluster(bandwidth=1e9, latency=1e-5)


def test_a_ring_hands_on_each_part_twice_and_a_tree_is_as_deep_as_its_logarithm():
    assert FAST.all_reduce(1e6, 8) == pytest.approx(2 * 7 / 8 * 1e-3 + 14e-5)
    assert FAST.all_gather(1e6, 8) == FAST.reduce_scatter(1e6, 8) == pytest.approx(FAST.all_reduce(1e6, 8) / 2)
    tree = replace(FAST, topology="tree")
    assert tree.all_reduce(1e6, 8) == pytest.approx(2e-3 + 6e-5)
    assert tree.all_reduce(1e3, 1024) < FAST.all_reduce(1e3, 1024) / 10
    nodes = replace(FAST, topology="hierarchical", node_workers=4, node_bandwidth=1e10, node_latency=0.0)
    assert nodes.all_reduce(1e6, 8) == pytest.approx(2 * 3 / 4 * 1e-4 + 2 * 1 / 2 * 1e-3 + 2e-5)
    assert nodes.all_reduce(1e6, 4) == pytest.approx(2 * 3 / 4 * 1e-4), "inside a node"
    assert FAST.all_reduce(1e6, 1) == nodes.all_reduce(1e6, 1) == 0


def test_backward_hides_all_but_a_bucket():
    assert FAST.exposed(1.0, backward=10.0, buckets=4) == 0.25
    assert FAST.exposed(10.0, backward=1.0, buckets=4) == 9.25
    assert replace(FAST, overlap=False).exposed(1.0, 10.0, 4) == 1.0


def test_stragglers_hold_up_many_workers_more_than_few():
    shaky = replace(FAST, jitter=0.1)
    assert shaky.contention(1, 1) == 1
    assert shaky.contention(64, 1) == pytest.approx(1 + 0.1 * math.sqrt(2 * math.log(64)))


def efficiency(
    weights: float, rows_per_second: float, batch: int, workers: int, base: int = 1, **cluster: Any
) -> float:
    """Of weak scaling from `base` to `workers`; a worker alone does `rows_per_second`."""
    place = Cluster(latency=10e-6, flops=rows_per_second, **cluster)
    net = Model("published", weights=int(weights), flops_per_row=1.0, moments=1)
    few, many = simulate(net, place, batch=batch, scaling="weak", workers=[base, workers]).points
    return many.rows_per_second / few.rows_per_second * base / workers


# Horovod's documentation (docs/benchmarks.rst and earlier readme): servers of four Pascal GPUs on a RoCE-capable network of
# 25 Gbit/s, 64 images a GPU. One GPU alone: TensorFlow's benchmarks of a P100 (142 and 154 images a second), for ResNet-101
# the 1656.82 images a second that Horovod's page gives for 16. Tensor fusion sends 64 MB at a time; weights of 4 bytes.
HOROVOD = {"bandwidth": 25e9 / 8, "node_workers": 4, "node_bandwidth": 10e9, "bucket_bytes": 64 * 2**20}
PUBLISHED = [
    ("Inception V3", 4 * 23.9e6, 142.0, 512, 0.90),
    ("ResNet-101", 4 * 44.5e6, 1656.82 / 16, 512, 0.90),
    ("VGG-16", 4 * 138.4e6, 154.0, 512, 0.68),
    ("VGG-16", 4 * 138.4e6, 154.0, 128, 0.79),
]


@pytest.mark.parametrize(("weights", "alone", "workers", "published"), [case[1:] for case in PUBLISHED])
def test_horovod_s_published_scaling_is_met_within_five_points(weights, alone, workers, published):
    assert efficiency(weights, alone, 64, workers, **HOROVOD) == pytest.approx(published, abs=0.05)


def test_imagenet_in_an_hour_is_met_within_seven_points():
    """Goyal et al. 2017 (arXiv 1706.02677): 90 % from 8 to 256 GPUs, 8 to a server, servers joined by 50 Gbit/s.

    Backward of 32 images takes a P100 120 ms (section 4), so forward and backward 180 ms.
    """
    servers = {"bandwidth": 50e9 / 8, "node_workers": 8, "node_bandwidth": 20e9, "topology": "hierarchical"}
    assert efficiency(4 * 25.6e6, 32 / 0.18, 32, 256, base=8, **servers) == pytest.approx(0.90, abs=0.07)


NET = Model("net", weights=4_000_000_000, flops_per_row=6e12, activations=100_000_000, depth=32)
PLACE = Cluster(bandwidth=25e9, latency=1e-5, flops=1e14)


def test_strong_scaling_saturates_and_weak_scaling_does_not():
    strong, weak = (simulate(NET, PLACE, batch=512, scaling=way).points for way in ("strong", "weak"))
    assert [point.workers for point in strong] == [1 << k for k in range(11)]
    falling = [point.efficiency for point in strong if not point.refused]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == pytest.approx(1)
    assert strong[10].refused == "a step has 512 rows, fewer than workers"
    assert weak[10].efficiency > 0.9 > falling[-1]
    assert weak[10].rows == 512 * 1024


def test_what_does_not_fit_is_refused_and_more_workers_make_it_fit():
    found = simulate(
        NET, PLACE, batch=512, strategies=["all_reduce", "sharded", "mesh"], options={"tensor": 8}, memory=10**10
    )
    assert not found.of("all_reduce"), "16 GB of state on every worker"
    assert found.of("sharded")[0].workers == 8
    assert found.of("mesh")[0].workers == 8, "eight ways of tensor parallelism"
    assert "not possible: a worker needs" in str(found)
    assert all(point.worker_bytes <= 10**10 for point in found.points)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "batch=0"),
        ({"workers": [0]}, "workers="),
        ({"scaling": "both"}, "scaling='both'"),
    ],
)
def test_impossible_questions_are_refused(changes, message):
    with pytest.raises(OptionError, match=message):
        simulate(NET, PLACE, **({"batch": 8} | changes))
    with pytest.raises(UnsupportedError, match="the planner knows single, all_reduce"):
        simulate(NET, PLACE, batch=8, strategies=["magic"])
    with pytest.raises(OptionError, match="bandwidth=0"):
        Cluster(bandwidth=0, latency=0)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["simulate", *arguments])


def test_the_command_takes_figures_and_writes_a_report(tmp_path: Path):
    page = tmp_path / "scaling.html"
    found = run(
        "--parameters", "25e6", "--flops-per-row", "24e9", "--activations", "90MB", "--batch-per-worker", "32",
        "--workers", "1,2,...,64", "--bandwidth", "50Gbit/s", "--latency", "10us", "--flops", "5e12",
        "--strategy", "all_reduce,averaging", "--set", "every=8", "--report", str(page), "--json",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    points = [point for point in document["points"] if point["workers"] == 64]
    assert [point["strategy"] for point in points] == ["all_reduce", "averaging"]
    assert points[1]["step_bytes"] == pytest.approx(points[0]["step_bytes"] / 8)
    assert document["cluster"]["bandwidth"] == 6.25e9
    assert page.read_text().count("<svg") == 4


def test_the_command_takes_a_module():
    found = run(
        "--model", "braidwater.deep.modules:CNN", "--inputs", "3x32x32", "--outputs", "10", "--batch", "64",
        "--workers", "1,2", "--strategy", "spatial,pipeline",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "CNN: " in found.stdout
    assert found.stdout.count("efficiency") == 2


@pytest.mark.parametrize(
    "arguments",
    [("--flops-per-row", "1"), ("--parameters", "1", "--flops-per-row", "1", "--latency", "20"),
     ("--parameters", "1", "--flops-per-row", "1", "--workers", "1,...,4")],
)  # fmt: skip
def test_the_command_says_what_is_wrong(arguments):
    found = run(*arguments)
    assert found.exit_code == 1
    assert "is not possible" in found.output
