"""How many rows each class of the label has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design
from braidwater.errors import LabelError


@dataclass(frozen=True)
class ClassCount:
    """Rows and sums of row weights by class, both ``(classes,)``; `rows` int64, `weight` float64."""

    rows: Array
    weight: Array


class ClassCounts(Aggregate[ClassCount, ClassCount]):
    """Rows and weight of each of `classes` classes of the label of `design`, whose codes count from 0.

    A code outside of that raises `LabelError`. Memory: two numbers a class.
    """

    what = "class counts"

    def __init__(self, design: Design, classes: int) -> None:
        self.design = design
        self.classes = classes

    def initialize(self) -> ClassCount:
        return ClassCount(np.zeros(self.classes, np.int64), np.zeros(self.classes))

    def transition(self, state: ClassCount, block: Block) -> ClassCount:
        codes = class_codes(self.design, block, slice(0, block.rows), self.classes)
        weights = self.design.weights(block)
        rows = np.bincount(codes, minlength=self.classes)
        mass = rows if weights is None else np.bincount(codes, weights=weights, minlength=self.classes)
        return ClassCount(state.rows + rows, state.weight + mass)

    def merge(self, state: ClassCount, other: ClassCount) -> ClassCount:
        return ClassCount(state.rows + other.rows, state.weight + other.weight)

    def final(self, state: ClassCount) -> ClassCount:
        return state


def class_codes(design: Design, block: Block, rows: slice, classes: int) -> Array:
    """The label of some rows as codes (intp), checked to lie below `classes`."""
    stored = design.labels(block)[rows]
    codes = stored.astype(np.intp)
    if len(codes) and (
        codes.min() < 0 or codes.max() >= classes or (stored.dtype.kind == "f" and np.any(codes != stored))
    ):
        wrong = next(value for value in stored.tolist() if value != int(value) or not 0 <= value < classes)
        raise LabelError(
            f"Label {design.label!r} has the class code {wrong!r}, but there are {classes} classes, 0 to {classes - 1}."
        )
    return codes
