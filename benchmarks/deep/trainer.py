"""What the trainer adds to a loop written by hand over tensors in memory, for a net with steps of a millisecond.

Both train in one process and take turns (see `turns`). python benchmarks/deep/trainer.py --rounds 3
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

from nets import design, memory_store, net, write_rows
from turns import Turn, in_turns, ratio

from harness import Benchmark, Found  # isort: skip (nets puts it on the path)

BATCH, EPOCHS = 128, 10
HIDDEN = 160  # with AdamW about a millisecond a step of 128 rows

bench = Benchmark(
    f"{EPOCHS} epochs of a net with steps of a millisecond, one thread", rows=64_000, make_data=write_rows
)


def ours(data: Path, turn: Turn) -> float:
    from braidwater.blocks.windows import RowForm
    from braidwater.deep.losses import LOSSES
    from braidwater.deep.optimizers import OptimizerPlan
    from braidwater.parallel import Data, Training
    from braidwater.parallel.base import Replica
    from braidwater.parallel.loop import run_epochs

    class InTurns(Replica):
        """What `Single` trains with, and a word after each step."""

        def stepped(self, learner: Any, weight: float) -> None:
            turn.stepped()

    loss = LOSSES["cross_entropy"].function
    training = Training(net(HIDDEN), loss, OptimizerPlan(), RowForm(design()), epochs=EPOCHS, batch_size=BATCH)
    return float(run_epochs(training, Data(memory_store(data)), InTurns()).history[-1]["loss"])


def by_hand(data: Path, turn: Turn) -> float:
    import numpy as np
    import torch

    features, labels = (torch.from_numpy(np.load(data / f"{name}.npy")) for name in ("features", "labels"))
    module = net(HIDDEN)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    mean = 0.0
    for epoch in range(EPOCHS):
        total = 0.0
        order = torch.Generator().manual_seed(epoch)
        for index in torch.randperm(len(features), generator=order).split(BATCH):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(features[index]), labels[index])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
            turn.stepped()
        mean = total / len(features)
    return mean


@cache
def both(data: Path) -> tuple[Turn, Turn]:
    import torch

    torch.set_num_threads(1)
    return in_turns(partial(ours, data), partial(by_hand, data))


def compared(data: Path, place: int) -> Found:
    one, other = both(data)
    turn = (one, other)[place]
    wall, cpu = ratio(one.wall, other.wall), ratio(one.cpu, other.cpu)
    text = f"loss {turn.result:.3f}, {turn.step_ms:.3f} CPU-ms a step"
    if place == 0:
        text += f"; turn by turn {wall:.3f} of the wall time by hand, {cpu:.3f} of its CPU time"
    values = {"wall_ratio": wall, "cpu_ratio": cpu, "step_ms": turn.step_ms}
    return Found(text, values, wall=sum(turn.wall), cpu=sum(turn.cpu))


@bench.contender("braidwater, Single", ours=True)
def braidwater(data: Path) -> Found:
    return compared(data, 0)


@bench.contender("torch by hand")
def torch_by_hand(data: Path) -> Found:
    return compared(data, 1)


if __name__ == "__main__":
    bench.main()
