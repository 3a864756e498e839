"""Mini-batches on one core beside the gather of a tensor in memory and torch's DataLoader, and how long a trainer waits for them.

python benchmarks/feeding.py --rounds 3
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "deep"))

import numpy as np
from nets import design, disk_store, memory_store, net, write_rows

from harness import Benchmark, Found

ROWS_BATCH, IMAGES_BATCH, IMAGE = 1024, 128, (3, 32, 32)
SECONDS = 2.0  # of each measurement
STEP_BATCH, HIDDEN, EPOCHS = 128, 160, 6  # with AdamW about a millisecond a step of 128 rows

Epoch = Callable[[int], Iterator[int]]


def write_all(folder: Path, rows: int) -> None:
    """`rows` rows of 100 float32 columns, a quarter as many images."""
    write_rows(folder, rows)
    random = np.random.default_rng(0)
    count = max(rows // 4, 1)
    np.save(folder / "images.npy", random.integers(0, 256, (count, int(np.prod(IMAGE))), np.uint8))
    np.save(folder / "classes.npy", random.integers(0, 10, count))


bench = Benchmark("feeding: rows of 100 float32 columns, images of 32 x 32 x 3 bytes, on one core", rows=400_000,
                  make_data=write_all)  # fmt: skip


def rate(epoch: Epoch, what: str) -> Found:
    """Rows a second of whole epochs on one core, after one that is not counted; `epoch(number)` yields rows of batches."""
    import torch

    torch.set_num_threads(1)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        sum(epoch(0))
        begun, cpu, rows, number = time.perf_counter(), time.process_time(), 0, 1
        while (wall := time.perf_counter() - begun) < SECONDS:
            rows += sum(epoch(number))
            number += 1
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    finally:
        os.sched_setaffinity(0, cores)
    values = {"rows_a_second": rows / wall, "rows_a_cpu_second": rows / max(cpu, 1e-9)}
    text = f"{rows / wall / 1e6:.3f} M {what} a second, {values['rows_a_cpu_second'] / 1e6:.3f} M a CPU second"
    return Found(text, values, wall=1e6 * wall / rows, cpu=1e6 * cpu / rows)  # of a million


def batches(store: Any, form: Any, size: int) -> Epoch:
    from braidwater.blocks.mini_batches import MiniBatches

    made = MiniBatches(store, form, batch_size=size)
    return lambda number: (batch.rows for batch in made.epoch(number))


def tensors(data: Path, names: tuple[str, ...]) -> list[Any]:
    import torch

    return [torch.from_numpy(np.load(data / f"{name}.npy")) for name in names]


def gathered(parts: list[Any], size: int) -> Epoch:
    import torch

    def epoch(number: int) -> Iterator[int]:
        for index in torch.randperm(len(parts[0])).split(size):
            picked = [part[index] for part in parts]
            yield len(picked[0])

    return epoch


def loaded(parts: list[Any], size: int, batched: bool) -> Epoch:
    """Batches of a DataLoader, by sample or with a dataset that gives a whole batch (``__getitems__``)."""
    import torch

    class Batched(torch.utils.data.TensorDataset):
        def __getitems__(self, index: list[int]) -> list[Any]:
            chosen = torch.tensor(index)
            return [tensor[chosen] for tensor in self.tensors]

    if batched:
        loader = torch.utils.data.DataLoader(Batched(*parts), size, shuffle=True, collate_fn=lambda found: found)
    else:
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*parts), size, shuffle=True)
    return lambda number: (len(found[0]) for found in loader)


def image_batches(data: Path) -> Epoch:
    from braidwater.blocks.windows import RowForm
    from braidwater.encoding.design import design_of
    from braidwater.testing.strategies import uneven_store

    pixels, classes = (np.load(data / f"{name}.npy") for name in IMAGES)
    unit = min(2**23 // pixels.shape[1], len(pixels))  # 8 MB, as tables are cut
    units = [min(unit, len(pixels) - begin) for begin in range(0, len(pixels), unit)]
    store = uneven_store({"image": pixels, "y": classes}, tuple(units))
    return batches(store, RowForm(design_of([], [], label="y"), whole="image"), IMAGES_BATCH)


def row_form() -> Any:
    from braidwater.blocks.windows import RowForm

    return RowForm(design())


ROWS, IMAGES = ("features", "labels"), ("images", "classes")
CONTENDERS: dict[str, tuple[Callable[[Path], Epoch], str]] = {
    "rows: braidwater, blocks in memory": (lambda d: batches(memory_store(d), row_form(), ROWS_BATCH), "rows"),
    "rows: braidwater, block file": (lambda d: batches(disk_store(d), row_form(), ROWS_BATCH), "rows"),
    "rows: gather from a tensor": (lambda d: gathered(tensors(d, ROWS), ROWS_BATCH), "rows"),
    "rows: DataLoader, a sample at a time": (lambda d: loaded(tensors(d, ROWS), ROWS_BATCH, False), "rows"),
    "rows: DataLoader, a batch at a time": (lambda d: loaded(tensors(d, ROWS), ROWS_BATCH, True), "rows"),
    "images: braidwater, blocks in memory": (image_batches, "images"),
    "images: gather from a tensor": (lambda d: gathered(tensors(d, IMAGES), IMAGES_BATCH), "images"),
    "images: DataLoader, a sample at a time": (lambda d: loaded(tensors(d, IMAGES), IMAGES_BATCH, False), "images"),
    "images: DataLoader, a batch at a time": (lambda d: loaded(tensors(d, IMAGES), IMAGES_BATCH, True), "images"),
}


def contender(make: Callable[[Path], Epoch], what: str) -> Callable[[Path], Found]:
    return lambda data: rate(make(data), what)


for _name, (_make, _what) in CONTENDERS.items():
    bench.contender(_name, ours="braidwater" in _name)(contender(_make, _what))


def waiting(store: Any) -> Found:
    """The share of an epoch's time that a trainer waits for rows, of the epochs after the first."""
    import torch

    import braidwater as bw
    from braidwater.deep.losses import LOSSES
    from braidwater.deep.optimizers import OptimizerPlan
    from braidwater.engines import LocalEngine
    from braidwater.events import BlockDone, PassStarted
    from braidwater.parallel import Data, Training

    torch.set_num_threads(1)
    loss = LOSSES["cross_entropy"].function
    training = Training(net(HIDDEN), loss, OptimizerPlan(), row_form(), epochs=EPOCHS, batch_size=STEP_BATCH)
    epochs: list[list[BlockDone]] = []

    def listener(event: Any) -> None:
        if isinstance(event, PassStarted):
            epochs.append([])
        elif isinstance(event, BlockDone):
            epochs[-1].append(event)

    with bw.listen(listener):
        bw.Single().train(training, Data(store), LocalEngine(1))
    seconds = [sum(one.seconds for one in epoch) for epoch in epochs[1:]]
    waits = [sum(one.data_seconds for one in epoch) for epoch in epochs[1:]]
    share = sum(waits) / sum(seconds)
    step = sum(seconds) / (len(seconds) * -(-store.rows // STEP_BATCH))
    text = f"{share:.2%} of the time waits for rows; {step * 1e3:.3f} ms a step"
    return Found(text, {"waiting": share, "step_ms": step * 1e3})


@bench.contender("trainer: wait for rows, blocks in memory", ours=True)
def waiting_in_memory(data: Path) -> Found:
    return waiting(memory_store(data))


@bench.contender("trainer: wait for rows, block file", ours=True)
def waiting_on_disk(data: Path) -> Found:
    return waiting(disk_store(data))


if __name__ == "__main__":
    bench.main()
