"""Columns of a frame smoothed by exponentially weighted means; missing numbers are the forecast of what stands before them.

C. C. Holt, Forecasting seasonals and trends by exponentially weighted moving averages, 1957 (level and trend); P. R. Winters,
Forecasting sales by exponentially weighted moving averages, Management Science 6, 1960 (seasons).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from braidwater.dml.values import Frame
from braidwater.errors import DMLShapeError, OptionError, UnsupportedError

MODES = ("single", "double", "triple")


def smooth(frame: Frame, mode: str, period: int, weights: Sequence[float]) -> Frame:
    """Each column smoothed: "single" with the weight of the newest value, "double" with that of the newest slope as well,
    "triple" with that of the newest season too, which come again after `period` values.

    Raises UnsupportedError for weights that shall be searched at random (NaN), DMLShapeError for fewer values than the mode
    begins with: one, two, or two periods.
    """
    if mode not in MODES:
        raise OptionError("mode", mode, ", ".join(MODES))
    given = weights[: MODES.index(mode) + 1]
    if any(math.isnan(weight) for weight in given):
        raise UnsupportedError("ema smooths with weights that are given; NaN, a search for them, is not there.")
    if mode == "triple" and period < 2:
        raise OptionError("freq", period, "at least 2: a season comes again after so many values")
    begin = {"single": 1, "double": 2, "triple": 2 * period}[mode]
    if frame.shape[0] < begin:
        raise DMLShapeError(
            f"ema begins its mode {mode!r} with {begin} values, and the frame has {frame.shape[0]} rows."
        )
    columns = [[float("nan") if cell is None else float(cell) for cell in column.tolist()] for column in frame.columns]
    smoothed: dict[str, Callable[..., list[float]]] = {"single": single, "double": double, "triple": triple}
    further = (period,) if mode == "triple" else ()
    made = [smoothed[mode](column, *given, *further) for column in columns]
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


def triple(values: Sequence[float], alpha: float, beta: float, gamma: float, period: int) -> list[float]:
    """One-step forecasts by level, slope and season, which add up; the first period is itself.

    >>> [round(value, 3) for value in triple([1.0, 5.0, 2.0, 6.0, 3.0, 7.0], 0.5, 0.5, 0.5, 2)]
    [1.0, 5.0, 1.5, 5.875, 3.219, 7.117]
    """
    level, slope, seasons = _decomposed(np.asarray(values[: 2 * period]), period)
    found = [*values[:period], level + slope + seasons[0]]
    for place, value in enumerate(values[period:-1]):
        seen = found[-1] if math.isnan(value) else value
        before, level = level, alpha * (seen - seasons[place]) + (1 - alpha) * (level + slope)
        slope = beta * (level - before) + (1 - beta) * slope
        seasons.append(gamma * (seen - level) + (1 - gamma) * seasons[place])
        found.append(level + slope + seasons[place + 1])
    return found


def _decomposed(begin: np.ndarray, period: int) -> tuple[float, float, list[float]]:
    """Level, slope and seasons of the first two periods: a line through their moving means, and what is left, of mean 0."""
    weights = np.full(period, 1 / period) if period % 2 else np.r_[0.5, np.ones(period - 1), 0.5] / period
    means = np.convolve(begin, weights, "valid")
    left = begin[period // 2 : period // 2 + len(means)] - means
    seasons = np.empty(period)
    for place in range(period):
        seasons[(place + period // 2) % period] = left[place::period].mean()
    slope, level = np.polyfit(np.arange(1.0, len(means) + 1), means, 1)
    return float(level), float(slope), (seasons - seasons.mean()).tolist()
