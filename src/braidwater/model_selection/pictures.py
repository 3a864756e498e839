"""The pictures of a study: its history, its trials across all hyperparameters, one hyperparameter at a time, its workers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from braidwater.model_selection.base import Trial
from braidwater.report.charts import Series, Span, line_chart, timeline
from braidwater.report.svg import Drawing, Scale, number

_AXIS_WIDTH = 110


@dataclass(frozen=True)
class Axis:
    """One hyperparameter, or a metric: where on a line from 0 to 1 each value lies."""

    name: str
    values: tuple[Any, ...]  # those that occur, of numbers the smallest and the largest
    numeric: bool
    log: bool = False

    def place(self, value: Any) -> float:
        if not self.numeric:
            return 0.5 if len(self.values) == 1 else self.values.index(_label(value)) / (len(self.values) - 1)
        return Scale(self.values[0], self.values[1], 0.0, 1.0, log=self.log)(float(value))

    @property
    def ends(self) -> list[tuple[float, str]]:
        """Places with the texts that stand there."""
        if not self.numeric:
            return [(self.place(value), str(value)) for value in self.values]
        return [(0.0, number(self.values[0])), (1.0, number(self.values[1]))]


def axis_of(name: str, values: Sequence[Any]) -> Axis:
    """The axis for values that occurred; logarithmic where they are positive and more than a factor of 50 apart."""
    plain = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)]
    if len(plain) == len(values):
        low, high = min(plain), max(plain)
        return Axis(name, (low, high), True, log=low > 0 and high / low > 50)
    return Axis(name, tuple(dict.fromkeys(sorted(_label(value) for value in values))), False)


def history(trials: Sequence[Trial], metric: str, sign: float) -> str:
    """The value of each trial, and the best so far."""
    shown = [trial for trial in trials if trial.value is not None]
    best, line = math.inf, []
    for trial in shown:
        best = min(best, sign * float(trial.value or 0.0))
        line.append(sign * best)
    numbers = [float(trial.number) for trial in shown]
    series = [Series("best so far", numbers, line), Series("trial", numbers, [float(t.value or 0.0) for t in shown])]
    picture = line_chart("History", series[:1], x_label="trial", y_label=metric, whole_x=True)
    return picture if len(shown) < 2 else line_chart("History", series, x_label="trial", y_label=metric, whole_x=True)


def parallel_coordinates(trials: Sequence[Trial], metric: str, sign: float) -> str:
    """A line a trial through its hyperparameters and its value; the better ones are darker, and lie on top."""
    shown = [trial for trial in trials if trial.value is not None]
    names = [
        name
        for name in dict.fromkeys(n for t in shown for n in t.parameters)
        if all(name in t.parameters for t in shown)
    ]
    axes = [axis_of(name, [trial.parameters[name] for trial in shown]) for name in names]
    axes.append(axis_of(metric, [trial.value for trial in shown]))
    width = max(520, 90 + _AXIS_WIDTH * len(axes))
    picture = Drawing(
        "Parallel coordinates", f"{len(shown)} trials across {len(names)} hyperparameters.", width, 300, 50, 60, 40, 40
    )
    columns = [50 + (width - 120) * place / max(len(axes) - 1, 1) for place in range(len(axes))]
    y = Scale(0.0, 1.0, *picture.y_range)
    ranked = sorted(shown, key=lambda trial: -sign * float(trial.value or 0.0))
    for rank, trial in enumerate(ranked):
        own = [*(trial.parameters[name] for name in names), trial.value]
        points = [(x, y(axis.place(value))) for x, axis, value in zip(columns, axes, own, strict=True)]
        good = (rank + 1) / len(ranked)
        picture.path(points, f"curve line{0 if good > 0.8 else 5}", opacity=0.15 + 0.75 * good**3)
    for x, axis in zip(columns, axes, strict=True):
        picture.line(x, picture.y_range[0], x, picture.y_range[1], "axis")
        picture.text(x, 20, _short(axis.name, 16), anchor="middle", style="name")
        for place, text in axis.ends:
            picture.text(x + 4, y(place) + 4, _short(text, 14))
    return picture.svg()


def slice_chart(trials: Sequence[Trial], name: str, metric: str) -> str:
    """The value of each trial over one of its hyperparameters."""
    shown = [trial for trial in trials if trial.value is not None and name in trial.parameters]
    axis = axis_of(name, [trial.parameters[name] for trial in shown])
    values = axis_of(metric, [trial.value for trial in shown])
    picture = Drawing(f"{metric} over {name}", f"{len(shown)} trials.", 360, 240)
    low, high = values.values
    y = Scale(low, high if high > low else low + 1.0, *picture.y_range, log=values.log)
    picture.y_axis(y, metric)
    begin, end = picture.x_range
    for place, text in axis.ends:
        picture.text(begin + 12 + place * (end - begin - 24), picture.height - 27, _short(text, 12), anchor="middle")
    picture.line(begin, picture.y_range[0], end, picture.y_range[0], "axis")
    picture.text(
        (begin + end) / 2,
        picture.height - 8,
        name + (" (logarithmic)" if axis.log else ""),
        anchor="middle",
        style="name",
    )
    for trial in shown:
        hint = f"trial {trial.number}: {trial.value:.5g} at {_label(trial.parameters[name])}"
        x = begin + 12 + axis.place(trial.parameters[name]) * (end - begin - 24)
        picture.circle(x, y(float(trial.value or 0.0)), 3.5, f"fill{0 if trial.state == 'complete' else 5}", hint)
    return picture.svg()


def importance_chart(shares: dict[str, float]) -> str:
    """A bar a hyperparameter."""
    row, left = 26, 150
    picture = Drawing(
        "Importance", "Shares of the spread of the metric.", 520, 40 + row * len(shares), left, 50, 14, 20
    )
    x = Scale(0.0, 1.0, left, 470)
    for place, (name, share) in enumerate(shares.items()):
        y = 14 + place * row
        picture.rectangle(left, y + 4, max(x(share) - left, 1.0), row - 10, "fill0", f"{name}: {share:.1%}")
        picture.text(left - 8, y + row / 2 + 3, _short(name, 22), anchor="end")
        picture.text(x(share) + 6, y + row / 2 + 3, f"{share:.0%}")
    return picture.svg()


def workers(trials: Sequence[Trial]) -> str:
    """What each worker did when: a bar a trial, from its beginning, its seconds long, its colour the state it ended in."""
    ran = [trial for trial in trials if trial.worker is not None and trial.started]
    states = list(dict.fromkeys(trial.state for trial in ran))
    first = min((trial.started for trial in ran), default=0.0)
    spans = [
        Span(
            trial.worker or 0,
            trial.started - first,
            trial.started - first + trial.seconds,
            states.index(trial.state),
            f"trial {trial.number}, {trial.state}: {trial.seconds:.2f} s",
        )
        for trial in ran
    ]
    return timeline("Workers", spans, groups=states)


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
