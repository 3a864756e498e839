"""Five principal components from Parquet, reading included: ours, scikit-learn out of core, and in memory.

python benchmarks/pca.py --rows 2000000
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data import FEATURES, load, normal_features
from exact import variances
from harness import Benchmark

bench = Benchmark("Principal components, Parquet included", rows=2_000_000, make_data=normal_features)

COMPONENTS = 5


def error(data: Path, found: Any) -> Callable[[], str]:
    return lambda: f"variances within {np.abs(found / variances(data)[:COMPONENTS] - 1).max():.0e} of the exact ones"


@bench.contender("braidwater", ours=True)
def braidwater(data: Path) -> Any:
    from braidwater import PCA

    return error(data, PCA(COMPONENTS).fit(data / "rows.parquet", features=FEATURES).explained_variance_)


@bench.contender("scikit-learn IncrementalPCA")
def incremental(data: Path) -> Any:
    import pyarrow.parquet as pq
    from sklearn.decomposition import IncrementalPCA

    model = IncrementalPCA(COMPONENTS)
    file = pq.ParquetFile(data / "rows.parquet", pre_buffer=False)
    for batch in file.iter_batches(8192, columns=FEATURES):
        if batch.num_rows >= COMPONENTS:
            model.partial_fit(np.column_stack([batch.column(name).to_numpy() for name in FEATURES]))
    return error(data, model.explained_variance_)


@bench.contender("scikit-learn PCA, covariance_eigh, in memory")
def in_memory(data: Path) -> Any:
    from sklearn.decomposition import PCA

    features, _ = load(data)
    return error(data, PCA(COMPONENTS, svd_solver="covariance_eigh", copy=False).fit(features).explained_variance_)


if __name__ == "__main__":
    bench.main()
