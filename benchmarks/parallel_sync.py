"""Synchronous strategies beside the same thing written by hand with torch: time of a step, bytes, memory.

Both train in the same two processes and take turns (see `turns`), so that what else runs on the machine slows both alike. For
threshold encoding, which torch has not, for PowerSGD, whose two forms do not get along in one process, and for shared memory the
peer is plain DistributedDataParallel; Lightning Fabric is one more, where it is installed.

python benchmarks/parallel_sync.py --rounds 1
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "deep"))

from nets import design, disk_store, net, write_rows
from turns import Turn, in_turns, ratio

from harness import Benchmark, Found

BATCH, EPOCHS, WORKERS, HIDDEN, LAYER = 256, 4, 2, 640, 50_000

bench = Benchmark("4 epochs of two workers, 256 rows a step, 480 k parameters", rows=32_000, make_data=write_rows)


def training(module: Any = None) -> Any:
    from braidwater.blocks.windows import RowForm
    from braidwater.deep.losses import LOSSES
    from braidwater.deep.optimizers import OptimizerPlan
    from braidwater.parallel import Training

    form, loss = RowForm(design()), LOSSES["cross_entropy"].function
    return Training(module or net(HIDDEN), loss, OptimizerPlan(), form, epochs=EPOCHS, batch_size=BATCH)


def by_hand(data: Path, wrap: Callable[[Any], Any], rank: int, size: int, turn: Turn) -> float:
    """The loss of the last epoch of a loop in plain torch, around what `wrap` makes of the net."""
    import numpy as np
    import torch

    features = torch.from_numpy(np.load(data / "features.npy"))
    labels = torch.from_numpy(np.load(data / "labels.npy"))
    module = wrap(net(HIDDEN))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        total = 0.0
        for step in torch.randperm(len(features), generator=torch.Generator().manual_seed(epoch)).split(BATCH):
            index = step[rank::size]
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(features[index]), labels[index])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
            turn.stepped()
    return total * size / len(features)


def distributed(hook: str | None, module: Any) -> Any:
    import torch.distributed as dist
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
    from torch.nn.parallel import DistributedDataParallel

    wrapped = DistributedDataParallel(module, gradient_as_bucket_view=True)
    if hook is not None:
        compress = getattr(default_hooks, f"{hook}_compress_hook")
        # a function of our own, as torch refuses bf16 by its name
        wrapped.register_comm_hook(dist.group.WORLD, lambda state, bucket: compress(state, bucket))
    return wrapped


def by_fabric(module: Any) -> Any:
    """Lightning Fabric's form of the same, in the process group that is there."""
    import torch.distributed as dist
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import LightningEnvironment
    from lightning.fabric.strategies import DDPStrategy

    place = LightningEnvironment()
    place.set_global_rank(dist.get_rank())
    place.set_world_size(dist.get_world_size())
    strategy = DDPStrategy(process_group_backend="gloo", cluster_environment=place)
    fabric = Fabric(accelerator="cpu", devices=1, num_nodes=dist.get_world_size(), strategy=strategy)
    fabric.launch()
    return fabric.setup_module(module)


def fully_sharded(stage: int, module: Any) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORKERS,))
    for layer in module:
        if sum(p.numel() for p in layer.parameters()) >= LAYER:
            fully_shard(layer, mesh=mesh, reshard_after_forward=stage == 3)
    return fully_shard(module, mesh=mesh, reshard_after_forward=False)


def ours(member: Any, rows: Any, strategy: Any, turn: Turn) -> tuple[float, float]:
    """The loss of the last epoch, and the bytes of a step."""
    from braidwater.parallel import AllReduce
    from braidwater.parallel.all_reduce import AllReduceReplica
    from braidwater.parallel.loop import run_epochs
    from braidwater.parallel.sharded import ShardedReplica

    base: Any = AllReduceReplica if isinstance(strategy, AllReduce) else partial(ShardedReplica, precision="float32")
    replica = base(member, strategy)
    stepped = replica.stepped

    def in_turn(learner: Any, weight: float) -> None:
        stepped(learner, weight)
        turn.stepped()

    replica.stepped = in_turn
    trained = run_epochs(training(), rows, replica)
    return float(trained.history[-1]["loss"]), replica.bytes_exchanged / trained.steps


def compare(make: Callable[[], Any], wrap: Callable[[Any], Any], data: Path) -> Found:
    from braidwater.engines.local.gang import run_gang
    from braidwater.parallel import Data

    rows, strategy = Data(disk_store(data)), make()

    def member(told: Any) -> Any:
        hand = partial(by_hand, data, wrap, told.rank, told.size)
        one, other = in_turns(partial(ours, told, rows, strategy), hand)
        return (one.result, one.wall, one.cpu, one.step_ms), (other.result, other.wall, other.cpu, other.step_ms)

    ((loss, sent), wall, cpu, step), (hand_loss, hand_wall, hand_cpu, hand_step) = run_gang(member, WORKERS)[0]
    values = {
        "wall_ratio": ratio(wall, hand_wall),
        "cpu_ratio": ratio(cpu, hand_cpu),
        "step_ms": statistics.median(wall) / 25 * 1e3,
        "hand_ms": statistics.median(hand_wall) / 25 * 1e3,
        "bytes_of_a_step": sent,
    }
    text = f"{values['wall_ratio']:.3f} of the wall time by hand, {values['cpu_ratio']:.3f} of its CPU time; "
    text += f"{values['step_ms']:.2f} and {values['hand_ms']:.2f} ms a step ({step:.2f} and {hand_step:.2f} of CPU); "
    return Found(f"{text}{sent / 1e3:.0f} kB a step; loss {loss:.3f} and {hand_loss:.3f}", values)


def all_reduce(**options: Any) -> Callable[[], Any]:
    def make() -> Any:
        from braidwater.parallel import AllReduce

        return AllReduce(WORKERS, **options)

    return make


def compressed(name: str) -> Callable[[], Any]:
    def make() -> Any:
        from braidwater.parallel import AllReduce
        from braidwater.parallel.compression import PowerSGD, compression_of

        chosen = PowerSGD(rank=2, start_step=2) if name == "power_sgd" else compression_of(name)
        return AllReduce(WORKERS, compression=chosen)

    return make


def sharded(stage: int) -> Callable[[], Any]:
    def make() -> Any:
        from braidwater.parallel import Sharded

        return Sharded(WORKERS, stage=stage, min_parameters=LAYER)  # type: ignore[arg-type]

    return make


PAIRS = {
    "AllReduce, gloo": (all_reduce(transport="gloo"), partial(distributed, None)),
    "AllReduce, shared memory": (all_reduce(transport="shared_memory"), partial(distributed, None)),
    "AllReduce, fp16": (compressed("fp16"), partial(distributed, "fp16")),
    "AllReduce, bf16": (compressed("bf16"), partial(distributed, "bf16")),
    "AllReduce, PowerSGD of rank 2": (compressed("power_sgd"), partial(distributed, None)),
    "AllReduce, threshold": (compressed("threshold"), partial(distributed, None)),
    "Sharded, stage 3": (sharded(3), partial(fully_sharded, 3)),
    "Sharded, stage 2": (sharded(2), partial(fully_sharded, 2)),
}
if find_spec("lightning"):
    PAIRS["AllReduce, and Lightning Fabric"] = (all_reduce(), by_fabric)
for _name, _pair in PAIRS.items():
    bench.contender(_name, ours=True)(partial(compare, *_pair))


@bench.contender("one all-reduce, shared memory and gloo", ours=True)
def calls(data: Path) -> Found:
    """Milliseconds of a call, the median of those that both make in turns."""
    from braidwater.engines.local.gang import run_gang

    def member(told: Any) -> dict[str, float]:
        import torch
        import torch.distributed as dist

        from braidwater.parallel.shared_memory import open_shared_memory

        memory = open_shared_memory()
        assert memory is not None
        found = {}
        for kilobytes in (256, 1_300, 4_200, 13_000):
            numbers = torch.zeros(kilobytes * 256)
            taken: dict[str, list[float]] = {"shared": [], "gloo": []}
            for _ in range(60):
                for name, call in (("shared", memory.sum), ("gloo", dist.all_reduce)):
                    begun = time.perf_counter()
                    call(numbers)
                    taken[name].append(time.perf_counter() - begun)
            found |= {f"{name}_{kilobytes}_ms": statistics.median(times) * 1e3 for name, times in taken.items()}
        return found

    values = run_gang(member, WORKERS)[0]
    sizes = (256, 1_300, 4_200, 13_000)
    text = "; ".join(
        f"{size} kB {values[f'shared_{size}_ms']:.2f} and {values[f'gloo_{size}_ms']:.2f} ms" for size in sizes
    )
    return Found(text, values)


@bench.contender("memory of Sharded, stage 3", ours=True)
def memory(data: Path) -> Found:
    """Of a net of P bytes with AdamW: what a worker of n keeps after a step, and its resident memory at the highest."""
    from braidwater.engines.local.gang import run_gang
    from braidwater.parallel import Data, Sharded

    rows = Data(disk_store(data))

    def member(told: Any) -> tuple[int, int, int]:
        from torch import nn

        from braidwater.parallel.loop import mini_batches
        from braidwater.parallel.sharded import ShardedReplica

        wide = 1_500
        layers = [nn.Linear(100, wide), *(nn.Linear(wide, wide) for _ in range(6)), nn.Linear(wide, 10)]
        before = resident("VmRSS")
        asked = training(nn.Sequential(*layers))
        whole = sum(p.nbytes for p in asked.module.parameters())
        before -= whole
        replica = ShardedReplica(told, Sharded(told.size), "float32")
        learner = replica.learner(asked, 3)
        del layers
        ctypes.CDLL(None).malloc_trim(0)  # what starting took and has given back
        Path("/proc/self/clear_refs").write_text("5")  # the highest from here on
        for number, batch in zip(range(3), mini_batches(asked, rows, replica).epoch(0), strict=False):
            learner.step(batch, number, 0)
        tensors = [t for p in learner.module.parameters() for t in (p, p.grad)]
        tensors += [s for state in learner.optimizer.state.values() for s in state.values() if s.ndim]
        return whole, sum(t.to_local().nbytes for t in tensors), resident("VmHWM") - before

    values, texts = {}, []
    for workers in (1, 2):
        whole, kept, peak = run_gang(member, workers)[0]
        values |= {f"kept_of_{workers}": kept / whole, f"peak_of_{workers}": peak / whole}
        texts.append(
            f"n = {workers}: {kept / whole:.2f} P kept (4 P / n = {4 / workers:.2f} P), {peak / whole:.2f} P resident"
        )
    return Found(f"P = {whole / 1e6:.0f} MB; " + "; ".join(texts), values)


def resident(which: str) -> int:
    """Bytes of this process, now ("VmRSS") or at the highest ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


if __name__ == "__main__":
    bench.main()
