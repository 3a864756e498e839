"""Trainers that share no steps: where they are trained, by what each way would cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from braidwater.deep.inputs import InputForm
from braidwater.deep.planning import describe_work, timed
from braidwater.engines import Engine, LocalEngine, Task
from braidwater.errors import BraidwaterError, UserError, WorkerError
from braidwater.model_selection.hopper import hop
from braidwater.model_selection.variants import variant
from braidwater.options import current_options
from braidwater.planner import REFERENCE, stored_machine
from braidwater.planner.constants import available_memory
from braidwater.planner.cost import Job
from braidwater.planner.many_models import ManyModelsPlan, Placement, plan_models
from braidwater.tables import Table

Found = tuple[dict[int, Any], dict[int, Exception]]


def train_placed(
    way: Placement,
    trainers: Mapping[int, Any],
    rows: Table,
    held_out: Table | None,
    roles: Mapping[str, Any],
    workers: int,
    seed: int,
    engine: Engine | None,
) -> Found:
    """Train `trainers` in one of the ways; those that take turns on all workers are left to the caller."""
    if way == "data":
        return {}, {}
    if way == "hopper":
        return _hopping(trainers, rows, held_out, roles, workers, seed, engine)
    return _dealt(trainers, rows, held_out, roles, engine or LocalEngine(workers))


def placement_of(
    trainers: Mapping[int, Any],
    rows: Table,
    roles: Mapping[str, Any],
    workers: int,
    wish: Placement | Literal["auto"] = "auto",
    *,
    measured: bool = False,
) -> ManyModelsPlan:
    """What it would cost to let trainers hop, to deal them out, or to train them in turns on all workers.

    With `measured`, steps of each model are timed on made-up rows first (some seconds a model): counted operations mispredict
    small nets.
    """
    machine = stored_machine() or REFERENCE
    jobs = []
    for model in trainers.values():
        trainer = variant(model, {})
        encoding = trainer.encode(rows, roles["label"], roles["features"], roles["exclude"], roles["sample_weight"])
        form, loss = InputForm(encoding, trainer.precision), trainer.loss_of(encoding)
        module = trainer.make_module(form, loss)
        work = describe_work(trainer, module, form)
        if measured:
            work = timed(work, trainer.make_training(module, form, loss), form, workers)
        memory = current_options().memory
        jobs.append(Job(rows.statistics([]), work, machine, rows.reader, memory, available_memory()))
    return plan_models(jobs, workers, wish)


def _hopping(
    trainers: Mapping[int, Any],
    rows: Table,
    held_out: Table | None,
    roles: Mapping[str, Any],
    workers: int,
    seed: int,
    engine: Engine | None,
) -> Found:
    try:
        found = hop(
            list(trainers.values()), rows, label=roles["label"], features=roles["features"], exclude=roles["exclude"],
            weight=roles["sample_weight"], validation=held_out, workers=workers, seed=seed, engine=engine,
        )  # fmt: skip
    except UserError:  # they do not go together: each may see rows otherwise, or be trained otherwise
        return _dealt(trainers, rows, held_out, roles, engine or LocalEngine(workers))
    numbers = list(trainers)
    models = {number: model for number, model in zip(numbers, found.models, strict=True) if model is not None}
    return models, {numbers[place]: WorkerError(told) for place, told in found.errors.items()}


def _dealt(
    trainers: Mapping[int, Any], rows: Table, held_out: Table | None, roles: Mapping[str, Any], engine: Engine
) -> Found:
    given = {name: roles[name] for name in ("label", "features", "exclude")} | {"weight": roles["sample_weight"]}
    tasks = [Task(str(n), _fit, (variant(model, {}), rows, held_out, given)) for n, model in trainers.items()]
    models: dict[int, Any] = {}
    errors: dict[int, Exception] = {}
    for outcome in engine.tasks(tasks):
        number = int(outcome.task.name)
        if outcome.error is None:
            models[number] = outcome.value
        else:
            errors[number] = (
                outcome.error if isinstance(outcome.error, BraidwaterError) else WorkerError(str(outcome.error))
            )
    return models, errors


def _fit(model: Any, rows: Table, held_out: Table | None, given: dict[str, Any]) -> Any:
    return model.fit(rows, validation=held_out, **given)
