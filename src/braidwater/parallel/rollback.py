"""When a loss is not a number any more: back to the newest checkpoint, and on with smaller steps."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace

from braidwater.engines.base import Engine
from braidwater.errors import NumericalError
from braidwater.events import RolledBack, emit
from braidwater.parallel.base import Data, Strategy, Trained, Training

RATE_FACTOR = 0.5  # of the learning rate, at each return


def train_guarded(strategy: Strategy, training: Training, data: Data, engine: Engine) -> Trained:
    """`strategy.train`; a loss or weights that are not finite send it back to the newest checkpoint at half the learning rate.

    At most `training.max_rollbacks` times, then the `NumericalError` that names the rows is raised. A training without a
    folder for checkpoints gets one of its own for as long as it runs.
    """
    with ExitStack() as stack:
        if training.max_rollbacks and training.checkpoint is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="braidwater-rollback-"))
            training = replace(training, checkpoint=folder)
        for rollbacks in range(training.max_rollbacks + 1):
            factor = training.rate_factor * RATE_FACTOR**rollbacks
            try:
                return strategy.train(replace(training, rate_factor=factor), data, engine)
            except NumericalError as error:
                if rollbacks == training.max_rollbacks:
                    raise
                emit(RolledBack(reason=str(error), rate_factor=factor * RATE_FACTOR))
    raise AssertionError("unreachable")
