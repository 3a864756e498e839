"""How good predictions are, as aggregates: one pass over a table, nothing held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design

# Scores of two classes are counted in so many bins of equal width in log-odds, from -20 to 20: rows in one bin count as
# ties
BINS = 1 << 16
REACH = 20.0

Compute = Callable[[Array], Array]


@dataclass
class ClassState:
    """Sums over rows: `confusion` ``(classes, classes)``, `loss`, and for two classes `scores` ``(2, BINS)`` by class."""

    rows: int
    loss: float
    confusion: Array
    scores: Array


class ClassEvaluation(Aggregate[ClassState, dict[str, Any]]):
    """Accuracy, log-loss, confusion matrix and (for two classes) the area under the ROC curve.

    `probabilities` makes ``(rows, classes)`` of the features ``(rows, width)`` of `design`, whose label holds class
    codes. The area counts two rows whose log-odds fall into one of 65 536 bins (6e-4 wide) as a tie; `roc_auc_error`
    bounds what that can have changed. Memory 1 MB a state.
    """

    what = "evaluate"

    def __init__(self, design: Design, probabilities: Compute, classes: int) -> None:
        self.design = design
        self.probabilities = probabilities
        self.classes = classes

    def initialize(self) -> ClassState:
        bins = BINS if self.classes == 2 else 0
        return ClassState(0, 0.0, np.zeros((self.classes, self.classes)), np.zeros((2, bins)))

    def transition(self, state: ClassState, block: Block) -> ClassState:
        if block.rows == 0:
            return state
        p = np.asarray(self.probabilities(self.design.dense(block).T), np.float64)
        codes = self.design.labels(block).astype(np.intp)
        stored = self.design.weights(block)
        weights = np.ones(block.rows) if stored is None else stored.astype(np.float64)
        chosen = p[np.arange(block.rows), codes]
        state.rows += block.rows
        # the smallest double above 0 keeps a certain mistake finite, as scikit-learn does with its own smallest
        state.loss -= float(weights @ np.log(np.clip(chosen, np.finfo(np.float64).eps, None)))
        pairs = codes * self.classes + p.argmax(axis=1)
        state.confusion += np.bincount(pairs, weights=weights, minlength=self.classes**2).reshape(self.classes, -1)
        if self.classes == 2:
            with np.errstate(divide="ignore"):
                odds = np.clip(np.log(p[:, 1]) - np.log(p[:, 0]), -REACH, REACH)
            places = np.minimum(((odds + REACH) * (BINS / (2 * REACH))).astype(np.intp), BINS - 1)
            state.scores += np.bincount(codes * BINS + places, weights=weights, minlength=2 * BINS).reshape(2, BINS)
        return state

    def merge(self, state: ClassState, other: ClassState) -> ClassState:
        state.rows += other.rows
        state.loss += other.loss
        state.confusion += other.confusion
        state.scores += other.scores
        return state

    def final(self, state: ClassState) -> dict[str, Any]:
        total = float(state.confusion.sum())
        if total == 0:
            return {"rows": state.rows}
        found: dict[str, Any] = {
            "rows": state.rows,
            "accuracy": float(np.trace(state.confusion)) / total,
            "log_loss": state.loss / total,
        }
        if self.classes == 2:
            negative, positive = state.scores
            pairs = float(negative.sum() * positive.sum())
            if pairs:
                below = np.cumsum(negative) - negative
                found["roc_auc"] = float(positive @ (below + negative / 2)) / pairs
                found["roc_auc_error"] = float(positive @ negative) / 2 / pairs
        found["confusion"] = state.confusion.tolist()
        return found


@dataclass
class NumberState:
    """Sums over rows of the residuals, and the centred sum of squares of the label."""

    rows: int
    weight: float
    mean: float
    spread: float
    squares: float
    absolute: float


class NumberEvaluation(Aggregate[NumberState, dict[str, Any]]):
    """R², root mean squared error and mean absolute error of predictions ``(rows,)`` made of the features of `design`."""

    what = "evaluate"

    def __init__(self, design: Design, predict: Compute) -> None:
        self.design = design
        self.predict = predict

    def initialize(self) -> NumberState:
        return NumberState(0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def transition(self, state: NumberState, block: Block) -> NumberState:
        if block.rows == 0:
            return state
        y = self.design.labels(block).astype(np.float64)
        stored = self.design.weights(block)
        weights = np.ones(block.rows) if stored is None else stored.astype(np.float64)
        gaps = y - self.predict(self.design.dense(block).T)
        weight = float(weights.sum())
        mean = float(weights @ y) / weight if weight else 0.0
        part = NumberState(
            block.rows,
            weight,
            mean,
            float(weights @ (y - mean) ** 2),
            float(weights @ gaps**2),
            float(weights @ np.abs(gaps)),
        )
        return self.merge(state, part)

    def merge(self, state: NumberState, other: NumberState) -> NumberState:
        state.rows += other.rows
        if other.weight == 0:
            return state
        weight = state.weight + other.weight
        gap = other.mean - state.mean
        state.spread += other.spread + gap * gap * state.weight * other.weight / weight
        state.mean += gap * other.weight / weight
        state.squares += other.squares
        state.absolute += other.absolute
        state.weight = weight
        return state

    def final(self, state: NumberState) -> dict[str, Any]:
        if state.weight == 0:
            return {"rows": state.rows}
        r2 = 1 - state.squares / state.spread if state.spread else float(state.squares == 0)
        return {
            "rows": state.rows,
            "r2": r2,
            "rmse": float(np.sqrt(state.squares / state.weight)),
            "mae": state.absolute / state.weight,
        }
