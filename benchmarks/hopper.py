"""Eight nets of three sizes over one table: hopping, dealt to workers that read all rows, and one after another on all workers.

python benchmarks/hopper.py --rows 400000 --rounds 1

"busy" is the share of the workers' time in hops; "estimate" the makespan that list scheduling makes of the measured mean hops,
"least" what no schedule goes below; "read by a worker" the bytes of the blocks that one worker fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import FEATURES, normal_features
from harness import Benchmark, Found

bench = Benchmark("Eight nets, two epochs", rows=400_000, make_data=normal_features)
WORKERS, EPOCHS = 2, 2
WIDTHS = (64, 64, 64, 128, 128, 128, 256, 256)
GIVEN: dict[str, Any] = {"label": "y", "features": FEATURES}


def nets() -> list[Any]:
    from braidwater.deep import Trainer

    return [
        Trainer(
            "braidwater.deep.modules:MLP", module_arguments={"hidden": [width, width]}, learning_rate=10 ** (-2.5 - k / 8),
            epochs=EPOCHS, batch_size=512, strategy="single",
        )
        for k, width in enumerate(WIDTHS)
    ]  # fmt: skip


def losses(models: Sequence[Any]) -> str:
    return "losses " + ", ".join(f"{model.history_[-1]['loss']:.4f}" for model in models)


@bench.contender("hopper", ours=True)
def hopper(data: Path) -> Found:
    from braidwater.model_selection import hop
    from braidwater.planner.makespan import simulate_hops

    found = hop(nets(), data / "rows.parquet", workers=WORKERS, **GIVEN)
    times = np.zeros((len(found.models), WORKERS))
    for one in found.hops:
        times[one.model, one.worker] += (one.end - one.begin) / EPOCHS
    read = [usage.bytes_read for usage in found.usage.values()]
    values = {
        "makespan s": found.seconds,
        "estimate s": simulate_hops(times, EPOCHS).seconds,
        "least s": found.least_seconds,
        "busy": found.busy,
        "MB read by a worker": max(read) / 1e6,
    }
    return Found(losses(found.models), values)


@bench.contender("tasks: a net a worker, all rows each")
def tasks(data: Path) -> Found:
    from braidwater.engines import LocalEngine, Task
    from braidwater.tables import table

    rows = table(data / "rows.parquet")
    work = [Task(str(k), fitted, (net, rows)) for k, net in enumerate(nets())]
    outcomes = sorted(LocalEngine(WORKERS).tasks(work), key=lambda outcome: int(outcome.task.name))
    return Found(losses([outcome.value for outcome in outcomes]))


def fitted(net: Any, rows: Any) -> Any:
    return net.fit(rows, **GIVEN)


@bench.contender("data: in turns, all-reduce on all workers", once=True)
def in_turns(data: Path) -> Found:
    found = []
    for net in nets():
        net.strategy, net.workers = "all_reduce", WORKERS
        found.append(net.fit(data / "rows.parquet", **GIVEN))
    return Found(losses(found))


@bench.contender("one process, one after another")
def alone(data: Path) -> Found:
    return Found(losses([net.fit(data / "rows.parquet", **GIVEN) for net in nets()]))


if __name__ == "__main__":
    bench.main()
