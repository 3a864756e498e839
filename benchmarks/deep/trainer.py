"""What the trainer adds to a loop written by hand over tensors in memory, for a net with steps of a millisecond.

python benchmarks/deep/trainer.py --rounds 5
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

from nets import design, memory_store, net, write_rows

from harness import Benchmark  # isort: skip (nets puts it on the path)

BATCH, EPOCHS = 128, 3

bench = Benchmark("3 epochs of a net with steps of a millisecond, one thread", rows=64_000, make_data=write_rows)


@cache
def rows_in_memory(data: Path) -> Any:
    import numpy as np
    import torch

    torch.set_num_threads(1)
    return torch.from_numpy(np.load(data / "features.npy")), torch.from_numpy(np.load(data / "labels.npy"))


@cache
def blocks_in_memory(data: Path) -> Any:
    import torch

    torch.set_num_threads(1)
    return memory_store(data)


@bench.contender("braidwater, Single", ours=True)
def braidwater(data: Path) -> str:
    from braidwater.blocks.windows import RowForm
    from braidwater.deep.losses import LOSSES
    from braidwater.deep.optimizers import OptimizerPlan
    from braidwater.engines import LocalEngine
    from braidwater.parallel import Data, Single, Training

    store = blocks_in_memory(data)
    training = Training(
        net(), LOSSES["cross_entropy"].function, OptimizerPlan(), RowForm(design()), epochs=EPOCHS, batch_size=BATCH
    )
    found = Single().train(training, Data(store), LocalEngine(1))
    seconds = [record["seconds"] for record in found.history]
    return f"loss {found.history[-1]['loss']:.3f}, {min(seconds) / found.steps * EPOCHS * 1e3:.3f} ms a step at best"


@bench.contender("torch by hand")
def by_hand(data: Path) -> str:
    import torch

    features, labels = rows_in_memory(data)
    module = net()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    steps, best, mean = 0, float("inf"), 0.0
    for epoch in range(EPOCHS):
        begun, total, before = time.perf_counter(), 0.0, steps
        torch.manual_seed(epoch)
        for index in torch.randperm(len(features)).split(BATCH):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(features[index]), labels[index])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
            steps += 1
        mean = total / len(features)
        best = min(best, (time.perf_counter() - begun) / (steps - before))
    return f"loss {mean:.3f}, {best * 1e3:.3f} ms a step at best"


if __name__ == "__main__":
    bench.main()
