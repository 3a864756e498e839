"""What a hopper hands back: fitted models, their history, and who went where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from braidwater.deep.inputs import InputForm
from braidwater.encoding import FittedEncoding
from braidwater.errors import UnsupportedError
from braidwater.model_selection.base import Trial
from braidwater.model_selection.hopper.loop import learnt
from braidwater.model_selection.hopper.tasks import Orders, Usage
from braidwater.model_selection.variants import variant
from braidwater.planner.makespan import HopTime

if TYPE_CHECKING:
    from braidwater.model_selection.hopper.run import HopRun


@dataclass(frozen=True)
class Hopped:
    """The models of a hopper in the order in which they were given; None in the place of one that saw no whole epoch.

    `trials` tell how far each came and by what metric, `errors` why some failed. `orders` are the partitions in the order in
    which each model saw them, epoch by epoch. `usage` is what each worker did, `hops` when which model was where, `seconds` the
    time from the first hop to the last.
    """

    models: list[Any]
    trials: list[Trial]
    metric: str
    best: int | None
    orders: list[Orders]
    usage: dict[int, Usage]
    hops: list[HopTime]
    seconds: float
    workers: int

    @staticmethod
    def of(models: list[Any], run: HopRun, metric: str, workers: int) -> Hopped:
        trials = list(run.trials.values())
        orders: list[Orders] = [run.log.orders.get(trial.number, ()) for trial in trials]
        return Hopped(
            models, trials, metric, run.best, orders, dict(run.log.workers), run.log.hops, run.log.seconds, workers
        )

    @property
    def errors(self) -> dict[int, str]:
        """Why models failed, by their numbers."""
        return {trial.number: trial.error for trial in self.trials if trial.error is not None}

    @property
    def best_model(self) -> Any:
        """The fitted trainer that is best by the metric, of those that were trained to their end."""
        if self.best is None:
            raise UnsupportedError(f"No model has a {self.metric}: all failed. See errors.")
        return self.models[self.best]

    @property
    def busy(self) -> float:
        """The share of the workers' time in which they trained: 1 where none ever waited."""
        spent = sum(usage.seconds for usage in self.usage.values())
        return spent / (self.seconds * self.workers) if self.seconds else 1.0

    @property
    def least_seconds(self) -> float:
        """What no schedule of these hops could go below: the longest model's own time, or the busiest worker's."""
        spent: dict[tuple[str, int], float] = {}
        for hop in self.hops:
            for place in (("model", hop.model), ("worker", hop.worker)):
                spent[place] = spent.get(place, 0.0) + hop.end - hop.begin
        return max(spent.values(), default=0.0)

    def to_table(self) -> pa.Table:
        """A row for each model and epoch: `model`, `epoch`, loss, validation figures, learning rate, seconds."""
        records = [
            {"model": number, **record}
            for number, model in enumerate(self.models)
            if model is not None
            for record in model.history_
        ]
        return pa.Table.from_pylist(records)


def fitted(model: Any, folder: Path, encoding: FittedEncoding, trained_on: dict[str, Any]) -> Any:
    """A trainer like `model` with what its newest checkpoint holds; None where there is none of a whole epoch."""
    found = learnt(folder)
    if found is None:
        return None
    trainer = variant(model, {})
    form, loss = InputForm(encoding, trainer.precision), trainer.loss_of(encoding)
    trainer._take(trainer.make_module(form, loss), encoding, loss, "hopper", found)
    trainer.trained_on_ = trained_on
    return trainer
