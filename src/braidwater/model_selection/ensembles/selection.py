"""Which models an ensemble takes: greedily, with replacement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from braidwater.blocks.base import Array
from braidwater.errors import OptionError

Cost = Callable[[Array, Array], float]  # of the ensemble's outputs and the labels


@dataclass(frozen=True)
class Selection:
    """How often each model was taken ``(models,)``, and the cost after each model that was taken, up to the best."""

    counts: Array
    costs: list[float]


def greedy_selection(outputs: Array, labels: Array, cost: Cost, size: int) -> Selection:
    """Take, `size` times, the model whose outputs make the mean of those taken best; what follows the best mean is dropped.

    Caruana, Niculescu-Mizil, Crew and Ksikes 2004, "Ensemble Selection from Libraries of Models", with replacement. The first
    model taken is the best one, so the cost on these rows is at most that of the best model. `outputs` are
    ``(models, rows, ...)``, of which the mean is taken; it is read ``size`` times.

    >>> high, low = np.array([2.0, 2.0]), np.array([0.0, 0.0])
    >>> square = lambda mean, label: float(np.mean((mean - label) ** 2))
    >>> greedy_selection(np.array([high, low]), np.array([1.1, 1.1]), square, 4).counts.tolist()
    [1, 1]
    """
    if size < 1:
        raise OptionError("size", size, "at least 1: how many models are taken, the same one several times perhaps")
    total = np.zeros(outputs.shape[1:])
    taken: list[int] = []
    costs: list[float] = []
    for count in range(1, size + 1):
        each = [cost((total + one) / count, labels) for one in outputs]
        best = int(np.argmin(each))
        taken.append(best)
        costs.append(each[best])
        total += outputs[best]
    kept = int(np.argmin(costs)) + 1  # the smallest of equally good ones
    return Selection(np.bincount(taken[:kept], minlength=len(outputs)), costs[:kept])


def cost_of(metric: str) -> Cost:
    """What is made small for a metric of mean probabilities ``(rows, classes)`` and codes, or of mean numbers and numbers."""
    if metric not in COSTS:
        raise OptionError("metric", metric, f"one of {', '.join(COSTS)}")
    return COSTS[metric]


def _log_loss(outputs: Array, codes: Array) -> float:
    chosen = outputs[np.arange(len(codes)), codes]
    return float(-np.mean(np.log(np.maximum(chosen, np.finfo(np.float64).tiny))))


def _error_rate(outputs: Array, codes: Array) -> float:
    return float(np.mean(outputs.argmax(1) != codes))


def _ranking_loss(outputs: Array, codes: Array) -> float:
    """One minus the area under the ROC curve, of two classes: by ranks (Mann and Whitney 1947), ties as halves."""
    if outputs.shape[1] != 2:
        raise OptionError("metric", "roc_auc", "accuracy or log_loss where there are more than two classes")
    _, places, counts = np.unique(outputs[:, 1], return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    positive = codes == 1
    pairs = float(positive.sum()) * float((~positive).sum())
    area = (ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / pairs if pairs else float("nan")
    return float(1 - area)


def _squares(outputs: Array, numbers: Array) -> float:
    return float(np.mean((outputs - numbers) ** 2))


def _distance(outputs: Array, numbers: Array) -> float:
    return float(np.mean(np.abs(outputs - numbers)))


COSTS: dict[str, Cost] = {
    "accuracy": _error_rate,
    "log_loss": _log_loss,
    "roc_auc": _ranking_loss,
    "rmse": _squares,
    "r2": _squares,
    "mae": _distance,
}
