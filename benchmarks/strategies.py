"""One convolutional net by every strategy: time, bytes and epochs to a stated accuracy, beside what the plan said before.

Two workers, Fashion-MNIST and CIFAR-10 (found in the folder BRAIDWATER_DATA). Rows lie in random order, or sorted by class, where
workers that stay with their own part of the table learn little and the plan should say so. Every contender is trained once,
after a short training that is not counted.

python benchmarks/strategies.py
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness import Benchmark, Found
from pictures import SHAPES, file_of, write_pictures

EPOCHS, BATCH, RATE, TEST = 5, 128, 2e-3, 2_000
TARGET = {"fashion": 0.85, "cifar": 0.50}
TITLE = {"fashion": "Fashion-MNIST", "cifar": "CIFAR-10"}


def write_all(folder: Path, rows: int) -> None:
    """`rows` images of Fashion-MNIST, half as many of CIFAR-10; a few for the training that is not counted."""
    write_pictures(folder, {"fashion": rows, "cifar": rows // 2}, min(TEST, rows))
    write_pictures(folder / "warm", {"fashion": 512, "cifar": 512}, 128)
    from braidwater.planner.constants import machine

    for place in (folder, folder / "warm"):  # every contender has a cache of its own, where constants are not kept
        (place / "machine.json").write_text(json.dumps(machine(talking=True).to_json()))


bench = Benchmark("a convolutional net by every strategy, two workers", rows=20_000, make_data=write_all)


def strategies() -> dict[str, Any]:
    import braidwater.parallel as p

    return {
        "Single": p.Single(),
        "AllReduce": p.AllReduce(2),
        "AllReduce, threshold": p.AllReduce(2, compression="threshold"),
        "Sharded": p.Sharded(2, min_parameters=4_000),
        "TensorParallel": p.TensorParallel(2),
        "SpatialParallel": p.SpatialParallel(2),
        "Pipeline": p.Pipeline(2),
        "Mesh, 2 x data": p.Mesh(data=2),
        "Averaging, every epoch": p.Averaging(2),
        "Averaging, every 8 steps": p.Averaging(2, every=8),
        "Hierarchical, 2 x 1, every 8 steps": p.Hierarchical(2, 1, every=8),
        "DiLoCo, every 32 steps": p.DiLoCo(2, every=32),
        "ElasticAveraging, every 10 steps": p.ElasticAveraging(2),
        "ParameterServer": p.ParameterServer(2),
        "Ensemble of two": p.Ensemble(2),
    }


def trainer(strategy: Any) -> Any:
    import braidwater as bw

    common = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": RATE, "metrics": ("accuracy",)}
    if strategy.name == "ensemble":
        arguments = {"modules": ["CNN"], "members": 2}
        path = "braidwater.deep.ensembles:ensemble"
        return bw.Trainer(path, module_arguments=arguments, strategy=strategy, **common)
    return bw.Trainer("braidwater.deep.modules:CNN", strategy=strategy, **common)


def columns(pictures: str) -> dict[str, Any]:
    import braidwater as bw

    return {"label": "class", "features": {"picture": bw.Image(SHAPES[pictures])}}


def planned_seconds(asked: Any, rows: Any, pictures: str, data: Path) -> float:
    """What the plan says of a whole training, with constants measured on this machine."""
    from braidwater.planner.constants import Machine

    constants = Machine.from_json(json.loads((data / "machine.json").read_text()))
    return float(asked.explain(rows, machine=constants, **columns(pictures)).root.estimated.seconds)


def train(pictures: str, name: str, order: str, data: Path) -> Callable[[], Found]:
    """Train by the strategy called `name`; what was seen is put into words when the clock has stopped."""
    import braidwater as bw

    rows, test = (bw.table(file_of(data, pictures + kind)) for kind in (order, "-test"))
    asked, seen = trainer(strategies()[name]), []
    planned = planned_seconds(asked, rows, pictures, data)
    begun = time.perf_counter()
    with bw.listen(seen.append), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shares that are not alike: the plan's notes say so too
        asked.fit(rows, validation=test, **columns(pictures))
    wall = time.perf_counter() - begun
    sent = sum(event.value for event in seen if getattr(event, "name", "") == "bytes_exchanged")
    return lambda: found(asked, TARGET[pictures], planned, wall, sent)


def found(trained: Any, target: float, planned: float, wall: float, sent: float) -> Found:
    history = trained.history_
    reached = [record["epoch"] for record in history if record.get("validation_accuracy", 0.0) >= target]
    after = sum(record.get("seconds", 0.0) for record in history[reached[0] :]) if reached else 0.0
    values = {
        "planned": planned,
        "bytes": sent,
        "epoch_seconds": sum(record.get("seconds", 0.0) for record in history) / len(history),
        "accuracy": history[-1]["validation_accuracy"],
        "epochs_to_target": float(reached[0]) if reached else -1.0,
        "seconds_to_target": wall - after if reached else -1.0,
        "warned": float(any("shares" in note for note in trained.plan_.notes)),
    }
    text = f"planned {planned:.1f} s; {values['epoch_seconds']:.2f} s an epoch; {sent / 1e6:.2f} MB sent; "
    text += f"accuracy {values['accuracy']:.3f}; "
    text += f"{target:g} " + (
        f"after {reached[0]} epochs, {wall - after:.1f} s" if reached else f"not reached in {len(history)} epochs"
    )
    return Found(text + ("; the plan warned" if values["warned"] else ""), values, wall=wall)


def foretell(pictures: str, data: Path) -> Found:
    """The plan's price of every training, without training."""
    import braidwater as bw

    rows = bw.table(file_of(data, pictures))
    prices = {name: planned_seconds(trainer(one), rows, pictures, data) for name, one in strategies().items()}
    order = sorted(prices, key=lambda name: prices[name])
    return Found(f"fastest: {', then '.join(f'{name} ({prices[name]:.1f} s)' for name in order[:4])}", prices)


NAMES = ("Single", "AllReduce", "AllReduce, threshold", "Sharded", "TensorParallel", "SpatialParallel", "Pipeline",
         "Mesh, 2 x data", "Averaging, every epoch", "Averaging, every 8 steps", "Hierarchical, 2 x 1, every 8 steps",
         "DiLoCo, every 32 steps", "ElasticAveraging, every 10 steps", "ParameterServer", "Ensemble of two")  # fmt: skip
SORTED = ("AllReduce", "Averaging, every epoch", "Averaging, every 8 steps")

for _pictures, _title in TITLE.items():
    bench.contender(f"{_title}: the plan, before", once=True)(partial(foretell, _pictures))
    for _name in NAMES:
        bench.contender(f"{_title}: {_name}", ours=True, once=True)(partial(train, _pictures, _name, ""))
for _name in SORTED:
    title = f"Fashion-MNIST sorted by class: {_name}"
    bench.contender(title, ours=True, once=True)(partial(train, "fashion", _name, "-sorted"))


if __name__ == "__main__":
    bench.main()
