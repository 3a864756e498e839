"""What AllReduce on two workers adds to DistributedDataParallel written by hand, processes started the same way.

python benchmarks/deep/all_reduce.py --rounds 3
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

from nets import design, disk_store, net, write_rows

from harness import Benchmark  # isort: skip (nets puts it on the path)

BATCH, EPOCHS, WORKERS = 256, 6, 2

bench = Benchmark(
    "6 epochs of two workers, 256 rows a step, start of the processes included", rows=128_000, make_data=write_rows
)


@cache
def training() -> Any:
    from braidwater.blocks.windows import RowForm
    from braidwater.deep.losses import LOSSES
    from braidwater.deep.optimizers import OptimizerPlan
    from braidwater.parallel import Training

    loss = LOSSES["cross_entropy"].function
    return Training(net(), loss, OptimizerPlan(), RowForm(design()), epochs=EPOCHS, batch_size=BATCH)


@bench.contender("braidwater, AllReduce", ours=True)
def braidwater(data: Path) -> str:
    from braidwater.engines import LocalEngine
    from braidwater.parallel import AllReduce, Data

    found = AllReduce(WORKERS).train(training(), Data(disk_store(data)), LocalEngine(WORKERS))
    seconds = min(record["seconds"] for record in found.history) * EPOCHS / found.steps
    return f"loss {found.history[-1]['loss']:.3f}, {seconds * 1e3:.3f} ms a step at best"


@bench.contender("DistributedDataParallel by hand")
def by_hand(data: Path) -> str:
    from braidwater.engines.local.gang import run_gang

    def member(told: Any) -> tuple[float, float]:
        import numpy as np
        import torch
        from torch.nn.parallel import DistributedDataParallel

        features = torch.from_numpy(np.load(data / "features.npy"))
        labels = torch.from_numpy(np.load(data / "labels.npy"))
        module = DistributedDataParallel(net(), gradient_as_bucket_view=True)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
        best, mean = float("inf"), 0.0
        for epoch in range(EPOCHS):
            torch.manual_seed(epoch)
            begun, total, steps = time.perf_counter(), 0.0, 0
            for step in torch.randperm(len(features)).split(BATCH):
                index = step[told.rank :: told.size]
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(module(features[index]), labels[index])
                loss.backward()
                optimizer.step()
                total += loss.item() * len(index)
                steps += 1
            mean = total * told.size / len(features)
            best = min(best, (time.perf_counter() - begun) / steps)
        return mean, best

    mean, best = run_gang(member, WORKERS)[0]
    return f"loss {mean:.3f}, {best * 1e3:.3f} ms a step at best"


if __name__ == "__main__":
    bench.main()
