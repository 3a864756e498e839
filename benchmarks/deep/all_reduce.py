"""What AllReduce on two workers adds to DistributedDataParallel written by hand.

With start: each is a program that starts two processes, by torch's elastic launcher with the same settings, and trains.
Without: both train in the same two processes and take turns (see `turns`).

python benchmarks/deep/all_reduce.py --rounds 3
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from nets import design, disk_store, net, write_rows
from turns import Turn, in_turns, ratio

from harness import Benchmark, Found  # isort: skip (nets puts it on the path)

BATCH, EPOCHS, WORKERS = 256, 6, 2

bench = Benchmark("6 epochs of two workers, 256 rows a step", rows=128_000, make_data=write_rows)


def training() -> Any:
    from braidwater.blocks.windows import RowForm
    from braidwater.deep.losses import LOSSES
    from braidwater.deep.optimizers import OptimizerPlan
    from braidwater.parallel import Training

    loss = LOSSES["cross_entropy"].function
    return Training(net(), loss, OptimizerPlan(), RowForm(design()), epochs=EPOCHS, batch_size=BATCH)


def by_hand(data: Path, rank: int, size: int, turn: Turn | None = None) -> tuple[float, float]:
    """The loss of the last epoch, and the seconds of the epochs."""
    import numpy as np
    import torch
    from torch.nn.parallel import DistributedDataParallel

    features = torch.from_numpy(np.load(data / "features.npy"))
    labels = torch.from_numpy(np.load(data / "labels.npy"))
    module = DistributedDataParallel(net(), gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    begun, mean = time.perf_counter(), 0.0
    for epoch in range(EPOCHS):
        total = 0.0
        order = torch.Generator().manual_seed(epoch)
        for step in torch.randperm(len(features), generator=order).split(BATCH):
            index = step[rank::size]
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(features[index]), labels[index])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
            if turn is not None:
                turn.stepped()
        mean = total * size / len(features)
    return mean, time.perf_counter() - begun


@bench.contender("braidwater, AllReduce, with start", ours=True)
def braidwater(data: Path) -> Found:
    from braidwater.engines import LocalEngine
    from braidwater.parallel import AllReduce, Data

    begun = time.perf_counter()
    found = AllReduce(WORKERS).train(training(), Data(disk_store(data)), LocalEngine(WORKERS))
    seconds = sum(record["seconds"] for record in found.history)
    start = time.perf_counter() - begun - seconds
    return Found(f"loss {found.history[-1]['loss']:.3f}, start and end {start:.1f} s", {"start_s": start})


@bench.contender("DistributedDataParallel by hand, with start")
def hand(data: Path) -> Found:
    from braidwater.engines.local.gang import run_gang

    begun = time.perf_counter()
    mean, seconds = run_gang(lambda told: by_hand(data, told.rank, told.size), WORKERS)[0]
    start = time.perf_counter() - begun - seconds
    return Found(f"loss {mean:.3f}, start and end {start:.1f} s", {"start_s": start})


def ours(member: Any, data: Any, turn: Turn) -> float:
    from braidwater.parallel.all_reduce import AllReduce, AllReduceReplica
    from braidwater.parallel.loop import run_epochs

    class InTurns(AllReduceReplica):
        """What `AllReduce` trains with, and a word after each step."""

        def stepped(self, learner: Any, weight: float) -> None:
            turn.stepped()

    return float(
        run_epochs(training(), data, InTurns(member, AllReduce(WORKERS, transport="gloo"))).history[-1]["loss"]
    )


@bench.contender("both in the same processes, in turns")
def turns(data: Path) -> Found:
    from braidwater.engines.local.gang import run_gang
    from braidwater.parallel import Data

    rows = Data(disk_store(data))

    def member(told: Any) -> Any:
        one, other = in_turns(partial(ours, told, rows), partial(by_hand, data, told.rank, told.size))
        return (one.result, one.wall, one.cpu, one.step_ms), (other.result, other.wall, other.cpu, other.step_ms)

    (loss, wall, cpu, step), (_, hand_wall, hand_cpu, hand_step) = run_gang(member, WORKERS)[0]
    values = {"wall_ratio": ratio(wall, hand_wall), "cpu_ratio": ratio(cpu, hand_cpu)}
    text = f"AllReduce takes {values['wall_ratio']:.3f} of the wall time by hand, {values['cpu_ratio']:.3f} of its CPU time"
    return Found(f"{text}; {step:.2f} and {hand_step:.2f} CPU-ms a step; loss {loss:.3f}", values)


if __name__ == "__main__":
    bench.main()
