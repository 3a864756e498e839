"""What a worker process does with a model that comes by: one hop, and at the end of its stretch what the model is worth."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from braidwater.deep.inputs import InputForm
from braidwater.model_selection.hopper.ground import Ground, refuse_other_ways, require_same_numbers
from braidwater.model_selection.hopper.loop import HopLoop, Rows, Standing, batches_of
from braidwater.model_selection.trial_run import Found, Setup, Stretch, measured
from braidwater.model_selection.variants import variant
from braidwater.options import current_options
from braidwater.parallel.base import Data
from braidwater.parallel.device import torch_threads
from braidwater.parallel.loop import own_random_numbers


@dataclass(frozen=True)
class Hop:
    """Where a model goes: `partition`, coming from `before`. None: its stretch is over, and only to be measured."""

    partition: int | None
    before: Standing


@dataclass(frozen=True)
class HopDone:
    """Where the model stands after a hop; what it is worth, where its stretch has ended; seconds, and bytes that were fetched."""

    standing: Standing
    found: Found | None
    seconds: float
    bytes_read: int


def run_hop(setup: Setup, ground: Ground, stretch: Stretch, hop: Hop) -> HopDone:
    """Train the model of a stretch on one partition, from its checkpoint and into the next one."""
    begun = time.perf_counter()
    trainer = trainer_of(setup, stretch)
    require_same_numbers(trainer, ground)
    form = InputForm(ground.encoding, trainer.precision)
    loss = trainer.loss_of(ground.encoding)
    module = trainer.make_module(form, loss)
    training = trainer.make_training(module, form, loss)
    place = hop.partition or 0
    part, base = ground.rows(place, form)
    before = part.bytes_read
    checked = None
    if ground.validation is not None:
        checked = InputForm(ground.encoding.for_evaluation(), trainer.precision).rows
    data = Data(ground.store, ground.validation, checked)
    with own_random_numbers(training.seed, 0), torch_threads(current_options().workers):
        loop = HopLoop(training, data, Rows(batches_of(base, training, place), ground.sizes))
        if hop.partition is not None:
            loop.hop(hop.partition, hop.before)
        found = None
        if is_over(loop.standing, stretch):
            trainer._take(module, ground.encoding, loss, "hopper", loop.trained())
            trainer.trained_on_ = {"table": ground.table, "rows": ground.store.rows, "schema": None}
            epochs = len(trainer.history_)
            found = replace(measured(trainer, setup, stretch), epochs=epochs)
    return HopDone(loop.standing, found, time.perf_counter() - begun, part.bytes_read - before)


def trainer_of(setup: Setup, stretch: Stretch) -> Any:
    """The trainer of a stretch, its checkpoints in the stretch's folder; schedules are those of the whole training."""
    trainer = variant(setup.model, stretch.parameters)
    refuse_other_ways(trainer)
    trainer.checkpoint = str(checkpoint_folder(stretch))
    trainer.checkpoint_every = "epoch"
    if stretch.most is not None:
        trainer.epochs = stretch.most
    return trainer


def checkpoint_folder(stretch: Stretch) -> Path:
    """Where the checkpoints of a stretch's trial lie."""
    return Path(stretch.folder) / "checkpoint"


def is_over(standing: Standing, stretch: Stretch) -> bool:
    """Whether the model has seen the epochs that it was granted, or early stopping has ended it."""
    assert stretch.epochs is not None
    return standing.stopped or (standing.epoch >= stretch.epochs and not standing.visited)
