"""Columns of a frame smoothed by exponentially weighted means; missing numbers are the forecast of what stands before them.

C. C. Holt, Forecasting seasonals and trends by exponentially weighted moving averages, 1957 (level and trend).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from braidwater.dml.values import Frame
from braidwater.errors import OptionError, UnsupportedError


def smooth(frame: Frame, mode: str, weights: Sequence[float]) -> Frame:
    """Each column smoothed: "single" with the weight of the newest value, "double" with that of the newest slope as well.

    Raises UnsupportedError for "triple" (seasons), and for weights that shall be searched at random (NaN).
    """
    if mode == "triple" or any(math.isnan(weight) for weight in weights[: {"single": 1}.get(mode, 2)]):
        raise UnsupportedError(
            "ema smooths with mode single or double and weights that are given; triple and NaN are not there."
        )
    if mode not in ("single", "double"):
        raise OptionError("mode", mode, "single or double")
    columns = [[float("nan") if cell is None else float(cell) for cell in column.tolist()] for column in frame.columns]
    made = [single(column, weights[0]) if mode == "single" else double(column, *weights[:2]) for column in columns]
    return Frame.of(made, frame.names, ["double"] * len(made))


def single(values: Sequence[float], alpha: float) -> list[float]:
    """The mean of each value and the mean before it.

    >>> single([4.0, float("nan"), 2.0], 0.5)
    [4.0, 4.0, 3.0]
    """
    found = [values[0]]
    for value in values[1:]:
        found.append(alpha * (found[-1] if math.isnan(value) else value) + (1 - alpha) * found[-1])
    return found


def double(values: Sequence[float], alpha: float, beta: float) -> list[float]:
    """One-step forecasts by level and slope; the first value is itself.

    >>> double([1.0, 2.0, 3.0, 4.0], 0.5, 0.5)
    [1.0, 3.0, 4.0, 5.0]
    """
    level, slope = values[1], values[1] - values[0]
    found = [values[0], level + slope]
    for value in values[2:]:
        seen = found[-1] if math.isnan(value) else value
        before, level = level, alpha * seen + (1 - alpha) * (level + slope)
        slope = beta * (level - before) + (1 - beta) * slope
        found.append(level + slope)
    return found
