"""Many trainers over rows that stay where they are: the models go from worker to worker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from braidwater.encoding.encoding import Features
from braidwater.engines import Engine, LocalEngine
from braidwater.errors import EmptyTableError, OptionError, UnsupportedError
from braidwater.events import running
from braidwater.model_selection.base import Scheduler, direction_of
from braidwater.model_selection.hopper.found import Hopped, fitted
from braidwater.model_selection.hopper.ground import make_ground, refuse_other_ways, require_same_numbers
from braidwater.model_selection.hopper.identity import keep_identity
from braidwater.model_selection.hopper.run import HopRun
from braidwater.model_selection.hopper.tasks import Orders
from braidwater.model_selection.rows import RememberedTable
from braidwater.model_selection.schedulers import find_scheduler
from braidwater.model_selection.schedulers.pruning import Pruning
from braidwater.model_selection.trial_run import Setup
from braidwater.model_selection.variants import is_trainer, variant
from braidwater.options import current_options
from braidwater.tables import Table, table, train_test_split


def hop(
    models: Sequence[Any],
    data: Any,
    *,
    label: str,
    features: Features = None,
    exclude: Sequence[str] = (),
    weight: str | None = None,
    validation: Any = None,
    epochs: int | None = None,
    workers: int | None = None,
    partitions: int | None = None,
    metric: str | None = None,
    direction: str = "auto",
    scheduler: Any = None,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    warm_start: bool = False,
    orders: Sequence[Orders] | None = None,
    retries: int = 1,
    seed: int = 0,
    engine: Engine | None = None,
) -> Hopped:
    """Train many `Trainer`s on a table of which each worker reads its own part only; the models hop from worker to worker.

    Model hopper parallelism (Nakandala, Zhang and Kumar 2020, "Cerebro: A Data System for Optimized Deep Learning Model
    Selection"): the rows are dealt to as many `partitions` as there are workers, or more, of which each then owns several. A
    model is trained on one partition, then goes to another one with all it has (weights, optimiser, step of its schedule, loss
    scale, random numbers), and sees every partition once an epoch. So each model is trained by plain sequential SGD, nothing is
    averaged, and yet no worker reads more than its part of the rows. There is no barrier: a worker that is free takes up the
    model with most left to do that is not somewhere else and has not been there in its epoch.

    The order in which a model sees the partitions follows from who is free when, and with it its weights: they are those of
    one process that trains it in the same order, bit for bit. `Hopped.orders` has the orders; given as `orders` they are
    repeated, and so are the weights.

    `epochs` are those of all models (by default each has its own). `scheduler` (``"asha"``, ``"hyperband"``) stops those that are
    not worth more epochs by `metric`, a figure of the models' history (by default the validation loss, or the loss). `validation`
    is a table or the share of the rows to keep for it; those rows are read by all workers at the end of each epoch. `warm_start`
    begins with the weights of models that were fitted.

    With `checkpoint` (a folder) a later call goes on after Ctrl-C or a crash with the hops that were done, on another number of
    workers too where `partitions` are as many. A worker that dies
    loses one hop, which is done again (`retries` times). A model that fails is recorded in `Hopped.errors`, and the others go on.

    Where `engine` leaves the rows where they lie (`PostgresEngine`), its workers hold the partitions, each a run of the blocks,
    and models hop between them; checkpoints are written here.

    Cost: the blocks of the table as a file (each worker reads its part of it), unless they stay; a checkpoint of each model
    after each hop.
    """
    chosen = _checked_models(models, epochs, warm_start)
    count = workers or (engine.workers if engine is not None else current_options().workers)
    if count < 1:
        raise OptionError("workers", workers, "at least 1")
    parts = partitions or count
    rows, held_out = _split(table(data), validation, seed)
    roles = {"label": label, "features": features, "exclude": exclude, "weight": weight}
    judged = find_scheduler(scheduler)
    _check_scheduler(judged)
    if orders is not None and len(orders) != len(chosen):
        raise OptionError("orders", f"{len(orders)} of them", f"one for each of the {len(chosen)} models")
    if not rows.statistics([]).rows:
        raise EmptyTableError(f"Table {rows.name!r} has no rows to train on.")
    with ExitStack() as stack:
        folder = _folder(checkpoint, stack)
        keep_identity(folder, chosen, rows, parts, seed, resume=resume)
        with running("hopper", rows=rows.statistics([]).rows, passes=max(model.epochs for model in chosen)):
            engine = engine or LocalEngine(count)
            known = rows if engine.stays(rows) else RememberedTable(rows)
            ground = make_ground(chosen[0], known, held_out, roles, parts, engine, stack, count)
            for number, model in enumerate(chosen):
                require_same_numbers(model, ground, f"Model {number}")
            name = _metric_name(metric, held_out is not None)
            setup = Setup(_Chosen(chosen), None, None, {}, (name,), saved=False)
            run = HopRun(
                chosen, setup, ground, folder, engine, judged, direction_of(name, direction), retries, seed, orders
            )
            run.to_the_end()
            schema = {field.name: str(field.type) for field in rows.schema}
            trained_on = {"table": rows.name, "rows": ground.store.rows, "schema": schema}
            models_found = [
                fitted(model, run.folder_of(n), ground.encoding, trained_on) for n, model in enumerate(chosen)
            ]
        return Hopped.of(models_found, run, name, count)


class _Chosen:
    """Makes the model of a trial: a callable, as `search` takes them."""

    def __init__(self, models: Sequence[Any]) -> None:
        self._models = models

    def __call__(self, parameters: dict[str, Any]) -> Any:
        return variant(self._models[parameters["model"]], {})


def _checked_models(models: Sequence[Any], epochs: int | None, warm_start: bool) -> list[Any]:
    """A copy of each model, with its epochs and the weights to begin with."""
    if not models:
        raise OptionError("models", [], "at least one Trainer")
    if epochs is not None and epochs < 1:
        raise OptionError("epochs", epochs, "at least 1")
    made = []
    for number, model in enumerate(models):
        if not is_trainer(model):
            raise UnsupportedError(
                f"Model {number} is a {type(model).__name__}, which is not trained by steps: it cannot hop. fit_many trains "
                "estimators together by shared passes."
            )
        refuse_other_ways(model)
        copied = variant(model, {})
        copied.epochs = epochs or copied.epochs
        if warm_start and hasattr(model, "module_"):
            copied.module = model.module_
        made.append(copied)
    return made


def _split(rows: Table, validation: Any, seed: int) -> tuple[Table, Table | None]:
    if validation is None:
        return rows, None
    if isinstance(validation, float):
        return train_test_split(rows, validation, seed=seed)
    return rows, table(validation)


def _check_scheduler(scheduler: Scheduler) -> None:
    if isinstance(scheduler, Pruning) or scheduler.begins_all:
        raise UnsupportedError(
            f"scheduler={scheduler.name!r} needs hyperparameters to change or the trials of a study; hop takes None, 'asha' or "
            "'hyperband'. search(..., hopper=True) takes all of them."
        )


def _metric_name(metric: str | None, validated: bool) -> str:
    """The figure as a trainer's history calls it."""
    if metric is None:
        return "validation_loss" if validated else "loss"
    return f"validation_{metric}" if validated and not metric.startswith("validation_") else metric


def _folder(checkpoint: str | Path | None, stack: ExitStack) -> Path:
    if checkpoint is not None:
        return Path(checkpoint)
    current_options().cache_directory.mkdir(parents=True, exist_ok=True)
    made = TemporaryDirectory(dir=current_options().cache_directory, prefix="hopper-")
    return Path(stack.enter_context(made))
