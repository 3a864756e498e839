"""Training and testing all folds of a cross validation by the same passes over the same blocks."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from braidwater.aggregates.base import Aggregate, Iteration
from braidwater.aggregates.gram import Gram, GramResult
from braidwater.aggregates.gram_stack import GramStack
from braidwater.aggregates.grouped import Grouped
from braidwater.aggregates.grouped_gram import GroupedGram
from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array, Block
from braidwater.encoding.design import Design
from braidwater.encoding.groups import GROUP, GroupedEncoding, GroupKeys
from braidwater.engines import Engine, LocalEngine
from braidwater.estimators.base import TableEstimator, Training
from braidwater.events import Planned, emit, running
from braidwater.kernels import choose_kernel
from braidwater.metrics import ClassEvaluation, NumberEvaluation
from braidwater.model_selection.folds import Folds
from braidwater.model_selection.side_by_side import SideBySide, finish, iteration_of
from braidwater.planner import Plan, plan_table
from braidwater.planner.base import Work
from braidwater.tables.split import PartedTable

FEW_PARTS = 64
PART = "__part__"  # the column that says which part of the table a row is in


@dataclass(frozen=True)
class FoldFit:
    """The model of each fold, and what it is worth on rows that it has not seen."""

    models: list[Any]
    metrics: list[dict[str, Any]]
    plan: Plan


def part_keys(folds: Folds) -> GroupKeys:
    """The parts of a table as keys of groups."""
    return GroupKeys((PART,), tuple((number,) for number in range(len(folds.parts.sizes))), ("uint16",))


def fold_work(model: TableEstimator, work: Work, folds: int, *, held_out: bool) -> Work:
    """The work of one model, made that of all folds: a pass more for the test, where sums of products do not hold it."""
    return replace(
        work,
        name=f"{work.name}, {folds} folds",
        passes=work.passes + (not held_out),
        row_bytes=work.row_bytes + 2,
        flops_per_row=work.flops_per_row * (1 if held_out else folds - 1),
        state_bytes=work.state_bytes * folds,
        models=work.models * (1 if held_out else folds),
    )


def fit_folds(
    template: Any, training: Training, folds: Folds, wanted: Sequence[str] | None, engine: Engine | None
) -> FoldFit:
    """One model a fold. `training` is of the parted table; `wanted` are the metrics, None for those that cost no pass."""
    assert training.encoding is not None
    trainings = [replace(training, row_count=int(rows)) for rows in folds.train_rows]
    iterations = {k: _iteration(template, training, own.rows) for k, own in enumerate(trainings)}
    by_sums = _by_sums(template, training.design, iterations[0], wanted)
    encoding = _encoding(training, folds, by_sums)
    work = template.work(training.table, training.encoding)
    work = fold_work(template, work, len(folds), held_out=by_sums)
    plan = plan_table(training.table, work, workers=None if engine is None else engine.workers)
    emit(Planned(text=str(plan)))
    engine = engine or LocalEngine(plan.chosen.workers)
    with (
        running(work.name, rows=training.rows, passes=work.passes),
        BlockSource(training.table, encoding, passes=work.passes, cache=plan.chosen.cache) as source,
        plan.measuring(),
    ):
        trained, stack = engine.iterate(source, FoldTraining(iterations, folds))
        models = []
        for number, own in enumerate(trainings):
            error = trained[number].error
            if error is not None:
                error.add_note(f"In fold {number + 1} of {len(folds)}.")
                raise error
            models.append(finish(copy.copy(template), own, trained[number].result).result)
            models[-1].classes_ = training.classes
        if by_sums and stack is not None:
            metrics = [held_out_metrics(model, stack, folds.test[k], training.design) for k, model in enumerate(models)]
        else:
            tests = {k: test_of(model, training.design) for k, model in enumerate(models)}
            found = engine.aggregate(source, Grouped(GROUP, tests, _members(folds.test)))
            metrics = [found[k] for k in range(len(folds))]
    return FoldFit(models, metrics, plan)


def _iteration(template: Any, training: Training, rows: int) -> Iteration[Any]:
    """The passes of a model of `rows` of the rows, by the kernel that suits the scan, which is of all of them."""
    model = copy.copy(template)
    if hasattr(model, "kernel"):
        model.kernel = choose_kernel(training.rows, model.kernel)
    return iteration_of(model, replace(training, row_count=rows))


def fold_encoding(template: Any, training: Training, folds: Folds, wanted: Sequence[str] | None) -> GroupedEncoding:
    """The encoding of the blocks that `fit_folds` reads."""
    iteration = _iteration(template, training, int(folds.train_rows[0]))
    return _encoding(training, folds, _by_sums(template, training.design, iteration, wanted))


def _encoding(training: Training, folds: Folds, by_sums: bool) -> GroupedEncoding:
    assert training.encoding is not None
    return GroupedEncoding(training.encoding, part_keys(folds), gathered=not by_sums)


@dataclass(frozen=True)
class FoldTraining(Iteration[tuple[dict[int, Any], GramStack | None]]):
    """`SideBySide` over the training rows of each fold; products of columns by part are handed out as well."""

    iterations: dict[int, Iteration[Any]]
    folds: Folds

    def passes(self) -> Generator[Aggregate[Any, Any], Any, tuple[dict[int, Any], GramStack | None]]:
        stack = None
        side_by_side = SideBySide(self.iterations, GROUP, _members(self.folds.train)).passes()
        try:
            aggregate = next(side_by_side)
            while True:
                if isinstance(aggregate, GroupedGram):
                    stack = result = yield from self._products(aggregate)
                else:
                    result = yield aggregate
                aggregate = side_by_side.send(result)
        except StopIteration as stop:
            return stop.value, stack

    def _products(self, aggregate: GroupedGram) -> Generator[Aggregate[Any, Any], Any, GramStack]:
        """The products of each part; a few large parts by the kernels for many rows."""
        parts = self.folds.train.shape[1]
        if parts > FEW_PARTS or aggregate.in_columns(parts):
            stack: GramStack = yield aggregate
            return stack
        design, classes = aggregate.design, aggregate.columns.classes
        grams = {part: Gram(design, classes, kernel=aggregate.kernel) for part in range(parts)}
        found: dict[int, GramResult] = yield Grouped(GROUP, grams, {part: (part,) for part in grams})
        return GramStack(
            np.arange(parts),
            np.array([found[part].rows for part in grams]),
            np.array([found[part].weight for part in grams]),
            np.stack([found[part].mean for part in grams]),
            np.stack([found[part].products for part in grams]),
            design.width,
        )


def _members(chosen: Array) -> dict[int, tuple[int, ...]]:
    """For each part the folds that take its rows."""
    return {part: tuple(np.flatnonzero(chosen[:, part]).tolist()) for part in range(chosen.shape[1])}


def _by_sums(model: Any, design: Design, iteration: Iteration[Any], wanted: Sequence[str] | None) -> bool:
    """Whether the products of columns by part say everything: the models, and what they are worth."""
    if not GroupedGram.fits(design) or not set(wanted or ()) <= {"rows", "r2", "rmse", "explained_variance_ratio"}:
        return False
    one_pass = getattr(model, "errors", "classical") == "classical" or getattr(model, "alpha", 0)
    return bool(model.kind in ("linear_regression", "pca") and one_pass and isinstance(_first(iteration), Gram))


def _first(iteration: Iteration[Any]) -> Aggregate[Any, Any]:
    passes = iteration.passes()
    aggregate = next(passes)
    passes.close()
    return aggregate


def held_out_metrics(model: Any, stack: GramStack, test: Array, design: Design) -> dict[str, Any]:
    """What a model is worth on the rows of some parts, from their products of columns alone."""
    gram = stack.summed(np.isin(stack.codes, np.flatnonzero(test)))
    width = gram.width
    size = np.ones(width) if design.scale is None else design.scale
    center = np.zeros(width) if design.center is None else design.center
    mean, features = (gram.mean[:width] - center) / size, gram.features / np.outer(size, size)
    if model.kind == "pca":
        gap = mean - model.mean_
        about = features + gram.weight * np.outer(gap, gap)
        kept, total = float(np.sum((model.components_ @ about) * model.components_)), float(np.trace(about))
        return {"rows": gram.rows, "explained_variance_ratio": kept / total if total else float("nan")}
    slopes = np.append(-model.coef_, 1.0)
    cross = gram.cross[:, 0] / size
    products = np.block([[features, cross[:, None]], [cross[None], gram.target]])
    level = float(gram.mean[width] - mean @ model.coef_ - model.intercept_)
    squares = max(float(slopes @ products @ slopes), 0.0) + gram.weight * level**2
    total = float(gram.target[0, 0])
    return {
        "rows": gram.rows,
        "r2": 1 - squares / total if total else float("nan"),
        "rmse": float(np.sqrt(squares / gram.weight)) if gram.weight else float("nan"),
    }


def test_of(model: Any, design: Design) -> Aggregate[Any, dict[str, Any]]:
    """The pass that tells what a fitted model is worth."""
    if model.target == "class":
        return ClassEvaluation(design, model._probabilities, len(model.classes_))
    if model.target == "number":
        return NumberEvaluation(design, model._predict)
    return MeanDistance(design, model)


class MeanDistance(Aggregate[Array, dict[str, Any]]):
    """How far rows lie from their nearest centre (k-means) or from their projection (PCA): mean of squares, weighted."""

    what = "distances"

    def __init__(self, design: Design, model: Any) -> None:
        self.design = design
        self.model = model

    def initialize(self) -> Array:
        return np.zeros(4)

    def transition(self, state: Array, block: Block) -> Array:
        features = self.design.dense(block).T
        stored = self.design.weights(block)
        weights = np.ones(block.rows) if stored is None else stored.astype(np.float64)
        if self.model.kind == "k_means":
            near = self.model.cluster_centers_[self.model._nearest(features)]
        else:
            near = self.model.mean_ + (features - self.model.mean_) @ self.model.components_.T @ self.model.components_
        about = features - (self.model.mean_ if self.model.kind == "pca" else 0.0)
        squares = np.sum((features - near) ** 2, axis=1)
        sums = [block.rows, weights.sum(), weights @ squares, weights @ np.sum(about**2, axis=1)]
        return np.asarray(state + np.array(sums))

    def merge(self, state: Array, other: Array) -> Array:
        return np.asarray(state + other)

    def final(self, state: Array) -> dict[str, Any]:
        rows, weight, squares, about = state.tolist()
        found: dict[str, Any] = {
            "rows": int(rows),
            "mean_squared_distance": squares / weight if weight else float("nan"),
        }
        if self.model.kind == "pca":
            found["explained_variance_ratio"] = 1 - squares / about if about else float("nan")
        return found


def parted(table: Any, folds: Folds) -> PartedTable:
    """The table with the column that says which part each row is in."""
    return PartedTable(table, folds.parts, PART)
