"""Learning-rate schedules: the factor of the learning rate as a function of the step.

A function of the step has no state of its own, so that training resumes anywhere with the rate that it would have had.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from braidwater.errors import OptionError

Schedule = Callable[[int, int], float]
WARM_UP = 0.05  # of all steps


def cosine(step: int, steps: int) -> float:
    """From 1 down to 0 along half a cosine (Loshchilov and Hutter 2017, SGDR, without restarts).

    >>> cosine(0, 100), round(cosine(50, 100), 12)
    (1.0, 0.5)
    """
    return 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))


def linear(step: int, steps: int) -> float:
    """From 1 down to 0 on a straight line.

    >>> linear(25, 100)
    0.75
    """
    return 1 - step / max(steps, 1)


def warm_up_cosine(step: int, steps: int) -> float:
    """Up on a straight line for a twentieth of the steps, then `cosine`.

    >>> warm_up_cosine(0, 100), warm_up_cosine(4, 100), warm_up_cosine(5, 100)
    (0.2, 1.0, 1.0)
    """
    rise = max(int(steps * WARM_UP), 1)
    return (step + 1) / rise if step < rise else cosine(step - rise, steps - rise)


SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "linear": linear, "warm_up_cosine": warm_up_cosine}


def find_schedule(schedule: str | Schedule | None) -> Schedule | None:
    """The schedule that was asked for: a name, a function of (step, steps), or None for a constant rate."""
    if schedule is None or callable(schedule):
        return schedule
    if schedule not in SCHEDULES:
        raise OptionError("schedule", schedule, f"None, one of {', '.join(SCHEDULES)}, or a function of (step, steps)")
    return SCHEDULES[schedule]
