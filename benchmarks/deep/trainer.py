"""What the trainer adds to a loop written by hand over tensors in memory, for a net with steps of a millisecond.

Both train in one process and take turns, 25 steps each, so that whatever else runs on the machine slows both alike; a
ratio is that of two neighbouring turns, and the median of some hundred is what counts.

python benchmarks/deep/trainer.py --rounds 3
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any

from nets import design, memory_store, net, write_rows

from harness import Benchmark, Found  # isort: skip (nets puts it on the path)

BATCH, EPOCHS, TURN_STEPS = 128, 20, 25
HIDDEN = 160  # with AdamW about a millisecond a step of 128 rows

bench = Benchmark(
    f"{EPOCHS} epochs of a net with steps of a millisecond, one thread", rows=64_000, make_data=write_rows
)


class Turn:
    """One of two threads that run in turns: `stepped` gives the other its turn after so many steps."""

    def __init__(self) -> None:
        self.mine = Semaphore(0)
        self.other: Turn = self
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._steps = 0

    def stepped(self) -> None:
        self._steps += 1
        if self._steps % TURN_STEPS == 0:
            self.wall.append(time.perf_counter() - self._began)
            self.cpu.append(time.thread_time() - self._cpu)
            self.other.mine.release()
            self._wait()

    def run(self, train: Callable[[Turn], Any], found: list[Any]) -> None:
        self._wait()
        try:
            found.append(train(self))
        finally:
            self.other.mine.release(1_000_000)  # this one is through: the other waits no more

    def _wait(self) -> None:
        self.mine.acquire()
        self._began, self._cpu = time.perf_counter(), time.thread_time()


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
def in_turns(data: Path) -> tuple[Turn, Turn, list[float]]:
    """Both trainings, in turns: the times of the turns of each, and the losses at the end."""
    import torch

    torch.set_num_threads(1)
    one, other = Turn(), Turn()
    one.other, other.other = other, one
    losses: list[list[float]] = [[], []]
    threads = [
        Thread(target=turn.run, args=(lambda turn, train=train: train(data, turn), found))
        for turn, train, found in zip((one, other), (ours, by_hand), losses, strict=True)
    ]
    for thread in threads:
        thread.start()
    one.mine.release()
    for thread in threads:
        thread.join()
    return one, other, [found[0] for found in losses]


def compared(data: Path, place: int) -> Found:
    one, other, losses = in_turns(data)
    turns = (one, other)[place]
    # the first turns hold the start: windows, momenta, caches
    ratios = {
        name: statistics.median(a / b for a, b in list(zip(getattr(one, name), getattr(other, name), strict=False))[2:])
        for name in ("wall", "cpu")
    }
    step = statistics.median(turns.cpu) / TURN_STEPS
    text = f"loss {losses[place]:.3f}, {step * 1e3:.3f} CPU-ms a step"
    if place == 0:
        text += f"; turn by turn {ratios['wall']:.3f} of the wall time by hand, {ratios['cpu']:.3f} of the CPU time"
    values = {"wall_ratio": ratios["wall"], "cpu_ratio": ratios["cpu"], "step_ms": step * 1e3}
    return Found(text, values, wall=sum(turns.wall), cpu=sum(turns.cpu))


@bench.contender("braidwater, Single", ours=True)
def braidwater(data: Path) -> Found:
    return compared(data, 0)


@bench.contender("torch by hand")
def torch_by_hand(data: Path) -> Found:
    return compared(data, 1)


if __name__ == "__main__":
    bench.main()
