"""The effects of an ablation on its study's page."""

from __future__ import annotations

from braidwater.model_selection.ablation.components import FULL
from braidwater.model_selection.ablation.result import Effect, effects_of
from braidwater.model_selection.study import Study
from braidwater.report import Report
from braidwater.report.svg import Drawing, Scale

_ROW, _LEFT, _RIGHT = 26, 170, 20


def add_effects(report: Report, study: Study) -> None:
    """A bar a component, with its spread, and the table of all."""
    effects, metric = effects_of(study), study.metrics[0]
    better = "Smaller" if study.sign > 0 else "Larger"
    report.section("Ablation", f"{better} values of {metric} are better. Blue: what is lost without the component.")
    shown = [one for one in effects if one.harm is not None and one.component != FULL]
    if shown:
        report.figure(effect_chart(shown, metric), "Difference to the whole model", "Lines: one standard deviation.")
    columns = ["without", metric, "deviation", "difference", "deviation", "repeats", "seconds", "error"]
    report.table(columns, [_row(one) for one in effects])


def effect_chart(effects: list[Effect], metric: str) -> str:
    """Bars of differences from the line of the whole model; those of components that do harm are of another colour."""
    picture = Drawing(
        "Ablation", f"Change of {metric} without each component.", 560, 66 + _ROW * len(effects), _LEFT, _RIGHT, 14, 46
    )
    ends = [_end(one, side) for one in effects for side in (-1, 0, 1)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    x = Scale(low, high if high > low else low + 1.0, *picture.x_range)
    picture.x_axis(x, f"change of {metric}", wanted=5)
    for place, one in enumerate(effects):
        y = 14 + place * _ROW
        change = one.difference or 0.0
        colour = "fill0" if (one.harm or 0.0) > 0 else "fill1"
        left, right = sorted((x(0.0), x(change)))
        picture.rectangle(left, y + 4, max(right - left, 1.0), _ROW - 10, colour, f"{one.component}: {change:+.5g}")
        if one.difference_deviation is not None:
            picture.line(x(_end(one, -1)), y + _ROW / 2 - 1, x(_end(one, 1)), y + _ROW / 2 - 1, "axis")
        name = one.component if len(one.component) <= 24 else f"{one.component[:23]}…"
        picture.text(_LEFT - 8, y + _ROW / 2 + 3, name, anchor="end")
    picture.line(x(0.0), 14, x(0.0), picture.height - picture.bottom, "axis")
    return picture.svg()


def _end(one: Effect, side: int) -> float:
    return (one.difference or 0.0) + side * (one.difference_deviation or 0.0)


def _row(one: Effect) -> list[object]:
    figures = [one.metric, one.deviation, one.difference, one.difference_deviation]
    return [one.component, *("" if v is None else v for v in figures), one.repeats, one.seconds, one.error or ""]
