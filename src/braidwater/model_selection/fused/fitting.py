"""Many models over one table: those that can share passes do, and the plan says which and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, overload

from braidwater.encoding.encoding import Features
from braidwater.engines import Engine
from braidwater.errors import BraidwaterError, EmptyTableError, OptionError
from braidwater.estimators.base import TableEstimator
from braidwater.events import Planned, emit
from braidwater.model_selection.fused.estimators import Scan, opened, scans_of, train_scan
from braidwater.model_selection.rows import RememberedTable
from braidwater.model_selection.variants import is_trainer, variant
from braidwater.options import current_options
from braidwater.planner import plan_table
from braidwater.planner.many_models import ManyModelsPlan, Placement
from braidwater.planner.tree import format_seconds
from braidwater.tables import Table, table, train_test_split


def fit_many(
    models: Sequence[Any],
    data: Any,
    *,
    label: str | None = None,
    features: Features = None,
    subsets: Sequence[Sequence[str] | None] | None = None,
    exclude: Sequence[str] = (),
    sample_weight: str | None = None,
    validation: Any = None,
    workers: int | None = None,
    seed: int = 0,
    placement: Placement | Literal["auto"] = "auto",
    engine: Engine | None = None,
) -> FittedModels:
    """Fit all of `models` to a table, reading it as seldom as they allow; the models that are given stay as they are.

    Estimators share their passes: each decides on its own what the next pass shall find, and whatever can be found at once is
    (gradients of many logistic models in one aggregate, products of columns for many regressions). Models of some columns only
    (`subsets` gives each its columns, None for all) are those of all columns with the other weights at 0. Nets of one
    architecture are stacked and take their steps together, each with its own learning rate, weight decay, momentum, seed. The
    results are those of ``model.fit`` for each alone: to rounding for estimators, and for nets in float64; in float32
    rounding grows with the steps.

    What cannot be shared is trained by itself: trainers as the planner finds cheapest, or as `placement` says (``"hopper"``: they
    hop over parted rows, see `hop`; ``"tasks"``: one a worker; ``"data"``: in turns, each on all `workers`). ``explain_many``
    and `FittedModels.plan` say what goes together, what does not, and why. A model that fails stands in
    `FittedModels.errors`, with None in its place, and the others go on.

    `validation` (a table, or a share of the rows, drawn by `seed`) is for trainers.

    >>> import pyarrow as pa
    >>> from braidwater.estimators import LinearRegression
    >>> rows = pa.table({"x": [0.0, 1.0, 2.0, 3.0], "z": [1.0, 0.0, 0.0, 1.0], "y": [1.0, 3.0, 5.0, 7.0]})
    >>> found = fit_many([LinearRegression(), LinearRegression()], rows, label="y", subsets=[["x"], None])
    >>> [model.coef_.round(6).tolist() for model in found], len(found.plan.parts)
    ([[2.0], [2.0, 0.0]], 1)
    """
    rows = table(data)
    count = workers or (engine.workers if engine is not None else current_options().workers)
    plan = _arranged(models, rows, label, features, subsets, exclude, sample_weight, count, placement)
    emit(Planned(text=str(plan)))
    return plan.run(rows, validation, count, seed, engine)


def explain_many(
    models: Sequence[Any],
    data: Any,
    *,
    label: str | None = None,
    features: Features = None,
    subsets: Sequence[Sequence[str] | None] | None = None,
    exclude: Sequence[str] = (),
    sample_weight: str | None = None,
    workers: int | None = None,
    placement: Placement | Literal["auto"] = "auto",
) -> ManyPlan:
    """What ``fit_many`` would do, and its cost. Encoders are fitted, nothing is trained."""
    count = workers or current_options().workers
    return _arranged(models, table(data), label, features, subsets, exclude, sample_weight, count, placement)


@dataclass(frozen=True)
class FittedModels(Sequence[Any]):
    """Fitted models in the order in which they were given; None in the place of one that failed.

    `errors` are by their numbers, `plan` says how they were trained.
    """

    models: tuple[Any, ...]
    errors: dict[int, Exception]
    plan: ManyPlan

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, place: int | slice) -> Any:
        return self.models[place]

    def __len__(self) -> int:
        return len(self.models)


@dataclass(frozen=True)
class Part:
    """Models that are trained together, `how`, and what that costs: seconds, and those that each of them would take alone."""

    numbers: tuple[int, ...]
    how: str
    seconds: float | None = None
    alone: float | None = None


@dataclass
class ManyPlan:
    """What goes together (`parts`), and why a model does not go with those before it (`reasons`, by its number)."""

    table: str
    models: Sequence[Any]
    roles: Mapping[str, Any]
    parts: list[Part] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    placement: ManyModelsPlan | None = None
    _scans: list[Scan] = field(default_factory=list, repr=False)
    _stacks: list[Any] = field(default_factory=list, repr=False)
    _rest: list[int] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def run(self, rows: Table, validation: Any, workers: int, seed: int, engine: Engine | None) -> FittedModels:
        """Train everything."""
        found: dict[int, Any] = {}
        errors = dict(self.errors)
        for scan in self._scans:
            models, failed, _ = train_scan(scan, rows, engine)
            found |= models
            errors |= failed
        own, held_out = _split(rows, validation, seed)
        for stack in self._stacks:
            from braidwater.model_selection.fused.nets import train_stack

            models, failed = train_stack(stack, own, held_out, engine)
            found |= models
            errors |= failed
        models, failed = self._place(own, held_out, workers, seed, engine)
        found |= models
        ordered = tuple(found.get(number) for number in range(len(self.models)))
        return FittedModels(ordered, errors | failed, self)

    def _place(
        self, rows: Table, held_out: Table | None, workers: int, seed: int, engine: Engine | None
    ) -> tuple[dict[int, Any], dict[int, Exception]]:
        found: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        if self.placement is not None:
            from braidwater.model_selection.fused.placing import train_placed

            way = self.placement.chosen.name
            found, errors = train_placed(way, self.trainers, rows, held_out, self.roles, workers, seed, engine)
        for number in self._rest:
            if number not in found and number not in errors:
                _attempt(number, partial(self._alone, number, rows, held_out, engine), found, errors)
        return found, errors

    @property
    def trainers(self) -> dict[int, Any]:
        """Those that share nothing with others, by their numbers."""
        return {n: self.models[n] for n in self._rest if is_trainer(self.models[n])}

    def _alone(self, number: int, rows: Table, held_out: Table | None, engine: Engine | None) -> Any:
        model, roles = self.models[number], self.roles
        given = {"label": roles["label"], "features": roles["features"], "exclude": roles["exclude"]}
        if is_trainer(model):
            weight = {"weight": roles["sample_weight"], "validation": held_out, "engine": engine}
            return variant(model, {}).fit(rows, **given, **weight)
        return variant(model, {}).fit(rows, **{name: value for name, value in given.items() if value})


def _attempt(number: int, call: Callable[[], Any], found: dict[int, Any], errors: dict[int, Exception]) -> None:
    try:
        found[number] = call()
    except BraidwaterError as error:
        errors[number] = error


def _split(rows: Table, validation: Any, seed: int) -> tuple[Table, Table | None]:
    if validation is None:
        return rows, None
    if isinstance(validation, float):
        return train_test_split(rows, validation, seed=seed)
    return rows, table(validation)


def _arranged(
    models: Sequence[Any],
    rows: Table,
    label: str | None,
    features: Features,
    subsets: Sequence[Sequence[str] | None] | None,
    exclude: Sequence[str],
    sample_weight: str | None,
    workers: int,
    placement: Placement | Literal["auto"],
) -> ManyPlan:
    if not models:
        raise OptionError("models", [], "at least one model")
    if subsets is not None and len(subsets) != len(models):
        raise OptionError(
            "subsets", f"{len(subsets)} of them", f"one for each of the {len(models)} models, None for all columns"
        )
    if not rows.statistics([]).rows:
        raise EmptyTableError(f"Table {rows.name!r} has no rows; there is nothing to learn from.")
    roles = {"label": label, "features": features, "exclude": exclude, "sample_weight": sample_weight}
    plan = ManyPlan(rows.name, models, roles)
    known = RememberedTable(rows)
    columns = {n: features if subsets is None or subsets[n] is None else subsets[n] for n in range(len(models))}
    _arrange_estimators(plan, known, columns)
    _arrange_nets(plan, known, subsets)
    placed = {number for part in plan.parts for number in part.numbers} | set(plan.errors)
    plan._rest = [number for number in range(len(models)) if number not in placed]
    for number in plan._rest:
        plan.reasons.setdefault(number, f"a {type(models[number]).__name__} shares nothing")
    if len(plan.trainers) > 1:
        from braidwater.model_selection.fused.placing import placement_of

        plan.placement = placement_of(plan.trainers, known, roles, workers, placement)
    return plan


def _arrange_estimators(plan: ManyPlan, rows: Table, columns: Mapping[int, Any]) -> None:
    found: dict[int, Any] = {}
    for number, model in enumerate(plan.models):
        if isinstance(model, TableEstimator):
            _attempt(number, partial(opened, model, rows, plan.roles, columns[number], None), found, plan.errors)
    scans, reasons = scans_of(found)
    plan.reasons |= reasons
    plan._scans = scans
    for scan in scans:
        seconds = plan_table(rows, scan.work(rows)).root.estimated.seconds
        own = [plan_table(rows, scan.templates[n].work(rows, t.encoding)) for n, t in scan.trainings.items()]
        alone = sum(one.root.estimated.seconds for one in own)
        told = f"shared passes over {len(scan.features)} columns"
        plan.parts.append(Part(tuple(scan.templates), told, seconds, alone))


def _arrange_nets(plan: ManyPlan, rows: Table, subsets: Any) -> None:
    trainers = {number: model for number, model in enumerate(plan.models) if is_trainer(model)}
    if not trainers:
        return
    if subsets is not None and any(subsets[number] is not None for number in trainers):
        raise OptionError(
            "subsets", "columns for a trainer", "left out for trainers: give fit_many those of equal columns"
        )
    if len(trainers) == 1:
        plan.reasons[next(iter(trainers))] = "there is no other net"
        return
    from braidwater.model_selection.fused.nets import stacks_of

    stacks, reasons, errors = stacks_of(trainers, rows, plan.roles)
    plan.reasons |= reasons
    plan.errors |= errors
    for stack in stacks:
        if len(stack.trainers) == 1:
            plan.reasons.setdefault(next(iter(stack.trainers)), "no other net is like it")
            continue
        plan._stacks.append(stack)
        plan.parts.append(Part(tuple(stack.trainers), "stacked: one step for all of them"))


def _lines(plan: ManyPlan) -> Iterator[str]:
    count = len(plan.parts) + len(plan._rest)
    yield f"{len(plan.models)} models over {plan.table}, trained in {count} part{'s' * (count != 1)}"
    for part in plan.parts:
        told = ""
        if part.seconds is not None and part.alone is not None and len(part.numbers) > 1:
            told = f", {format_seconds(part.seconds)} instead of {format_seconds(part.alone)} one after another"
        yield f"├─ {_told(part.numbers)}: {part.how}{told}"
    if plan._rest:
        yield f"├─ {_told(tuple(plan._rest))}: share nothing"
    if plan.placement is not None:
        yield from (f"│  {line}" for line in str(plan.placement).splitlines())
    for number, reason in sorted(plan.reasons.items()):
        yield f"│  {'model'} {number} does not go with those before it: {reason}"
    for number, error in sorted(plan.errors.items()):
        yield f"│  model {number} cannot be trained: {error}"


def _told(numbers: Sequence[int]) -> str:
    """``models 0-3, 7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    told = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"model{'s' * (len(numbers) > 1)} {told}"
