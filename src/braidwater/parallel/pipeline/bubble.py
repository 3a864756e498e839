"""How long a pipeline's workers wait for each other, foretold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from braidwater.errors import OptionError

Schedule = Literal["gpipe", "1f1b", "interleaved", "zero_bubble"]
SCHEDULES: tuple[Schedule, ...] = ("gpipe", "1f1b", "interleaved", "zero_bubble")


def predict_bubble(workers: int, micro_batches: int, schedule: Schedule = "1f1b", stages_per_worker: int = 1) -> float:
    """The share of a step in which a worker is idle, for stages that take equally long and messages that take no time.

    With p workers and m micro-batches, and v stages a worker: (p - 1) / (v m + p - 1) (Huang et al. 2019, "GPipe", arXiv
    1811.06965; Narayanan et al. 2021, arXiv 2104.04473, for v > 1). For "zero_bubble" the weights' gradients fill two thirds
    of it, where forward, the inputs' and the weights' gradients take equally long: (p - 1) / (3 v m + p - 1) (Qi et al. 2023,
    arXiv 2401.10241, ZB-H1).

    >>> predict_bubble(2, 4), predict_bubble(4, 8, "interleaved", stages_per_worker=2)
    (0.2, 0.15789473684210525)
    """
    if schedule not in SCHEDULES:
        raise OptionError("schedule", schedule, f"one of {', '.join(SCHEDULES)}")
    pieces = micro_batches * stages_per_worker * (3 if schedule == "zero_bubble" else 1)
    return (workers - 1) / (pieces + workers - 1)


def predict_step_seconds(stages: Sequence[float], micro_batches: int, message: float = 0.0) -> float:
    """Seconds of a step of "gpipe" or "1f1b" whose stages take `stages` seconds forward and backward for one micro-batch.

    The first micro-batch passes all stages, the others follow at the pace of the slowest; `message` is the time to hand on
    one micro-batch.

    >>> predict_step_seconds([1.0, 2.0], micro_batches=4)
    9.0
    """
    return sum(stages) + (micro_batches - 1) * max(stages) + 2 * message * (len(stages) - 1)
