"""Ten steps of Lloyd's algorithm for ten clusters from the same first centres, Parquet included.

python benchmarks/k_means.py --rows 2000000
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from data import FEATURES, first_rows, load, normal_features
from harness import Benchmark

bench = Benchmark("k-means, 10 clusters, 10 steps, Parquet included", rows=2_000_000, make_data=normal_features)

CLUSTERS, STEPS = 10, 10
warnings.simplefilter("ignore")  # ten steps are not enough to converge, and are not meant to be


def scikit(data: Path, algorithm: Any) -> str:
    from sklearn.cluster import KMeans

    features, _ = load(data)
    start = first_rows(data, CLUSTERS)
    model = KMeans(CLUSTERS, init=start, n_init=1, max_iter=STEPS, tol=0, algorithm=algorithm, copy_x=False)
    return f"inertia {model.fit(features).inertia_:.6g}"


@bench.contender("braidwater", ours=True)
def braidwater(data: Path) -> str:
    from braidwater import KMeans

    model = KMeans(CLUSTERS, init=first_rows(data, CLUSTERS), max_iter=STEPS, tol=0)
    return f"inertia {model.fit(data / 'rows.parquet', features=FEATURES).inertia_:.6g}"


@bench.contender("scikit-learn Lloyd, float32 in memory")
def lloyd(data: Path) -> str:
    return scikit(data, "lloyd")


@bench.contender("scikit-learn Elkan, float32 in memory")
def elkan(data: Path) -> str:
    return scikit(data, "elkan")


if __name__ == "__main__":
    bench.main()
