"""Five folds, reading Parquet included: against one fit of the same rows, and against scikit-learn in memory.

`cross_validate` of one model, and a search over eight penalties by `GridSearchCV`.

python benchmarks/cross_validation.py --rows 2000000
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data import FEATURES, load, normal_features
from harness import Benchmark

bench = Benchmark("Five folds, Parquet included", rows=2_000_000, make_data=normal_features)
ALPHA = 1e-6


def model_of(label: str) -> Any:
    from braidwater import LinearRegression, LogisticRegression

    return LinearRegression() if label == "t" else LogisticRegression(ALPHA)


def one_fit(label: str) -> Callable[[Path], str]:
    def run(data: Path) -> str:
        model = model_of(label).fit(data / "rows.parquet", features=FEATURES, label=label)
        return f"first coefficient {float(np.ravel(model.coef_)[0]):.6f}"

    return run


def five_folds(label: str) -> Callable[[Path], str]:
    def run(data: Path) -> str:
        from braidwater.model_selection import KFold, cross_validate

        found = cross_validate(model_of(label), data / "rows.parquet", features=FEATURES, label=label, folds=KFold(5))
        return ", ".join(f"{name} {value:.5f}" for name, value in found.mean.items())

    return run


def peer(label: str) -> Callable[[Path], str]:
    def run(data: Path) -> str:
        from sklearn.linear_model import LinearRegression, LogisticRegression
        from sklearn.model_selection import KFold, cross_validate

        features, y = load(data, label)
        model = LinearRegression() if label == "t" else LogisticRegression(C=1.25 / (ALPHA * len(y)), tol=1e-6)
        scoring = ["r2", "neg_root_mean_squared_error"] if label == "t" else ["accuracy", "neg_log_loss", "roc_auc"]
        found = cross_validate(model, features, y, cv=KFold(5, shuffle=True, random_state=0), scoring=scoring)
        return ", ".join(f"{name} {np.mean(found[f'test_{name}']):.5f}" for name in scoring)

    return run


PENALTIES = [10.0**k for k in range(-8, 0)]


def penalties(data: Path) -> str:
    """Eight ridge penalties, each in five folds, and the best one fitted on all rows."""
    from braidwater import LinearRegression
    from braidwater.model_selection import Choice, KFold, search

    study = search(
        LinearRegression(), {"alpha": Choice(PENALTIES)}, data / "rows.parquet", features=FEATURES, label="t",
        metric="rmse", validation=KFold(5), sampler="grid",
    )  # fmt: skip
    return f"best alpha {study.best_parameters['alpha']:g}, rmse {study.best_value:.5f}"


def grid_search(data: Path) -> str:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, KFold

    features, y = load(data, "t")
    grid = {"alpha": [0.8 * alpha * len(y) for alpha in PENALTIES]}  # of the training rows
    folds = KFold(5, shuffle=True, random_state=0)
    found = GridSearchCV(Ridge(), grid, cv=folds, scoring="neg_root_mean_squared_error").fit(features, y)
    return f"best alpha {found.best_params_['alpha'] / len(y) / 0.8:g}, rmse {-found.best_score_:.5f}"


for label, title in (("t", "linear"), ("y", "logistic")):
    bench.contender(f"{title}: one fit", ours=label == "t")(one_fit(label))
    bench.contender(f"{title}: five folds")(five_folds(label))
    bench.contender(f"{title}: five folds, scikit-learn in memory", once=True)(peer(label))
bench.contender("eight penalties in five folds")(penalties)
bench.contender("eight penalties in five folds, GridSearchCV in memory", once=True)(grid_search)


if __name__ == "__main__":
    bench.main()
