"""Every aggregate obeys the laws of aggregates, on a block that has columns of every kind."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from braidwater import aggregates
from braidwater.aggregates import (
    Aggregate,
    AveragedSgd,
    Both,
    ClassCounts,
    Count,
    DrawnRows,
    Gram,
    LogisticGradient,
    LogisticHessian,
    Moments,
    NearestCenters,
    ProjectedProducts,
    RobustProducts,
    Several,
)
from braidwater.blocks.base import Block
from braidwater.encoding.design import CodeTerm, NumberTerm, WideTerm, design_of
from braidwater.metrics import ClassEvaluation, NumberEvaluation
from braidwater.testing import AGGREGATE_CHECKS, AggregateExample
from braidwater.testing.aggregates import fold

ROWS = 301
WIDTH = 2 + 1 + 4 + 40 + 1 + 3
random = np.random.default_rng(7)
BLOCK = Block.from_arrays(
    {
        "a": random.normal(size=ROWS) + 1e3,
        "b": random.normal(size=ROWS),
        "f": random.normal(size=ROWS).astype(np.float32),
        "i": random.integers(-5, 5, ROWS).astype(np.int8),
        "few": random.integers(0, 5, ROWS).astype(np.uint8),
        "many": random.integers(0, 41, ROWS).astype(np.uint16),
        "v": random.normal(size=(ROWS, 3)).astype(np.float32),
        "label": random.integers(0, 3, ROWS).astype(np.uint8),
        "two": random.integers(0, 2, ROWS).astype(np.uint8),
        "number": random.normal(size=ROWS),
        "weight": random.integers(0, 3, ROWS).astype(np.float64),
        "offset": random.normal(size=ROWS),
    }
)
TERMS = [
    NumberTerm(("a", "b"), 0),
    NumberTerm(("f",), 2),
    CodeTerm("few", 3, 4, 1),
    CodeTerm("many", 7, 40, 0),
    NumberTerm(("i",), 47),
    WideTerm("v", 48, 3),
]
NAMES = [f"x{j}" for j in range(WIDTH)]


def design(label="label", weight="weight", **roles):
    return design_of(TERMS, NAMES, label=label, weight=weight, **roles)


MEAN = design().dense(BLOCK).mean(axis=1)
SPREAD = np.maximum(design().dense(BLOCK).std(axis=1), 0.1)
POINTS = random.normal(size=(2, 3, WIDTH + 1)) / 10


class Probabilities:
    """A function that pickles."""

    def __call__(self, features):
        odds = features[:, 1] + features[:, 2]
        return np.column_stack([1 / (1 + np.exp(odds)), 1 / (1 + np.exp(-odds))])


class FirstFeature:
    def __call__(self, features):
        return features[:, 1]


STANDARD = design().standardised(MEAN, SPREAD)
FLOATS = design_of([NumberTerm(("a", "b"), 0)], ["a", "b"], weight="weight")
FLOATS_TWO = design_of([NumberTerm(("a", "b"), 0)], ["a", "b"], weight="weight", label="two")
FLOATS_PLAIN = design_of([NumberTerm(("a", "b"), 0)], ["a", "b"], label="two")
TWO = design(label="two", offset="offset").standardised(MEAN, SPREAD)
EXAMPLES = [
    Count(),
    ClassCounts(design(), 3),
    Moments(design(), 3),
    Moments(design("number"), None),
    Gram(design(), 3),
    Gram(design("number", None)),
    Gram(design(), 3, kernel="fused"),
    Both(Count(), Moments(design(), 3)),
    Several([Count(), Gram(design(), 3), Moments(design(), 3)]),
    Several([]),
    # columns in float32 are summed in float32 within a tile
    AggregateExample(LogisticGradient(TWO, POINTS[:, :1]), BLOCK, 1e-6),
    AggregateExample(LogisticGradient(TWO, POINTS[:1, :1], kernel="fused"), BLOCK, 1e-6),
    AggregateExample(LogisticGradient(TWO, POINTS[:, :1], kernel="fused"), BLOCK, 1e-6),
    AggregateExample(LogisticGradient(FLOATS_PLAIN, POINTS[:, :1, :3], kernel="fused"), BLOCK, 1e-6),
    AggregateExample(LogisticGradient(STANDARD, POINTS), BLOCK, 1e-6),
    AggregateExample(LogisticGradient(TWO, POINTS[:, :1], precision="double"), BLOCK),
    AveragedSgd(TWO),
    AveragedSgd(TWO, fit_intercept=False, penalty=np.ones(WIDTH)),
    AveragedSgd(TWO, after=fold(AveragedSgd(TWO), [[BLOCK]])),
    AveragedSgd(FLOATS_TWO, after=fold(AveragedSgd(FLOATS_TWO), [[BLOCK]]), kernel="fused"),
    LogisticHessian(TWO, POINTS[:, :1]),
    LogisticHessian(STANDARD, POINTS[:1], kernel="fused"),
    RobustProducts(design("number"), np.append(SPREAD, 1.0), np.eye(WIDTH + 1) / 1e6, MEAN * 0, "HC3"),
    NearestCenters(design(), random.normal(size=(2, 4, WIDTH)) + MEAN, MEAN, SPREAD),
    NearestCenters(FLOATS, random.normal(size=(2, 4, 2)) + MEAN[:2], MEAN[:2], SPREAD[:2], kernel="fused"),
    NearestCenters(
        FLOATS, random.normal(size=(1, 70, 2)) + MEAN[:2], MEAN[:2], SPREAD[:2], kernel="fused", labelled=True
    ),
    NearestCenters(design(), random.normal(size=(1, 4, WIDTH)) + MEAN, MEAN, SPREAD, labelled=True),
    Moments(design_of([NumberTerm(("a", "b"), 0)], ["a", "b"]), kernel="fused"),
    Moments(design_of([NumberTerm(("a", "b"), 0)], ["a", "b"], label="two"), 2, kernel="fused"),
    Moments(design_of([NumberTerm(("a", "b"), 0)], ["a", "b"], label="number"), kernel="fused"),
    DrawnRows(FLOATS, MEAN[None, :2], 5, seed=3, near=True, kernel="fused"),
    DrawnRows(FLOATS, None, 5, seed=3, kernel="fused"),
    DrawnRows(design(), MEAN[None], 5, seed=3),
    DrawnRows(design(), None, 5, seed=3),
    DrawnRows(design(), MEAN[None], 3, seed=3, farthest=True),
    AggregateExample(ProjectedProducts(STANDARD, random.normal(size=(WIDTH, 3))), BLOCK, 1e-6),
    ClassEvaluation(design("two"), Probabilities(), 2),
    NumberEvaluation(design("number"), FirstFeature()),
]
EXAMPLES = [e if isinstance(e, AggregateExample) else AggregateExample(e, BLOCK) for e in EXAMPLES]


@pytest.mark.parametrize("check", AGGREGATE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example.aggregate).__name__)
def test_law(example, check):
    check(example)


def test_no_aggregate_is_left_out():
    public = {c for _, c in inspect.getmembers(aggregates, inspect.isclass) if issubclass(c, Aggregate)}
    assert public - {Aggregate} <= {type(example.aggregate) for example in EXAMPLES}
