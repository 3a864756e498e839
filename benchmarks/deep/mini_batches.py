"""Shuffled mini-batches of 100 float32 columns: from the block cache, and from a DataLoader.

python benchmarks/deep/mini_batches.py --rows 400000
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nets import design, disk_store, write_rows

from harness import Benchmark  # isort: skip (nets puts it on the path)

BATCH = 1024

bench = Benchmark(
    "an epoch of shuffled mini-batches of 1024 rows, 100 float32 columns", rows=400_000, make_data=write_rows
)


def dataset(data: Path) -> Any:
    import numpy as np
    import torch

    return torch.utils.data.TensorDataset(
        torch.from_numpy(np.load(data / "features.npy")), torch.from_numpy(np.load(data / "labels.npy"))
    )


def loader(data: Path, workers: int) -> str:
    import torch

    torch.set_num_threads(1)
    loaded = torch.utils.data.DataLoader(dataset(data), BATCH, shuffle=True, num_workers=workers)
    return f"{sum(len(labels) for _, labels in loaded)} rows"


@bench.contender("braidwater, block cache on disk", ours=True)
def braidwater(data: Path) -> str:
    from braidwater.blocks.mini_batches import MiniBatches
    from braidwater.blocks.windows import RowForm

    batches = MiniBatches(disk_store(data), RowForm(design()), batch_size=BATCH)
    return f"{sum(batch.rows for batch in batches.epoch(0))} rows"


@bench.contender("torch gather, tensors in memory")
def gather(data: Path) -> str:
    import torch

    torch.set_num_threads(1)
    features, labels = dataset(data).tensors
    order = torch.randperm(len(features))
    return f"{sum(len(features[i]) + 0 * len(labels[i]) for i in order.split(BATCH))} rows"


@bench.contender("DataLoader, a sample at a time")
def one_process(data: Path) -> str:
    return loader(data, 0)


@bench.contender("DataLoader, 2 workers")
def two_workers(data: Path) -> str:
    return loader(data, 2)


if __name__ == "__main__":
    bench.main()
