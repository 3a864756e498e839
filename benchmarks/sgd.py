"""One pass of stochastic gradient descent over Parquet: seconds, and how far above the smallest loss it ends.

python benchmarks/sgd.py --rows 2000000
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data import FEATURES, normal_features
from exact import excess_loss
from harness import Benchmark, Found

bench = Benchmark("One pass of SGD for a logistic model, Parquet included", rows=2_000_000, make_data=normal_features)


def excess(data: Path, model: Any) -> Callable[[], Found]:
    def look() -> Found:
        above = excess_loss(data, model.coef_, model.intercept_[0])
        return Found(f"{above:.1e} above the smallest loss", {"excess_loss": above})

    return look


@bench.contender("braidwater, solver='sgd'", ours=True)
def braidwater(data: Path) -> Any:
    from braidwater import LogisticRegression

    model = LogisticRegression(solver="sgd")
    return excess(data, model.fit(data / "rows.parquet", features=FEATURES, label="y"))


def partial_fit(data: Path, **settings: Any) -> Any:
    import pyarrow.parquet as pq
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(loss="log_loss", random_state=0, **settings)
    for batch in pq.ParquetFile(data / "rows.parquet", pre_buffer=False).iter_batches(65_536):
        features = np.column_stack([batch.column(name).to_numpy() for name in FEATURES])
        model.partial_fit(features, batch.column("y").to_numpy(), classes=[0, 1])
    return excess(data, model)


@bench.contender("SGDClassifier.partial_fit, average=True")
def averaged(data: Path) -> Any:
    return partial_fit(data, average=True)


@bench.contender("SGDClassifier.partial_fit, as it comes")
def plain(data: Path) -> Any:
    return partial_fit(data)


@bench.contender("SGDClassifier.partial_fit, average=True, tuned")
def tuned(data: Path) -> Any:
    # the better of nine settings tried on two million of these rows, each of which is a pass that is not counted here
    return partial_fit(data, average=True, alpha=1e-6, learning_rate="invscaling", eta0=0.1, power_t=0.5)


if __name__ == "__main__":
    bench.main()
