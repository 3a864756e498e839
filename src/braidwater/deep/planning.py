"""What a training costs, as the planner sees it, and the strategy that follows."""

from __future__ import annotations

import torch

from braidwater.deep.building import count_activations, count_flops, parameter_bytes
from braidwater.deep.inputs import InputForm
from braidwater.deep.settings import Settings
from braidwater.parallel import Strategy, strategy_class
from braidwater.planner import Plan, Work, plan_table
from braidwater.tables import Table


def describe_work(settings: Settings, module: torch.nn.Module, form: InputForm) -> Work:
    """The training as the planner sees it: operations and bytes counted on one row."""
    weights = parameter_bytes(module)
    return Work(
        name=settings.kind,
        shape="gang",
        passes=settings.epochs,
        flops_per_row=count_flops(module, form),
        row_bytes=form.encoding.block_schema.row_bytes,
        read_columns=tuple(form.encoding.columns),
        state_bytes=weights,
        exact=False,
        kernel="torch",
        step_rows=settings.batch_size,
        # gradients and two moments; activations are held once for backward and once as its gradients
        working_bytes=3 * weights + 2 * settings.batch_size * count_activations(module, form) // settings.accumulate,
        strategies=("single", "all_reduce", "averaging"),
    )


def make_plan(settings: Settings, rows: Table, work: Work) -> Plan:
    """The plan for the strategy that the settings name, or leave to the planner."""
    strategy = settings.strategy if isinstance(settings.strategy, str) else settings.strategy.name
    workers = settings.workers if isinstance(settings.strategy, str) else settings.strategy.workers
    return plan_table(rows, work, strategy=strategy, workers=workers)


def chosen_strategy(settings: Settings, plan: Plan) -> Strategy:
    """The strategy of a plan, ready to train."""
    if isinstance(settings.strategy, Strategy):
        return settings.strategy
    chosen = plan.chosen
    found = strategy_class(chosen.strategy)
    return found() if chosen.strategy == "single" else found(workers=chosen.workers)  # type: ignore[call-arg]
