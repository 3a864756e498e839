"""Strategies whose workers are on their own for a while: bytes and time of a step, and what it does to accuracy.

Time: the strategy and the same algorithm written by hand train in the same two processes and take turns (see `deep/turns.py`).
Accuracy: 2 workers on Fashion-MNIST (found in the folder BRAIDWATER_DATA), whose rows are alike, or sorted by class.

python benchmarks/parallel_async.py --rounds 1
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "deep"))

from nets import design, disk_store, net, write_rows
from turns import Turn, in_turns, ratio

from harness import Benchmark, Found  # isort: skip (nets puts it on the path)

WORKERS, BATCH, EPOCHS = 2, 256, 4
IMAGES, TEST_IMAGES, IMAGE_EPOCHS, IMAGE_BATCH, RATE = 16_384, 4_096, 3, 128, 0.05

bench = Benchmark("workers on their own: averaging, elastic averaging, DiLoCo", rows=64_000, make_data=write_rows)


def training() -> Any:
    from braidwater.blocks.windows import RowForm
    from braidwater.deep.losses import LOSSES
    from braidwater.deep.optimizers import OptimizerPlan
    from braidwater.parallel import Training

    loss = LOSSES["cross_entropy"].function
    return Training(net(), loss, OptimizerPlan("sgd", 0.01), RowForm(design()), epochs=EPOCHS, batch_size=BATCH)


def ours(told: Any, data: Any, make: Callable[[Any], Any], turn: Turn) -> tuple[float, int]:
    """A strategy's own replica, and a word after each step: the last loss, and the bytes a worker sent."""
    from braidwater.parallel.loop import run_epochs

    replica = make(told)
    stepped = replica.stepped

    def and_say_so(learner: Any, weight: float) -> None:
        stepped(learner, weight)
        turn.stepped()

    replica.stepped = and_say_so
    return float(run_epochs(training(), data, replica).history[-1]["loss"]), replica.bytes_exchanged


def by_hand(data: Path, told: Any, exchange: Callable[[int, list[Any], dict[str, Any]], None], turn: Turn) -> float:
    """A loop as one writes it, with `exchange(step, parameters, memory)` after each step."""
    import numpy as np
    import torch

    features, labels = (torch.from_numpy(np.load(data / f"{name}.npy")) for name in ("features", "labels"))
    module = net()
    parameters = list(module.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    memory: dict[str, Any] = {"centre": flat(parameters)}
    step, mean = 0, 0.0
    for epoch in range(EPOCHS):
        total = 0.0
        order = torch.Generator().manual_seed(epoch)
        for rows in torch.randperm(len(features), generator=order).split(BATCH):
            index = rows[told.rank :: told.size]
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(features[index]), labels[index])
            loss.backward()
            optimizer.step()
            step += 1
            with torch.no_grad():
                exchange(step, parameters, memory)
            total += loss.item() * len(index)
            turn.stepped()
        mean = total * told.size / len(features)
    return mean


def flat(parameters: list[Any]) -> Any:
    from torch.nn.utils import parameters_to_vector

    return parameters_to_vector(parameters).detach().clone()


def put(numbers: Any, parameters: list[Any]) -> None:
    begin = 0
    for parameter in parameters:
        parameter.copy_(numbers[begin : begin + parameter.numel()].view_as(parameter))
        begin += parameter.numel()


def average(every: int, step: int, parameters: list[Any], memory: dict[str, Any]) -> None:
    import torch.distributed as dist

    if step % every == 0:
        numbers = flat(parameters)
        dist.all_reduce(numbers)
        put(numbers.div_(WORKERS), parameters)


def elastic(every: int, step: int, parameters: list[Any], memory: dict[str, Any]) -> None:
    import torch.distributed as dist

    if step % every == 0:
        numbers, centre, rate = flat(parameters), memory["centre"], 0.9 / WORKERS
        together = numbers.clone()
        dist.all_reduce(together)
        put(numbers - rate * (numbers - centre), parameters)
        centre += rate * (together - WORKERS * centre)


def outer(every: int, step: int, parameters: list[Any], memory: dict[str, Any]) -> None:
    import torch
    import torch.distributed as dist

    if step % every == 0:
        common = memory["centre"].requires_grad_()
        if "outer" not in memory:
            memory["outer"] = torch.optim.SGD([common], lr=0.7, momentum=0.9, nesterov=True)
        common.grad = common.detach() - flat(parameters)
        dist.all_reduce(common.grad)
        common.grad /= WORKERS
        memory["outer"].step()
        put(common.detach(), parameters)


def compare(data: Path, make: Callable[[Any], Any], exchange: Any) -> Found:
    from braidwater.engines.local.gang import run_gang
    from braidwater.parallel import Data

    rows = Data(disk_store(data))

    def member(told: Any) -> Any:
        one, other = in_turns(partial(ours, told, rows, make), partial(by_hand, data, told, exchange))
        return one.result, (one.wall, one.cpu, one.step_ms), (other.result, other.wall, other.cpu, other.step_ms)

    (loss, sent), (wall, cpu, step), (hand_loss, hand_wall, hand_cpu, hand_step) = run_gang(member, WORKERS)[0]
    steps = EPOCHS * -(-rows.rows.rows // BATCH)
    whole = steps * sum(p.nbytes for p in net().parameters())
    values = {
        "wall_ratio": ratio(wall, hand_wall),
        "cpu_ratio": ratio(cpu, hand_cpu),
        "bytes": float(sent),
        "of_all_reduce": sent / whole,
    }
    return Found(
        f"{values['wall_ratio']:.3f} of the wall time by hand, {values['cpu_ratio']:.3f} of its CPU; {step:.2f} and "
        f"{hand_step:.2f} CPU-ms a step; {sent / 1e6:.1f} MB a worker, 1/{whole / sent:.1f} of all-reduce; loss {loss:.3f}, "
        f"by hand {hand_loss:.3f}",
        values,
    )


@bench.contender("Averaging every 8, in turns with the same by hand", ours=True)
def averaging(data: Path) -> Found:
    from braidwater.parallel.averaging import AveragingReplica

    return compare(data, lambda told: AveragingReplica(told, 8, "local"), partial(average, 8))


@bench.contender("ElasticAveraging every 10, in turns with the same by hand", ours=True)
def elastic_averaging(data: Path) -> Found:
    from braidwater.parallel.elastic_averaging import ElasticReplica, SharedCentre

    return compare(data, lambda told: ElasticReplica(told, 10, SharedCentre(2, 0.45)), partial(elastic, 10))


@bench.contender("DiLoCo every 125, in turns with the same by hand", ours=True)
def diloco(data: Path) -> Found:
    from braidwater.parallel import DiLoCo
    from braidwater.parallel.diloco import DiLoCoReplica

    return compare(data, lambda told: DiLoCoReplica(told, DiLoCo(2, every=125)), partial(outer, 125))


def images(kind: str, count: int) -> tuple[Any, Any]:
    """The first images of Fashion-MNIST as bytes ``(count, 784)``, and their labels."""
    import numpy as np

    folder = Path(os.environ.get("BRAIDWATER_DATA", "")) / "fashion_mnist"
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        raise ModuleNotFoundError(name="Fashion-MNIST (BRAIDWATER_DATA/fashion_mnist)")

    def read(what: str, header: int) -> Any:
        with gzip.open(folder / f"{kind}-{what}-ubyte.gz") as file:
            return np.frombuffer(file.read()[header:], np.uint8)

    return read("images-idx3", 16).reshape(-1, 784)[:count], read("labels-idx1", 8)[:count]


def image_data(ordered: bool) -> Any:
    """A unit of rows for each worker: as they come, or sorted by class."""
    import numpy as np

    from braidwater.parallel import Data
    from braidwater.testing.strategies import uneven_store

    pixels, labels = images("train", IMAGES)
    if ordered:
        order = np.argsort(labels, kind="stable")
        pixels, labels = pixels[order], labels[order]
    test, test_labels = images("t10k", TEST_IMAGES)
    rows = uneven_store({"image": pixels, "y": labels}, (IMAGES // WORKERS,) * WORKERS)
    return Data(rows, uneven_store({"image": test, "y": test_labels}, (TEST_IMAGES,)))


def image_training() -> Any:
    import torch
    from torch import nn

    from braidwater.blocks.windows import RowForm
    from braidwater.deep.losses import LOSSES
    from braidwater.deep.metrics import MetricPlan
    from braidwater.deep.optimizers import OptimizerPlan
    from braidwater.encoding.design import design_of
    from braidwater.parallel import Training

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    return Training(
        module,
        LOSSES["cross_entropy"].function,
        OptimizerPlan("sgd", RATE, {"momentum": 0.9}),
        RowForm(design_of([], [], label="y"), whole="image"),
        input_scale=1 / 255,
        epochs=IMAGE_EPOCHS,
        batch_size=IMAGE_BATCH,
        metrics=MetricPlan(("accuracy",), "class", 10),
    )


def replicas() -> dict[str, tuple[Callable[[Any], Any], dict[str, Any]]]:
    """Each strategy's worker by name, and the optimiser where it is not the common one (each at the best of a few rates)."""
    from braidwater.parallel import DiLoCo
    from braidwater.parallel.averaging import AveragingReplica
    from braidwater.parallel.diloco import DiLoCoReplica
    from braidwater.parallel.elastic_averaging import ElasticReplica, SharedCentre

    def averaging(every: int | None, warmup: int = 0) -> Any:
        return lambda told: AveragingReplica(told, every, "local", warmup)

    def elastic(every: int) -> Any:
        return lambda told: ElasticReplica(told, every, SharedCentre(2, 0.45))

    def diloco(every: int) -> Any:
        return lambda told: DiLoCoReplica(told, DiLoCo(2, every=every))

    plain, adam = {"optimizer": "sgd", "rate": 0.1}, {"optimizer": "adamw", "rate": 1e-3}
    return {
        "all-reduce": (averaging(8, 10**6), {}),
        "averaging, every step": (averaging(1), {}),
        "averaging, every 8": (averaging(8), {}),
        "averaging, every 32": (averaging(32), {}),
        "averaging, every epoch": (averaging(None), {}),
        "averaging every 32, after an epoch of all-reduce": (averaging(32, IMAGES // IMAGE_BATCH), {}),
        "EASGD, every 10": (elastic(10), plain),
        "EAMSGD, every 10": (elastic(10), {"momentum": 0.9, "nesterov": True}),
        "DiLoCo, every 32": (diloco(32), {}),
        "DiLoCo, every 32, AdamW": (diloco(32), adam),
    }


def optimizer_of(choice: dict[str, Any]) -> Any:
    from braidwater.deep.optimizers import OptimizerPlan

    if "optimizer" in choice:
        return OptimizerPlan(choice["optimizer"], choice["rate"])
    return OptimizerPlan("sgd", RATE, choice or {"momentum": 0.9})


@bench.contender("accuracy on Fashion-MNIST", once=True)
def accuracy(data: Path) -> Found:
    from braidwater.engines import LocalEngine
    from braidwater.engines.local.gang import run_gang
    from braidwater.parallel import Ensemble, ParameterServer, Single
    from braidwater.parallel.ensemble import EnsembleModule
    from braidwater.parallel.loop import run_epochs

    def member(told: Any, rows: Any) -> dict[str, float]:
        found = {}
        for name, (make, choice) in replicas().items():
            replica = make(told)
            replica.share = "units"  # every worker on rows of its own
            own = replace(image_training(), optimizer=optimizer_of(choice))
            found[name] = float(run_epochs(own, rows, replica).history[-1]["validation_accuracy"])
        return found

    alike, sorted_by_class = (image_data(ordered) for ordered in (False, True))
    values = {f"{name} | alike": v for name, v in run_gang(partial(member, rows=alike), WORKERS)[0].items()}
    values |= {f"{name} | sorted": v for name, v in run_gang(partial(member, rows=sorted_by_class), WORKERS)[0].items()}
    whole = image_training()

    def served(rate: float, optimizer: str = "sgd") -> Any:
        """Without momentum: workers that do not wait for each other make some of their own (Mitliagkas et al. 2016)."""
        return replace(whole, optimizer=optimizer_of({"optimizer": optimizer, "rate": rate}))

    two = replace(whole, module=EnsembleModule([whole.module, image_training().module]))
    for name, strategy, own in (
        ("one process", Single(), whole),
        ("parameter server", ParameterServer(2), served(0.1)),
        ("parameter server, pushes and pulls every 8", ParameterServer(2, push_every=8, pull_every=8), served(0.05)),
        ("parameter server, Adagrad", ParameterServer(2), served(0.01, "adagrad")),
        ("ensemble of two on parts", Ensemble(2), two),
    ):
        trained = strategy.train(own, alike, LocalEngine(WORKERS))
        values[f"{name} | alike"] = float(trained.history[-1]["validation_accuracy"])
    return Found("; ".join(f"{name} {value:.3f}" for name, value in values.items()), values)


if __name__ == "__main__":
    bench.main()
