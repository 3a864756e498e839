"""What a training costs, as the planner sees it, and the strategy that follows."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from braidwater.deep.building import count_layers, parameter_bytes
from braidwater.deep.inputs import InputForm
from braidwater.deep.layers import PASSING
from braidwater.deep.optimizers import OptimizerPlan
from braidwater.deep.settings import Settings
from braidwater.deep.step_times import MOST_SECONDS, measure_steps
from braidwater.engines import Engine
from braidwater.parallel import STRATEGIES, Data, Strategy, Training, strategy_class
from braidwater.parallel.ensemble.module import EnsembleModule
from braidwater.parallel.label_skew import ADVICE, find_skew
from braidwater.parallel.mixed_precision import HALF
from braidwater.planner import COSTS, Plan, Work, gang_or_in_place, plan_table
from braidwater.tables import Table

WORTH_MEASURING = 1.0  # seconds of work from which on steps are timed
_SHARE = 0.02  # of the estimated time of a training that timing its steps may take


def describe_work(settings: Settings, module: torch.nn.Module, form: InputForm) -> Work:
    """The training as the planner sees it: operations and bytes counted on one row."""
    found = count_layers(module, form)
    weights = parameter_bytes(module)
    return Work(
        name=settings.kind,
        shape="gang",
        passes=settings.epochs,
        # backward computes the gradients of weights and of inputs
        flops_per_row=3 * (found.flops + PASSING * found.activations),
        row_bytes=form.encoding.block_schema.row_bytes,
        read_columns=tuple(form.encoding.columns),
        state_bytes=weights,
        exact=False,
        kernel="torch",
        step_rows=settings.batch_size,
        # activations are held once for the backward pass and once as its gradients
        working_bytes=2 * settings.batch_size * found.activations // settings.accumulate,
        strategies=tuple(name for name in COSTS if name in STRATEGIES),
        layers=found.layers,
        moments=_moments(settings.optimizer),
        half=settings.precision in HALF,
        models=len(module.members) if isinstance(module, EnsembleModule) else 1,
    )


def _moments(plan: OptimizerPlan) -> int:
    """Numbers that the optimiser keeps for each weight."""
    match plan.optimizer:
        case "sgd":
            return int(bool(plan.arguments.get("momentum")))
        case "rmsprop" | "adagrad":
            return 1
    return 2


def make_plan(
    settings: Settings,
    rows: Table,
    work: Work,
    training: Training,
    form: InputForm,
    engine: Engine | None = None,
    **wishes: Any,
) -> Plan:
    """The plan for the strategy that the settings name, or leave to the planner, and what `engine` makes of it.

    Counted operations mispredict small nets. So where the training takes seconds and one process can hold the net, some of
    its steps are timed on made-up rows, for a small part of that time, and the plan is made anew.
    """
    wishes = _own_wishes(settings) | {name: value for name, value in wishes.items() if value is not None}
    plan = _priced(rows, work, training, form, wishes)
    if engine is None:
        return plan
    return gang_or_in_place(plan, engine, rows, work, folds=chosen_strategy(settings, plan).folds)


def _priced(rows: Table, work: Work, training: Training, form: InputForm, wishes: dict[str, Any]) -> Plan:
    plan = plan_table(rows, work, **wishes)
    held = (2 + work.moments) * work.state_bytes + work.working_bytes
    seconds = sum(node.estimated.seconds for node in plan.root.children if node.role == "later")  # of its steps
    if seconds < WORTH_MEASURING or held > plan.memory_limit:
        return plan
    budget = min(_SHARE * seconds, MOST_SECONDS)
    return plan_table(rows, timed(work, training, form, wishes.get("workers"), budget), **wishes)


def timed(
    work: Work, training: Training, form: InputForm, workers: int | None = None, budget: float = MOST_SECONDS
) -> Work:
    """The same work with times measured on this machine, in `budget` seconds unless a few steps take longer."""
    times, layers = measure_steps(training, form, workers, budget)
    shares = {layer.name: layer.share for layer in layers}
    return replace(work, times=times, layers=tuple(replace(layer, share=shares[layer.name]) for layer in work.layers))


def notes_on(data: Data, training: Training, workers: int) -> list[str]:
    """What the blocks tell before training begins: whether strategies that give each worker its own part would fail."""
    skew = find_skew(data.rows, training.form.design.label, training.target, workers)
    return [] if skew is None else [f"{skew} {ADVICE}"]


def _own_wishes(settings: Settings) -> dict[str, Any]:
    """What the settings say of the strategy: its name, its workers, and the options of an object."""
    strategy = settings.strategy
    if isinstance(strategy, str):
        return {"strategy": strategy} | ({} if settings.workers is None else {"workers": settings.workers})
    return {"strategy": strategy.name, "workers": strategy.workers, "options": options_of(strategy)}


def options_of(strategy: Strategy) -> dict[str, Any]:
    """The options of a strategy by name, without its workers."""
    return {one.name: getattr(strategy, one.name) for one in fields(strategy) if one.name != "workers"}  # type: ignore[arg-type]


def chosen_strategy(settings: Settings, plan: Plan) -> Strategy:
    """The strategy of a plan, ready to train."""
    if isinstance(settings.strategy, Strategy):
        return settings.strategy
    chosen = plan.chosen
    found = strategy_class(chosen.strategy)
    takes_workers = chosen.workers > 1 and any(one.name == "workers" for one in fields(found))  # type: ignore[arg-type]
    return found(workers=chosen.workers) if takes_workers else found()  # type: ignore[call-arg]
