"""What a search would do, before it is paid for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from braidwater.engines import Engine
from braidwater.model_selection.base import Budget
from braidwater.model_selection.rows import RememberedTable
from braidwater.model_selection.searching import _Plan, places_of
from braidwater.model_selection.sharing import FusedChoice, SharedPasses, shared_passes
from braidwater.model_selection.space import SpaceChoice
from braidwater.model_selection.trial_run import MetricChoice, Setup


@dataclass(frozen=True)
class SearchPlan:
    """A search as it would run: what is tried and compared, and how trials share their passes. `str()` is for people."""

    model: str
    table: str
    rows: int
    held_out: int | None
    folds: int | None
    metrics: tuple[str, ...]
    budget: Budget
    sampler: str
    scheduler: str
    passes: SharedPasses

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def explain_search(
    model: Any,
    space: SpaceChoice,
    data: Any,
    *,
    metric: MetricChoice | Sequence[MetricChoice] | None = None,
    direction: str | Sequence[str] = "auto",
    budget: Budget | int = 50,
    sampler: Any = "tpe",
    scheduler: Any = None,
    validation: Any = 0.2,
    workers: int | None = None,
    engine: Engine | None = None,
    seed: int = 0,
    trial_timeout: float | None = None,
    hopper: bool = False,
    partitions: int | None = None,
    fused: FusedChoice = "auto",
    **arguments: Any,
) -> SearchPlan:
    """What ``search`` would do with these arguments, and what the other ways would cost. Encoders are fitted, nothing is trained.

    >>> import pyarrow as pa
    >>> from braidwater.estimators import LinearRegression
    >>> from braidwater.model_selection import LogFloat
    >>> rows = pa.table({"x": [0.0, 1.0, 2.0, 3.0] * 9, "y": [1.0, 3.0, 5.0, 7.0] * 9})
    >>> plan = explain_search(LinearRegression(), {"alpha": LogFloat(1e-3, 1)}, rows, label="y", workers=4)
    >>> plan.passes.way
    'circular'
    """
    plan = _Plan(model, space, data, metric, direction, budget, sampler, scheduler, validation, arguments, seed)
    places, engine = places_of(plan, workers, engine)
    rows = RememberedTable(plan.rows)
    setup = Setup(model, rows, plan.held_out, plan.arguments, plan.metric_choices)
    held_out = None if plan.held_out is None else plan.held_out.statistics([]).rows
    hops = SharedPasses("separate", places, hops=True)
    return SearchPlan(
        str(getattr(plan.example, "kind", type(plan.example).__name__)),
        rows.name,
        rows.statistics([]).rows,
        held_out,
        None if plan.folds is None else len(plan.folds),
        plan.metrics,
        plan.budget,
        sampler if isinstance(sampler, str) else type(sampler).__name__,
        plan.scheduler.name,
        hops if hopper else shared_passes(plan, setup, places, engine, trial_timeout, fused),
    )


def _lines(plan: SearchPlan) -> Iterator[str]:
    bounds = [f"{value:g} {name}" for name, value in vars(plan.budget).items() if value is not None]
    yield f"search over {plan.model} on {plan.table}, {plan.rows:,} rows: at most {' or '.join(bounds)}"
    where = "the rows trained on" if plan.held_out is None else f"{plan.held_out:,} rows held out"
    where = where if plan.folds is None else f"{plan.folds} folds"
    scheduler = "" if plan.scheduler == "none" else f", {plan.scheduler} decides how far each is trained"
    yield f"├─ proposed by {plan.sampler}{scheduler}, compared by {', '.join(plan.metrics)} on {where}"
    for place, line in enumerate(str(plan.passes).splitlines()):
        yield f"{'└─ ' if place == 0 else '   '}{line}"
