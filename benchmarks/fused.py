"""One scan for many models, against a scan for each: logistic penalties over a Parquet file and in memory, and small nets.

python benchmarks/fused.py --rows 2000000
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import FEATURES, normal_features
from harness import Benchmark, Found

bench = Benchmark("Many models in one scan", rows=2_000_000, make_data=normal_features)
NET_ROWS = 50_000
GIVEN: dict[str, Any] = {"label": "y", "features": FEATURES}


def penalties(count: int) -> list[Any]:
    from braidwater import LogisticRegression

    return [LogisticRegression(alpha, solver="lbfgs") for alpha in np.geomspace(1e-4, 1e-1, count)]


def nets() -> list[Any]:
    from braidwater.deep import Trainer

    return [
        Trainer(
            "braidwater.deep.modules:MLP", module_arguments={"hidden": [32]}, learning_rate=10 ** (-2 - k / 8), epochs=4,
            optimizer_arguments={"weight_decay": 0.01 * k}, batch_size=128, strategy="single", seed=k,
        )
        for k in range(16)
    ]  # fmt: skip


def few_rows(data: Path) -> Any:
    from braidwater import table

    return table(data / "rows.parquet").to_arrow().slice(0, NET_ROWS)


def slopes(models: Sequence[Any]) -> Found:
    return Found(
        f"{len(models)} models, largest weights {', '.join(f'{np.abs(m.coef_).max():.7f}' for m in models[:3])}"
    )


def losses(models: Sequence[Any]) -> Found:
    return Found("losses " + ", ".join(f"{model.history_[-1]['loss']:.5f}" for model in models[:4]))


@bench.contender("8 penalties, one scan", ours=True)
def fused_eight(data: Path) -> Found:
    from braidwater.model_selection import fit_many

    return slopes(fit_many(penalties(8), data / "rows.parquet", **GIVEN))


@bench.contender("8 penalties, a scan each")
def single_eight(data: Path) -> Found:
    return slopes([model.fit(data / "rows.parquet", **GIVEN) for model in penalties(8)])


@bench.contender("32 penalties, one scan, in memory")
def fused_many(data: Path) -> Found:
    from braidwater import options
    from braidwater.model_selection import fit_many

    with options(memory="8GB"):
        return slopes(fit_many(penalties(32), data / "rows.parquet", **GIVEN))


@bench.contender("1 penalty, in memory")
def single_one(data: Path) -> Found:
    from braidwater import options

    with options(memory="8GB"):
        return slopes([penalties(32)[0].fit(data / "rows.parquet", **GIVEN)])


@bench.contender("16 small nets, stacked")
def stacked(data: Path) -> Found:
    from braidwater.model_selection import fit_many

    return losses(fit_many(nets(), few_rows(data), **GIVEN))


@bench.contender("16 small nets, one after another")
def single_nets(data: Path) -> Found:
    rows = few_rows(data)
    return losses([net.fit(rows, **GIVEN) for net in nets()])


if __name__ == "__main__":
    bench.main()
