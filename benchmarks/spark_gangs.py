"""Gangs of two on Spark: their start, their steps, what a lost worker costs, and the same losses wherever they run.

python benchmarks/spark_gangs.py --rows 200000 --rounds 3

Python workers are warm, as they are from the second job of a session on. TorchDistributor starts torchrun, which imports torch,
each time. elephas' way is its synchronous mode: each partition trains for all epochs, and the weights are averaged once; it gets
numpy blocks here, which it makes of rows itself otherwise. Recovery is what a training with a kill took longer than one without.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from spark_session import FEATURES, SETTINGS, WIDTH, WORKERS, engine, frame, make_rows, session  # isort: skip (before numpy)

from harness import Benchmark, Found, cpu_seconds

BATCH, EPOCHS, HIDDEN = 2048, 4, 128
bench = Benchmark("Gangs of two on Spark, a net of 20-128-2", rows=200_000, make_data=make_rows)


def meets(member: Any) -> int:
    import torch
    import torch.distributed as dist

    total = torch.ones(1)
    dist.all_reduce(total)
    return int(total)


@bench.contender("start: braidwater", ours=True)
def start(data: Path) -> str:
    return f"members met {engine().gang(meets, WORKERS)}"


@bench.contender("start: TorchDistributor", once=True)
def torch_distributor(data: Path) -> str:
    def hello() -> int:
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo")
        total = torch.ones(1)
        dist.all_reduce(total)
        return int(total)

    return f"members met {distributor().run(hello)}"


def distributor() -> Any:
    from pyspark.ml.torch.distributor import TorchDistributor

    session()
    return TorchDistributor(num_processes=WORKERS, local_mode=False, use_gpu=False)


def trainer(**more: Any) -> Any:
    from braidwater import AllReduce, Trainer

    settings = {"strategy": AllReduce(WORKERS), "epochs": EPOCHS, "batch_size": BATCH, "seed": 1, "optimizer": "sgd"}
    settings |= {"learning_rate": 0.1, "shuffle": False, "standardise": False}
    if "module" not in more:
        settings |= {"module": "braidwater.deep.modules:MLP", "module_arguments": {"hidden": [HIDDEN]}}
    return Trainer(**{**settings, **more})


def fitted(data: Path, on: Any, **more: Any) -> Any:
    return trainer(**more).fit(data / "rows", label="late", features=FEATURES, engine=on)


@bench.contender("steps: on Spark and without, in turns")
def steps(data: Path) -> Found:
    """Three trainings each way; a step is that of the epochs after the first."""
    from braidwater.engines import LocalEngine

    seconds: dict[str, list[float]] = {"spark": [], "without": []}
    cpu = dict.fromkeys(seconds, 0.0)
    places = {"spark": engine(), "without": LocalEngine(WORKERS)}
    for _ in range(3):
        for name, place in places.items():
            begun = cpu_seconds()
            seconds[name] += [record["seconds"] for record in fitted(data, place).history_[1:]]
            cpu[name] += cpu_seconds() - begun
    count = frame(data).count() / BATCH
    ours, without = (statistics.median(found) / count * 1e3 for found in seconds.values())
    values = {
        "step ms": ours,
        "without ms": without,
        "wall_ratio": ours / without,
        "cpu_ratio": cpu["spark"] / cpu["without"],
    }
    return Found(f"a step {ours:.2f} ms, {without:.2f} ms without Spark", values)


@bench.contender("steps: DistributedDataParallel in TorchDistributor", once=True)
def by_hand(data: Path) -> Found:
    found = distributor().run(ddp, str(data / "rows"))
    return Found(f"a step {found:.2f} ms", {"step ms": found})


def ddp(folder: str) -> float:
    """The same training by hand; milliseconds of a step after the first epoch."""
    import numpy as np
    import pyarrow.parquet as pq
    import torch
    import torch.distributed as dist
    from torch import nn

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rows = pq.read_table(folder)
    features = torch.from_numpy(np.column_stack([rows.column(f"x{j}").to_numpy() for j in range(20)]).astype("float32"))
    labels = torch.from_numpy(rows.column("late").to_numpy().astype("int64"))
    net = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 2)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    begun, steps = 0.0, 0
    for epoch in range(4):
        begun = time.perf_counter() if epoch == 1 else begun
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(epoch))
        for step in order.split(2048):
            own = step[dist.get_rank() :: dist.get_world_size()]
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(features[own]), labels[own]).backward()
            optimizer.step()
            steps += epoch > 0
    return (time.perf_counter() - begun) / steps * 1e3


@bench.contender("averaged by epoch: braidwater")
def averaged(data: Path) -> str:
    from braidwater import Averaging
    from braidwater.options import options

    with options(memory="120MB"):  # with more the blocks would be kept here, and Spark be asked for nothing
        return f"loss {fitted(data, engine(), strategy=Averaging(WORKERS)).history_[-1]['loss']:.4f}"


@bench.contender("averaged once: elephas' way")
def elephas(data: Path) -> str:
    start = weights_of(net())

    def train(blocks: Iterator[Any]) -> Iterator[Any]:
        import torch

        torch.set_num_threads(1)
        own, loss = net(start), 0.0
        optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
        for features, labels in blocks:
            for epoch in range(EPOCHS):
                order = torch.randperm(len(features), generator=torch.Generator().manual_seed(epoch))
                for step in order.split(BATCH // WORKERS):
                    optimizer.zero_grad()
                    found = torch.nn.functional.cross_entropy(
                        own(torch.from_numpy(features[step.numpy()])), torch.from_numpy(labels[step.numpy()])
                    )
                    found.backward()
                    optimizer.step()
                    loss = found.item()
        yield weights_of(own), loss

    found = blocks_of(data).mapPartitions(train).collect()
    mean = [sum(arrays) / len(found) for arrays in zip(*(weights for weights, _ in found), strict=True)]
    net(mean)
    return f"loss of the last steps {statistics.mean(loss for _, loss in found):.4f}"


def net(weights: Any = None) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(1)
    made = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2))
    for parameter, own in zip(made.parameters(), weights or (), strict=False):
        parameter.data = torch.from_numpy(own).float()
    return made


def weights_of(module: Any) -> list[Any]:
    return [parameter.detach().numpy() for parameter in module.parameters()]


@cache
def blocks_of(data: Path) -> Any:
    """One numpy block a partition, in the executors' memory."""

    def block(files: Iterator[str]) -> Iterator[Any]:
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pa.concat_tables(pq.read_table(file) for file in files)
        features = np.column_stack([rows.column(name).to_numpy() for name in FEATURES]).astype(np.float32)
        yield features, rows.column("late").to_numpy().astype(np.int64)

    files = sorted(str(path) for path in (data / "rows").glob("*.parquet"))
    blocks = session().sparkContext.parallelize(files, WORKERS).mapPartitions(block).cache()
    blocks.count()
    return blocks


@bench.contender("recovery: a member of a gang is killed")
def recovery(data: Path) -> Found:
    """In the third of four epochs, with a checkpoint after each."""

    def run(mark: str) -> tuple[float, Any]:
        call = frame(data).count() // BATCH * 5 // 2
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            arguments = {"mark": mark, "call": call}
            found = fitted(data, engine(), module=mortal, module_arguments=arguments, checkpoint=folder, max_restarts=1)
            return time.perf_counter() - begun, found.module_.state_dict()

    return recovered(run, lambda one, other: all(one[name].equal(other[name]) for name in one))


def mortal(inputs: int, outputs: int, mark: str, call: int) -> Any:
    """A net in which worker 1 is killed at a call, once."""
    import torch
    import torch.distributed as dist

    made = torch.nn.Sequential(torch.nn.Linear(inputs, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, outputs))
    calls = iter(range(call))

    def look(*_: Any) -> None:
        if next(calls, None) is None and dist.is_initialized() and dist.get_rank() == 1:
            die_once(mark)

    made.register_forward_pre_hook(look)
    return made


def die_once(mark: str) -> None:
    if not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def recovered(run: Callable[[str], tuple[float, Any]], same: Callable[[Any, Any], bool]) -> Found:
    """`run` is given a file that exists when somebody has died: at once, and then when it happens."""
    with tempfile.NamedTemporaryFile() as there:
        calm, expected = run(there.name)
    with tempfile.TemporaryDirectory() as folder:
        killed, found = run(f"{folder}/died")
        if not os.path.exists(f"{folder}/died"):
            raise RuntimeError("nobody was killed")
    more, alike = killed - calm, same(found, expected)
    text = f"{more:.1f} s more, results {'the same' if alike else 'others'}"
    return Found(text, {"seconds": more, "same": float(alike)})


@bench.contender("recovery: a worker of an iteration is killed")
def iteration_recovery(data: Path) -> Found:
    import numpy as np

    from braidwater import table
    from braidwater.aggregates.base import Aggregate, Iteration
    from braidwater.aggregates.logistic_gradient import LogisticGradient
    from braidwater.blocks import BlockSource
    from braidwater.encoding import Encoding

    class Mortal(LogisticGradient):
        mark = ""

        def transition(self, state: Any, block: Any) -> Any:
            if self.mark and block.number == 1:
                die_once(self.mark)
            return super().transition(state, block)

    class Descent(Iteration[Any]):
        def __init__(self, design: Any, mark: str) -> None:
            self.design, self.mark = design, mark

        def passes(self) -> Generator[Aggregate[Any, Any], Any, Any]:
            point = np.zeros((1, 1, WIDTH + 1))
            for number in range(10):
                gradient = Mortal(self.design, point)
                gradient.mark = self.mark if number == 5 else ""
                found = yield gradient
                point = point - found.gradient / found.weight
            return point

    rows = table(frame(data), name="rows")
    encoding = Encoding(features=FEATURES, label="late", label_kind="class").fit(rows)

    def run(mark: str) -> tuple[float, Any]:
        begun = time.perf_counter()
        with BlockSource(rows, encoding, passes=10, cache="disk") as source:
            found = engine().iterate(source, Descent(encoding.design, mark))
        return time.perf_counter() - begun, found

    run("/")  # blocks are made
    return recovered(run, np.array_equal)


LOSSES = """
import json, sys, warnings
warnings.filterwarnings("ignore")
sys.path.insert(0, {here!r})
sys.argv = [{here!r} + "/spark_gangs.py"]
import spark_gangs
from pyspark.sql import SparkSession
from braidwater.engines.spark import SparkEngine
builder = SparkSession.builder
builder = builder.remote("local[2]") if {place!r} == "connect" else builder.master({place!r})
session = builder.config(map={settings!r}).getOrCreate()
from pathlib import Path
found = spark_gangs.fitted(Path({data!r}), SparkEngine(session, 2, slots=2, host="127.0.0.1"))
print("LOSSES " + json.dumps([record["loss"] for record in found.history_]))
session.stop()
"""


@cache
def losses(place: str, data: Path) -> str:
    """Of the same training in a session of its own; a process has one, and one is enough: nothing here is a matter of time."""
    settings = {**SETTINGS, "spark.driver.memory": "1g"}
    here = str(Path(__file__).parent)
    code = LOSSES.format(here=here, place=place, data=str(data), settings=settings)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    told = [line[7:] for line in done.stdout.splitlines() if line.startswith("LOSSES ")]
    if not told:
        raise RuntimeError(f"{place}: {done.stderr[-300:]}")
    return told[0]


def place_of_losses(place: str) -> Callable[[Path], Found]:
    def run(data: Path) -> Found:
        if place == "connect":
            import google.rpc  # noqa: F401 - pip install 'pyspark[connect]'
        found = json.loads(losses(place, data))
        values = {f"epoch {number}": loss for number, loss in enumerate(found)}
        return Found(f"losses {' '.join(repr(loss) for loss in found)}", values)

    return run


for name, place in (("local", "local[2,4]"), ("separate executors", "local-cluster[2,1,1024]"), ("Connect", "connect")):
    bench.contender(f"losses: {name}", once=True)(place_of_losses(place))


if __name__ == "__main__":
    bench.main()
