"""What a right answer is, in float64 and by the shortest way: called after the clock was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data import FEATURES


def parts(data: Path, label: str) -> Iterator[tuple[Any, Any]]:
    """Features ``(rows, 31)`` with a last column of ones, and the label, float64, a row group at a time."""
    file = pq.ParquetFile(data / "rows.parquet")
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group)
        columns = [rows.column(name).to_numpy().astype(np.float64) for name in FEATURES]
        yield np.column_stack([*columns, np.ones(rows.num_rows)]), rows.column(label).to_numpy().astype(np.float64)


def log_loss(data: Path, weights: Any) -> float:
    """Mean log-loss of 30 weights and an intercept over all rows."""
    total = rows = 0.0
    for features, y in parts(data, "y"):
        odds = features @ weights
        total += float(np.sum(np.logaddexp(0, odds) - y * odds))
        rows += len(y)
    return total / rows


def optimal_loss(data: Path) -> float:
    """The smallest mean log-loss, by Newton's method; kept beside the rows."""
    kept = data / "optimum.json"
    if kept.is_file():
        return float(json.loads(kept.read_text()))
    weights = np.zeros(len(FEATURES) + 1)
    for _ in range(8):
        gradient, hessian = np.zeros(len(weights)), np.zeros((len(weights), len(weights)))
        for features, y in parts(data, "y"):
            p = 1 / (1 + np.exp(-(features @ weights)))
            gradient += features.T @ (p - y)
            hessian += (features * (p * (1 - p))[:, None]).T @ features
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    best = log_loss(data, weights)
    kept.write_text(json.dumps(best))
    return best


def excess_loss(data: Path, coefficients: Any, intercept: float) -> float:
    """How far above the smallest mean log-loss a model is."""
    weights = np.append(np.asarray(coefficients, np.float64).ravel(), float(intercept))
    return log_loss(data, weights) - optimal_loss(data)


def least_squares(data: Path) -> Any:
    """30 coefficients and the intercept of `t` on the features."""
    products, right = np.zeros((31, 31)), np.zeros(31)
    for features, t in parts(data, "t"):
        products += features.T @ features
        right += features.T @ t
    return np.linalg.solve(products, right)


def variances(data: Path) -> Any:
    """Variances along the principal components, largest first."""
    rows, total, products = 0, np.zeros(30), np.zeros((30, 30))
    for features, _ in parts(data, "t"):
        rows += len(features)
        total += features[:, :-1].sum(axis=0)
        products += features[:, :-1].T @ features[:, :-1]
    return np.linalg.eigvalsh((products - np.outer(total, total) / rows) / (rows - 1))[::-1]
