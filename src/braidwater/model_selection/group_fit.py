"""Training one model a group: which passes are made, over which blocks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from braidwater.aggregates import ClassCounts
from braidwater.aggregates.base import Aggregate
from braidwater.aggregates.grouped_gram import GroupedGram
from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array
from braidwater.blocks.clustered import ClusteredSource
from braidwater.encoding.design import Design
from braidwater.encoding.groups import GROUP, GroupedEncoding, Groups
from braidwater.engines import Engine, LocalEngine
from braidwater.errors import OptionError
from braidwater.estimators.base import TableEstimator, Training
from braidwater.estimators.linear_regression import LinearRegression
from braidwater.estimators.logistic_regression import LogisticRegression
from braidwater.events import Planned, emit, running
from braidwater.kernels import choose_kernel
from braidwater.model_selection.least_squares import GroupSolver
from braidwater.model_selection.logistic_groups import StackedNewton
from braidwater.model_selection.model_stack import ModelStack
from braidwater.model_selection.side_by_side import SideBySide, Trained, finish, iteration_of
from braidwater.options import current_options
from braidwater.planner import Plan, plan_table
from braidwater.planner.base import Work
from braidwater.tables import Table
from braidwater.tables.base import Partition

# Up to so many groups one pass of numpy over the blocks as they come is cheaper than sorting the rows by group
UNSORTED_UP_TO = 256
# Blocks of one pass hold so many rows a group, within reason: a state for all groups is made and merged for each of them
ROWS_A_GROUP = 32


@dataclass(frozen=True)
class GroupFit:
    """The models of all groups that got one, and for each group why it did not (empty: it did) or what was warned of."""

    models: ModelStack
    reasons: list[str]
    warnings: list[str]
    plan: Plan | None


def in_one_pass(model: TableEstimator, design: Design) -> bool:
    """Whether the models of all groups follow from products of columns, without a look at a single one of them."""
    return type(model) is LinearRegression and model.errors == "classical" and GroupedGram.fits(design)


def group_work(model: TableEstimator, work: Work, design: Design, groups: int) -> Work:
    """The work of one model, made that of `groups` of them: a pass more to sort the rows, and a state for every group."""
    return replace(
        work,
        name=f"{work.name}, {groups:,} group{'s' * (groups != 1)}",
        passes=work.passes + (_order(model, work, design, groups) == "clustered"),
        row_bytes=work.row_bytes + 2,
        state_bytes=work.state_bytes * groups,
    )


Order = Literal["as they come", "clustered"]


def _order(model: TableEstimator, work: Work, design: Design, groups: int) -> Order:
    """How rows lie in blocks: sorted by group once where they are looked at more than once, or states would be too large."""
    few = groups * work.state_bytes <= current_options().memory // 32
    few = few and (work.kernel == "fused" or groups <= UNSORTED_UP_TO)
    return "as they come" if few and in_one_pass(model, design) else "clustered"


class _LargeBlocks(BlockSource):
    """Blocks of so many rows a group that their states are few, as far as memory allows; read once, not kept.

    Partitions are to have half of a block's rows: one that ends behind that is still one block, and leaves no small rest.
    """

    def __init__(self, table: Table, encoding: GroupedEncoding, groups: int) -> None:
        schema = encoding.block_schema
        line = 8 * (len(encoding.encoding.design.names) + 8)  # of a row in float64, beside its block
        affordable = current_options().memory // 16 // max(schema.row_bytes, line)
        self._unit_rows = max(schema.unit_rows, min(ROWS_A_GROUP * groups, affordable))
        super().__init__(table, encoding)

    @property
    def unit_rows(self) -> int:
        return self._unit_rows

    def partitions(self, rows: int = 0) -> list[Partition]:
        return self.table.partitions(max(rows, self._unit_rows // 2))


def fit_each_group(
    template: TableEstimator, training: Training, groups: Groups, refused: dict[int, str], engine: Engine | None
) -> GroupFit:
    """One model for each group but those `refused`."""
    assert training.encoding is not None
    work = template.work(training.table, training.encoding)
    order = _order(template, work, training.design, len(groups.keys))
    if engine is not None and not isinstance(engine, LocalEngine):
        order = "as they come"  # its blocks are its own: each is sorted by group when it is looked at
    encoding = _encoding(training, groups)
    work = group_work(template, work, training.design, len(groups.keys))
    plan = plan_table(training.table, work, workers=None if engine is None else engine.workers)
    emit(Planned(text=str(plan)))
    engine = engine or LocalEngine(plan.chosen.workers)
    with (
        running(work.name, rows=training.rows, passes=work.passes),
        _source(template, training, groups, encoding, work.passes, plan, order) as source,
        plan.measuring(),
    ):
        if order == "clustered":
            engine.materialise(source)
        if in_one_pass(template, training.design):
            return _by_products(template, training, groups, refused, engine, source, plan)
        return _by_iterations(template, training, groups, refused, engine, source, plan)


def _encoding(training: Training, groups: Groups) -> GroupedEncoding:
    assert training.encoding is not None
    own = None
    if groups.classes is not None:
        present = groups.classes > 0
        own = np.where(present, np.cumsum(present, axis=1) - 1, 0)
    return GroupedEncoding(training.encoding, groups.keys, own)


def _source(
    template: TableEstimator,
    training: Training,
    groups: Groups,
    encoding: GroupedEncoding,
    passes: int,
    plan: Plan,
    order: Order,
) -> BlockSource:
    if order != "clustered" and not in_one_pass(template, training.design):
        return BlockSource(training.table, encoding, passes=passes, cache=plan.chosen.cache)
    if order != "clustered":
        return _LargeBlocks(training.table, encoding, len(groups.keys))
    cache = plan.chosen.cache
    return ClusteredSource(training.table, encoding, column=GROUP, counts=groups.rows, passes=passes, cache=cache)


def _by_products(
    template: Any,
    training: Training,
    groups: Groups,
    refused: dict[int, str],
    engine: Engine,
    source: BlockSource,
    plan: Plan,
) -> GroupFit:
    kernel = choose_kernel(training.rows, template.kernel)
    stack = engine.aggregate(source, GroupedGram(training.design, GROUP, kernel=kernel))
    finite = np.isfinite(stack.products).all(axis=(1, 2)) & (stack.weight > 0)
    keep = finite & ~np.isin(stack.codes, list(refused)) if refused else finite
    chosen = stack if keep.all() else stack.part(keep)
    solver = GroupSolver(chosen, training.design, float(template.alpha), bool(template.fit_intercept), kernel)
    found = solver.solve(engine.workers)
    constants: dict[str, Any] = {}
    if template.alpha:
        constants = {"covariance_": None, "standard_errors_": None, "intercept_standard_error_": float("nan")}
    reasons, warnings = [""] * len(groups.keys), [""] * len(groups.keys)
    for code in np.setdiff1d(np.arange(len(groups.keys)), chosen.codes).tolist():
        reasons[code] = refused.get(code, "no row with a weight and finite numbers")
    columns = found["coef_"].shape[1] + int(template.fit_intercept)
    for place in np.flatnonzero(found["rank_"] < columns).tolist() if not template.alpha else []:
        missing = columns - int(found["rank_"][place])
        warnings[chosen.codes[place]] = f"{missing} of {columns} coefficients cannot be told apart"
    models = ModelStack.of_arrays(found, chosen.codes, len(groups.keys), constants, solver.details)
    return GroupFit(models, reasons, warnings, plan)


def _by_iterations(
    template: TableEstimator,
    training: Training,
    groups: Groups,
    refused: dict[int, str],
    engine: Engine,
    source: BlockSource,
    plan: Plan,
) -> GroupFit:
    count = len(groups.keys)
    rows = _rows(source, groups, engine)
    quick = _in_stacks(template, training, groups, refused, engine, source)
    done = set() if quick is None else set(np.flatnonzero(quick.present).tolist())
    trainings = {
        code: replace(training, row_count=int(rows[code]), classes=_own_classes(training, groups, code))
        for code in range(count)
        if code not in refused and code not in done
    }
    iterations = {code: iteration_of(copy.copy(template), own) for code, own in trainings.items()}
    members = {code: (code,) for code in iterations}
    # a row's number in its own group, so that draws are those of a fit of it alone
    bases = np.cumsum(rows) - rows if isinstance(source, ClusteredSource) else None
    trained = engine.iterate(source, SideBySide(iterations, GROUP, members, bases)) if iterations else {}
    reasons, warnings = [refused.get(code, "") for code in range(count)], [""] * count
    models: list[Any] = [None] * count
    for code, own in trainings.items():
        ended = _finished(template, own, trained[code])
        if ended.error is not None:
            reasons[code] = str(ended.error)
        else:
            models[code], warnings[code] = ended.result, " ".join(ended.warnings)
    stack = ModelStack.of_models(models)
    return GroupFit(stack if quick is None else quick.joined(stack), reasons, warnings, plan)


def _in_stacks(
    template: Any,
    training: Training,
    groups: Groups,
    refused: dict[int, str],
    engine: Engine,
    source: BlockSource,
) -> ModelStack | None:
    """The models of those groups that Newton's method in stacks can fit; None for models that it does not know."""
    if type(template) is not LogisticRegression or groups.classes is None or groups.classes.shape[1] != 2:
        return None
    l1 = float(template.alpha) * float(template.l1_ratio)
    if l1 or template.solver not in ("auto", "newton") or not GroupedGram.fits(training.design):
        return None
    count = len(groups.keys)
    newton = StackedNewton(
        training.design,
        np.setdiff1d(np.arange(count), list(refused)),
        count,
        float(template.alpha),
        bool(template.fit_intercept),
        float(template.tol),
        int(template.max_iter),
        bool(template.standardize),
        choose_kernel(training.rows, template.kernel),
    )
    codes, found = engine.iterate(source, newton)
    constants: dict[str, Any] = {"progressive_loss_": None}
    if template.alpha:
        constants |= dict.fromkeys(("covariance_", "standard_errors_", "intercept_standard_error_"))
    return ModelStack.of_arrays(found, codes, count, constants)


def _finished(template: TableEstimator, training: Training, trained: Trained) -> Trained:
    if trained.error is not None:
        return trained
    try:
        return finish(copy.copy(template), training, trained.result)
    except ValueError as error:  # what a fit of this group alone would have raised at its end
        return Trained(error=error)


def _rows(source: BlockSource, groups: Groups, engine: Engine) -> Array:
    """The rows of each group that were kept: all, unless the NULL policy drops some."""
    if source.store is None or source.store.rows == groups.rows.sum():
        return groups.rows
    counted: Aggregate[Any, Any] = ClassCounts(Design((), (), label=GROUP), len(groups.keys))
    rows: Array = engine.aggregate(source, counted).rows
    return rows


def _own_classes(training: Training, groups: Groups, code: int) -> Array | None:
    if training.classes is None or groups.classes is None:
        return training.classes
    found: Array = training.classes[groups.classes[code] > 0]
    return found


def too_small(template: Any, training: Training, groups: Groups, min_rows: int | None) -> dict[int, str]:
    """The groups that no model can be learnt from, with the reason."""
    least = min_rows if min_rows is not None else _least_rows(template, training.design.width)
    refused = {
        int(code): f"{int(groups.rows[code])} rows, fewer than {least}" for code in np.flatnonzero(groups.rows < least)
    }
    if groups.classes is not None and training.classes is not None:
        for code in np.flatnonzero((groups.classes > 0).sum(axis=1) < 2).tolist():
            names = training.classes[groups.classes[code] > 0].tolist()
            refused[code] = f"one class only, {names[0]!r}" if names else "no label"
    return refused


def _least_rows(template: Any, width: int) -> int:
    """A row for every number that is learnt without a penalty, two for anything else."""
    if template.target != "none" and not getattr(template, "alpha", 0.0):
        return width + int(getattr(template, "fit_intercept", True))
    return max(2, int(getattr(template, "n_clusters", 2)))


def refuse_keys_as_features(by: Sequence[str], features: Any, label: str | None) -> None:
    """Raise `OptionError` where a column that groups are made by is to be learnt, or learnt from."""
    if label in by:
        raise OptionError("by", list(by), f"without the label {label!r}")
    named = [pick for pick in ([features] if isinstance(features, str) else features or ()) if pick in by]
    if named:
        raise OptionError(
            "features", named[0], "no column that groups are made by: it is the same for all rows of a group"
        )
