"""Hops to where the rows stay: a model travels with all it has, and its checkpoints are read and written on this side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from braidwater.blocks.mini_batches import MiniBatches
from braidwater.blocks.store import BlockStore
from braidwater.blocks.windows import RowForm
from braidwater.deep.inputs import InputForm
from braidwater.engines import Engine, Outcome, RunningTasks
from braidwater.engines.once import Once
from braidwater.errors import OptionError
from braidwater.events import CheckpointWritten, TaskEvent, emit
from braidwater.model_selection.hopper.ground import require_same_numbers
from braidwater.model_selection.hopper.loop import HopLoop, Rows, batches_of, learnt, standing_in
from braidwater.model_selection.hopper.luggage import Carried, Luggage
from braidwater.model_selection.hopper.tasks import HopTasks, Journey
from braidwater.model_selection.hopper.worker import Hop, HopDone, is_over, trainer_of
from braidwater.model_selection.trial_run import Found, figures_of, measured
from braidwater.parallel.base import Data, Training
from braidwater.parallel.checkpoint import Checkpoints
from braidwater.parallel.loop import identity, own_random_numbers


@dataclass
class Traveller:
    """A model on this side: its trainer and loss, what is sent of it once, and its checkpoints."""

    trainer: Any
    loss: Any
    training: Once[Training]
    checkpoints: Checkpoints


class VisitingHops(HopTasks):
    """Hops as visits to the workers of an engine that leaves the rows where they lie (`Engine.visits`).

    The schedule is this process's, and what is left of it after a crash are the checkpoints: each holds weights, optimiser,
    random numbers and the partitions seen, so that nothing has to be written down where the rows are.
    """

    def _start(self, engine: Engine) -> RunningTasks:
        ground = self._ground
        whole = [] if ground.validation is None else [ground.validation]
        self._travellers: dict[int, Traveller] = {}
        return engine.visits(self._hops(), ground.store, whole, workers=self._partitions)

    def _call(self, journey: Journey, hop: Hop) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        try:
            return visit_rows, self._arguments(journey, hop)
        except Exception as error:  # this model's, and not that of the others
            return fail, (error,)

    def _arguments(self, journey: Journey, hop: Hop) -> tuple[Any, ...]:
        number = journey.stretch.number
        if number not in self._travellers:
            self._travellers[number] = self._traveller(journey)
        one, ground = self._travellers[number], self._ground
        checked = None
        if ground.validation is not None:
            checked = InputForm(ground.encoding.for_evaluation(), one.trainer.precision).rows
        return one.training, ground.sizes, checked, hop, Luggage.packed(one.checkpoints)

    def _traveller(self, journey: Journey) -> Traveller:
        ground = self._ground
        trainer = trainer_of(self._setup, journey.stretch)
        require_same_numbers(trainer, ground)
        form, loss = InputForm(ground.encoding, trainer.precision), trainer.loss_of(ground.encoding)
        training = trainer.make_training(trainer.make_module(form, loss), form, loss)
        same = identity(training, Data(ground.store), f"hopper over {ground.partitions} partitions", 1)
        checkpoints = Checkpoints(trainer.checkpoint, same)
        return Traveller(trainer, loss, Once(replace(training, checkpoint=None)), checkpoints)

    def _done(self, journey: Journey, outcome: Outcome) -> HopDone:
        stretch, luggage = journey.stretch, outcome.value
        one = self._travellers[stretch.number]
        written = None if luggage is None else luggage.unpack(one.checkpoints)
        if written is not None:
            told = CheckpointWritten(
                path=str(one.checkpoints.path), step=written.steps, bytes=written.bytes, seconds=written.seconds
            )
            emit(TaskEvent(task=journey.task.name, worker=outcome.worker, told=told))
        standing = journey.standing
        if luggage is not None:
            values = luggage.state.values
            standing = standing_in(luggage.progress, values["visited"], values["orders"])
        found = self._found(one, journey) if is_over(standing, stretch) else None
        return HopDone(standing, found, outcome.seconds, 0)

    def _found(self, one: Traveller, journey: Journey) -> Found:
        """What a model is worth at the end of its stretch: what its records tell, as the rows are not here."""
        trainer, ground = one.trainer, self._ground
        trained = learnt(one.checkpoints.path)
        assert trained is not None
        trainer._take(one.training.value.module, ground.encoding, one.loss, "hopper", trained)
        trainer.trained_on_ = {"table": ground.table, "rows": ground.store.rows, "schema": None}
        known = figures_of(trainer)
        for metric in self._setup.metrics:
            if isinstance(metric, str) and not {metric, f"validation_{metric}"} & set(known):
                raise OptionError(
                    "metric",
                    metric,
                    f"one of {', '.join(sorted(known))}, or one of Trainer(metrics=[...]): the rows stay there",
                )
        found = measured(trainer, self._setup, journey.stretch)
        return replace(found, epochs=len(trainer.history_))

    def _ended_with(self, name: str, outcome: Outcome) -> Outcome:
        self._travellers.pop(self._journeys[name].stretch.number, None)
        return super()._ended_with(name, outcome)


def visit_rows(
    stores: Sequence[BlockStore],
    training: Once[Training],
    sizes: tuple[int, ...],
    checked: RowForm | None,
    hop: Hop,
    brought: Luggage | None,
) -> Luggage | None:
    """The hop where the rows are: what the model has learnt, None where it was not to be trained."""
    if hop.partition is None:
        return None
    part, validation = stores[0], stores[1] if len(stores) > 1 else None
    given = training.value
    base = MiniBatches(part, given.form, batch_size=1)
    rows = Rows(batches_of(base, given, hop.partition), sizes)
    carried = Carried(brought)
    with own_random_numbers(given.seed, 0):
        loop = HopLoop(given, Data(part, validation, checked), rows, carried)
        loop.hop(hop.partition, hop.before)
    return carried.luggage


def fail(stores: Sequence[BlockStore], error: Exception) -> None:
    """What is left of a hop that cannot begin."""
    raise error
