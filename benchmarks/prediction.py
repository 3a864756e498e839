"""Step times that the planner predicts, beside those that training took on this machine.

A net for each case is trained for some hundred steps under each strategy in a gang of two, all of them one after another in
the same processes; the mean step is compared with the planner's, which knows the machine's constants (measured anew
here) and has timed a few steps of the net in one process. Other work on the machine disturbs both, at different moments:
the figures are only good when it is quiet.

python benchmarks/prediction.py --steps 200 --json prediction.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from braidwater.blocks.windows import RowForm
from braidwater.deep.layers import find_layers
from braidwater.deep.losses import LOSSES
from braidwater.deep.modules import CNN, MLP
from braidwater.deep.step_times import time_steps
from braidwater.encoding.design import design_of
from braidwater.engines import LocalEngine
from braidwater.parallel import AllReduce, Data, Pipeline, Training
from braidwater.parallel.all_reduce import AllReduceReplica
from braidwater.parallel.averaging import AveragingReplica
from braidwater.parallel.base import Replica
from braidwater.parallel.grid import Grid
from braidwater.parallel.loop import EpochLoop, own_random_numbers
from braidwater.parallel.pipeline.replica import PipelineReplica
from braidwater.parallel.spatial.strategy import SpatialReplica
from braidwater.parallel.tensor_parallel.plan import make_plan
from braidwater.parallel.tensor_parallel.strategy import TensorReplica
from braidwater.planner import COSTS, Machine, Work
from braidwater.planner.calibrate import calibrate
from braidwater.planner.cost import Job
from braidwater.planner.gang_cost import net_of
from braidwater.planner.this_machine import ThisMachine
from braidwater.tables.base import TableStatistics
from braidwater.testing.strategies import uneven_store
from harness import cpu_seconds
from machine import busy_seconds, machine

WORKERS = 2
WARM = 20  # steps that do not count
WIDTH = 256


class Transformer(nn.Module):
    """Two blocks over 16 tokens, which are 16 parts of a row."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(inputs // 16, 4, 4 * inputs // 16, 0.0, batch_first=True)
        self.blocks = nn.Sequential(
            block, nn.TransformerEncoderLayer(inputs // 16, 4, 4 * inputs // 16, 0.0, batch_first=True)
        )
        self.head = nn.Linear(inputs, outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.blocks(features.unflatten(1, (16, -1))).flatten(1))
        return found


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "MLP 256-512-512-10, 128 rows": (lambda: MLP(WIDTH, 10, hidden=(512, 512)), (WIDTH,), 128),
    "MLP 256-1024-1024-10, 512 rows": (lambda: MLP(WIDTH, 10, hidden=(1024, 1024)), (WIDTH,), 512),
    "CNN 3x32x32, 64 rows": (lambda: CNN((3, 32, 32), 10, channels=(16, 32)), (3, 32, 32), 64),
    "transformer 16 x 64, 64 rows": (lambda: Transformer(1024, 10), (1024,), 64),
}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "single": ("single", {}),
    "all_reduce, gloo": ("all_reduce", {"transport": "gloo"}),
    "all_reduce, shared memory": ("all_reduce", {"transport": "shared_memory"}),
    "averaging, every 8": ("averaging", {"every": 8}),
    "tensor_parallel": ("tensor_parallel", {}),
    "pipeline, 4 micro-batches": ("pipeline", {"micro_batches": 4, "schedule": "1f1b"}),
    "spatial": ("spatial", {}),  # of nets with convolutions
}


def training(net: str, steps: int) -> tuple[Training, Data]:
    make, shape, batch = NETS[net]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make()
    random = np.random.default_rng(0)
    rows = batch * 16
    columns = {"x": random.standard_normal((rows, *shape), dtype=np.float32), "y": random.integers(0, 10, rows)}
    form = RowForm(design_of([], [], label="y"), "x")
    optimizer = partial(torch.optim.AdamW, lr=1e-4)
    loss = LOSSES["cross_entropy"].function
    epochs = max(-(-(steps + WARM) // 16), 1)
    asked = Training(module, loss, lambda m: optimizer(m.parameters()), form, batch_size=batch, epochs=epochs)
    return asked, Data(uneven_store(columns, (rows // 2, rows // 2)))


def typical_step(asked: Training, data: Data, replica: Replica) -> float:
    """Seconds of a worker's step: the mean without the slowest, which others on the machine made so."""
    taken: list[float] = []
    begun = 0.0
    with own_random_numbers(asked.seed, replica.data_rank):
        loop = EpochLoop(asked, data, replica, "measured")
        step = loop.learner.step

        def timed(*arguments: Any) -> Any:
            nonlocal begun
            found = step(*arguments)
            now = time.perf_counter()
            taken.append(now - begun)
            begun = now
            return found

        loop.learner.step = timed  # type: ignore[method-assign]
        loop.to_the_end()
    kept = sorted(taken[WARM:])
    return statistics.mean(kept[: -(len(kept) // 20) or None])


def measured(net: str, steps: int) -> dict[str, float]:
    """The median step of each strategy, worker 0's of two."""
    asked, data = training(net, steps)
    found = {"single": typical_step(asked, data, Replica())}
    parts = make_plan(asked.module, "auto", WORKERS)
    stages = Pipeline(WORKERS, **WAYS["pipeline, 4 micro-batches"][1]).plan(asked, data)

    def member(told: Any) -> dict[str, float]:
        replicas: dict[str, Callable[[], Replica]] = {
            "all_reduce, gloo": lambda: AllReduceReplica(told, AllReduce(WORKERS, transport="gloo")),
            "all_reduce, shared memory": lambda: AllReduceReplica(told, AllReduce(WORKERS)),
            "averaging, every 8": lambda: AveragingReplica(told, 8, "local"),
            "tensor_parallel": lambda: TensorReplica(told, Grid({"tensor": WORKERS}), parts),
            "pipeline, 4 micro-batches": lambda: PipelineReplica(told, Grid({"pipeline": WORKERS}), stages),
        }
        if len(NETS[net][1]) == 3:
            replicas["spatial"] = lambda: SpatialReplica(told, Grid({"spatial": WORKERS}))
        return {name: typical_step(asked, data, make()) for name, make in replicas.items()}

    steps_of: dict[str, float] = LocalEngine(WORKERS).gang(member, WORKERS)[0]
    return found | steps_of


def predicted(net: str, constants: Machine) -> dict[str, float]:
    """The planner's seconds of a step."""
    asked, _ = training(net, 1)
    _, shape, batch = NETS[net]
    times, layers = time_steps(asked, torch.randn(batch, *shape).numpy(), WORKERS)
    weights = sum(p.nbytes for p in asked.module.parameters())
    found = find_layers(asked.module, torch.zeros(1, *shape))
    work = Work(
        net, "gang", 1, 3 * found.flops, 4, (), weights, kernel="torch", step_rows=batch, times=times, layers=layers
    )
    figures = net_of(Job(TableStatistics(batch, batch), work, constants, "arrow", 10**10, 10**10))
    place = ThisMachine(constants)
    return {
        way: COSTS[name].price(figures, place, 1 if name == "single" else WORKERS, options).seconds
        for way, (name, options) in WAYS.items()
        if COSTS[name].is_possible(layers)
    }


def results(steps: int, only: str | None) -> Iterator[dict[str, Any]]:
    constants = calibrate(collectives=True, store=False)
    yield {"constants": constants.to_json()}
    for net in NETS:
        if only is not None and only not in net:
            continue
        foretold, took = predicted(net, constants), measured(net, steps)
        for way in took:
            yield {"net": net, "strategy": way, "predicted": foretold[way], "measured": took[way]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", help="nets whose name holds this")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    if given.only is not None and not any(given.only in net for net in NETS):
        parser.error(f"--only {given.only}: there are {', '.join(NETS)}")
    rows = []
    begun, busy, own = time.perf_counter(), busy_seconds(), cpu_seconds()
    print(f"{'net':<32}{'strategy':<28}{'predicted':>12}{'measured':>12}{'ratio':>8}")
    for row in results(given.steps, given.only):
        rows.append(row)
        if "net" in row:
            ratio = row["predicted"] / row["measured"]
            print(
                f"{row['net']:<32}{row['strategy']:<28}{1e3 * row['predicted']:>9.2f} ms{1e3 * row['measured']:>9.2f} ms"
                f"{ratio:>8.2f}",
                flush=True,
            )
    ratios = [row["predicted"] / row["measured"] for row in rows if "net" in row]
    near = sum(1 / 1.2 <= ratio <= 1.2 for ratio in ratios)
    print(f"within 20 %: {near} of {len(ratios)}; the median ratio is {statistics.median(ratios):.2f}")
    others = busy_seconds() - busy - (cpu_seconds() - own)
    others /= (time.perf_counter() - begun) * (os.cpu_count() or 1)
    print(f"others took {max(others, 0.0):.0%} of the machine meanwhile")
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": machine(), "rows": rows, "others": max(others, 0.0)}, indent=1))


if __name__ == "__main__":
    main()
