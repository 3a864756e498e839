"""Model parallelism on two workers: against torch's own forms written by hand, against one worker, and against predictions.

Ours and the form by hand train in the same two processes and take turns (see `turns`). Workers have one thread each.
python benchmarks/deep/parallel_model.py --rounds 1
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import nets  # noqa: F401  (puts the harness on the path)
from turns import Turn, in_turns, ratio

from harness import Benchmark, Found  # isort: skip (turns's folder puts it on the path)

WORKERS, BATCH, STEPS, MICRO_BATCHES = 2, 64, 125, 8
WIDTH, LENGTH, PICTURE, PICTURES = 256, 32, (3, 64, 64), 8

bench = Benchmark(f"{STEPS} steps of {BATCH} rows on two workers of one thread", rows=BATCH * STEPS)


def mlp() -> Any:
    from torch import nn

    pairs = [nn.Sequential(nn.Linear(WIDTH, 8 * WIDTH), nn.GELU(), nn.Linear(8 * WIDTH, WIDTH)) for _ in range(2)]
    return nn.Sequential(*pairs, nn.LayerNorm(WIDTH))


def transformer() -> Any:
    from torch import nn

    layers = [nn.TransformerEncoderLayer(WIDTH // 2, 4, WIDTH, dropout=0.0, batch_first=True) for _ in range(4)]
    return nn.Sequential(
        nn.Unflatten(1, (LENGTH, WIDTH // 2)), *layers, nn.Flatten(), nn.LayerNorm(LENGTH * WIDTH // 2)
    )


def cnn() -> Any:
    from torch import nn

    layers = [nn.Unflatten(1, PICTURE), nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


WIDTHS = {mlp: WIDTH, transformer: LENGTH * WIDTH // 2, cnn: PICTURE[0] * PICTURE[1] * PICTURE[2]}


def training(make: Any, steps: int = STEPS, batch: int = BATCH) -> tuple[Any, Any]:
    """A training of `steps` steps, one epoch each, and its rows: one mini-batch, as reading is not what is measured."""
    import numpy as np
    import torch

    from braidwater.blocks.windows import RowForm
    from braidwater.deep.losses import LOSSES
    from braidwater.deep.optimizers import OptimizerPlan
    from braidwater.encoding.design import design_of
    from braidwater.parallel import Data, Training
    from braidwater.testing.strategies import uneven_store

    torch.manual_seed(0)
    random = np.random.default_rng(0)
    columns = {
        "x": random.standard_normal((batch, WIDTHS[make]), dtype=np.float32),
        "y": random.integers(0, 10, batch).astype(np.uint8),
    }
    loss, form = LOSSES["cross_entropy"].function, RowForm(design_of([], [], label="y"), whole="x")
    made = Training(make(), loss, OptimizerPlan("sgd", 0.01), form, epochs=steps, batch_size=batch)
    return made, Data(uneven_store(columns, (batch,)))


def train(made: Any, data: Any, replica: Any, turn: Turn | None = None) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of each step of a training."""
    from braidwater.parallel.loop import run_epochs

    walls, cpus, last = [], [], [time.perf_counter(), time.thread_time()]

    def stepped(learner: Any, weight: float, then: Any = replica.stepped) -> None:
        then(learner, weight)
        now = [time.perf_counter(), time.thread_time()]
        walls.append(now[0] - last[0])
        cpus.append(now[1] - last[1])
        if turn is not None:
            turn.stepped()
        last[:] = [time.perf_counter(), time.thread_time()]

    replica.stepped = stepped
    run_epochs(made, data, replica)
    return walls, cpus


def loop_by_hand(step: Any, turn: Turn) -> None:
    for _ in range(STEPS):
        step()
        turn.stepped()


def batch_of(data: Any) -> tuple[Any, Any]:
    import torch

    block = data.rows.read(0)
    return torch.from_numpy(block["x"].copy()), torch.from_numpy(block["y"].astype("int64"))


def tensor_by_hand(made: Any, data: Any, turn: Turn) -> None:
    import copy

    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    module = copy.deepcopy(made.module)
    plan = {f"{pair}.0": ColwiseParallel() for pair in range(2)} | {f"{pair}.2": RowwiseParallel() for pair in range(2)}
    module = parallelize_module(module, init_device_mesh("cpu", (WORKERS,)), plan)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    features, target = batch_of(data)

    def step() -> None:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(features), target)
        loss.backward()
        optimizer.step()
        loss.item()

    loop_by_hand(step, turn)


def pipeline_by_hand(made: Any, data: Any, rank: int, cut: int, turn: Turn) -> None:
    import copy

    import torch
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B

    module = copy.deepcopy(made.module)
    stage = module[:cut] if rank == 0 else module[cut:]
    optimizer = torch.optim.SGD(stage.parameters(), lr=0.01)
    features, target = batch_of(data)
    place = PipelineStage(stage, rank, WORKERS, torch.device("cpu"))
    schedule = Schedule1F1B(place, MICRO_BATCHES, loss_fn=torch.nn.functional.cross_entropy)

    def step() -> None:
        optimizer.zero_grad()
        losses: list[Any] = []
        if rank == 0:
            schedule.step(features)
        else:
            schedule.step(target=target, losses=losses, return_outputs=False)
            torch.stack(losses).sum().item()
        optimizer.step()

    loop_by_hand(step, turn)


def compared(ours: Any, hand: Any) -> tuple[float, list[float], list[float]]:
    """Run both in turns: our wall time over that by hand, and the seconds of our steps."""
    one, other = in_turns(ours, hand)
    walls, cpus = one.result
    return ratio(one.wall, other.wall), walls, cpus


def median(seconds: list[float]) -> float:
    return statistics.median(seconds[len(seconds) // 5 :])


def one_worker(make: Any, batch: int = BATCH) -> float:
    """Seconds of a step on one worker of one thread, in a process of its own."""
    from braidwater.engines.local.gang import run_gang
    from braidwater.parallel.base import Replica

    made, data = training(make, 20, batch)

    def member(told: Any) -> float:
        import torch

        torch.set_num_threads(1)
        return median(train(made, data, Replica())[0])

    return float(run_gang(member, 1)[0])


@bench.contender("tensor parallel, and by hand", ours=True)
def tensor(data: Path) -> Found:
    from braidwater.engines.local.gang import run_gang
    from braidwater.parallel.grid import Grid
    from braidwater.parallel.model_replica import TENSOR
    from braidwater.parallel.tensor_parallel.plan import make_plan
    from braidwater.parallel.tensor_parallel.strategy import TensorReplica

    made, rows = training(mlp)
    plan = make_plan(made.module, "auto", WORKERS)

    def member(told: Any) -> Any:
        replica = TensorReplica(told, Grid({TENSOR: WORKERS}), plan)
        return compared(partial(train, made, rows, replica), partial(tensor_by_hand, made, rows))

    against, walls, _ = run_gang(member, WORKERS)[0]
    speed_up = one_worker(mlp) / median(walls)
    text = f"{against:.3f} of the wall time of DTensor by hand; {speed_up:.2f} x as fast as one worker"
    return Found(text, {"wall_ratio": against, "speed_up": speed_up, "step_ms": 1e3 * median(walls)})


@bench.contender("pipeline, and by hand")
def pipeline(data: Path) -> Found:
    from braidwater.engines.local.gang import run_gang
    from braidwater.parallel import Pipeline
    from braidwater.parallel.grid import Grid
    from braidwater.parallel.model_replica import PIPELINE
    from braidwater.parallel.pipeline import predict_step_seconds
    from braidwater.parallel.pipeline.replica import PipelineReplica

    made, rows = training(transformer)
    plan = Pipeline(WORKERS, MICRO_BATCHES).plan(made, rows)
    cut = int(plan.names[plan.begins[0]])

    def member(told: Any) -> Any:
        replica = PipelineReplica(told, Grid({PIPELINE: WORKERS}), plan)
        return compared(partial(train, made, rows, replica), partial(pipeline_by_hand, made, rows, told.rank, cut))

    found = run_gang(member, WORKERS)
    against, walls, _ = found[0]
    idle = 1 - sum(median(cpus) for _, _, cpus in found) / (WORKERS * median(walls))
    step = predict_step_seconds(plan.stage_seconds, MICRO_BATCHES)
    bubble = 1 - MICRO_BATCHES * sum(plan.stage_seconds) / (WORKERS * step)
    speed_up = one_worker(transformer) / median(walls)
    text = (
        f"{against:.3f} of the wall time of torch's Schedule1F1B by hand; {speed_up:.2f} x as fast as one worker; idle "
        f"{idle:.3f}, predicted {bubble:.3f}"
    )
    values = {"wall_ratio": against, "speed_up": speed_up, "idle": idle, "predicted_idle": bubble}
    return Found(text, {**values, "step_ms": 1e3 * median(walls)})


@bench.contender("spatial")
def spatial(data: Path) -> Found:
    from braidwater.engines.local.gang import run_gang
    from braidwater.parallel.grid import Grid
    from braidwater.parallel.model_replica import SPATIAL
    from braidwater.parallel.spatial import halo_layers, predict_halo_bytes
    from braidwater.parallel.spatial.strategy import SpatialReplica

    steps = 20
    made, rows = training(cnn, steps, PICTURES)

    def member(told: Any) -> Any:
        replica = SpatialReplica(told, Grid({SPATIAL: WORKERS}))
        walls, _ = train(made, rows, replica)
        return walls, replica.regions.halo_bytes / steps

    walls, sent = run_gang(member, WORKERS)[0]
    predicted = predict_halo_bytes(halo_layers(made.module, batch_of(rows)[0], WORKERS), WORKERS)[0]
    speed_up = one_worker(cnn, PICTURES) / median(walls)
    text = f"{speed_up:.2f} x as fast as one worker; {sent:,.0f} bytes of halo a step, predicted {predicted:,}"
    values = {"speed_up": speed_up, "halo_bytes": sent, "predicted_halo_bytes": float(predicted)}
    return Found(text, {**values, "step_ms": 1e3 * median(walls)})


if __name__ == "__main__":
    bench.main()
