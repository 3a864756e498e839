"""The pictures of a report: curves, confusion matrices, coefficients with their errors, and what each worker did when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from braidwater.report.svg import SERIES, Drawing, Scale, number

_DOTS_UP_TO = 60  # points of a curve that are marked one by one


@dataclass(frozen=True)
class Series:
    """A curve: `x` and `y` of the same length; points that are not finite leave a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Span:
    """What a worker was at: from `start` to `end` (seconds since the beginning), in pass `group`."""

    worker: int
    start: float
    end: float
    group: int = 0
    hint: str = ""


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    whole_x: bool = False,
) -> str:
    """Curves over a common axis. `log_x` and `log_y` need positive values; `whole_x` marks whole numbers only."""
    points = [(x, y) for one in series for x, y in zip(one.x, one.y, strict=True) if _drawable(y, log_y)]
    if not points:
        return _empty(title)
    picture = Drawing(title, _in_words(series, y_label))
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = _padded(min(ys), max(ys), log_y)
    x = Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, *picture.x_range, log=log_x)
    y = Scale(low, high, *picture.y_range, log=log_y)
    picture.y_axis(y, y_label)
    picture.x_axis(x, x_label, whole=whole_x)
    if len(series) > 1:
        picture.legend([one.name for one in series])
    for position, one in enumerate(series):
        _curve(picture, one, x, y, position % SERIES, log_y)
    return picture.svg()


def _curve(picture: Drawing, one: Series, x: Scale, y: Scale, colour: int, log_y: bool) -> None:
    run: list[tuple[float, float]] = []
    for a, b in [*zip(one.x, one.y, strict=True), (math.nan, math.nan)]:
        if _drawable(b, log_y):
            run.append((x(a), y(b)))
            continue
        if len(run) > 1:
            picture.path(run, f"curve line{colour}")
        elif run:
            picture.circle(*run[0], 3.5, f"fill{colour}")
        run = []
    if len(one.x) <= _DOTS_UP_TO:
        for a, b in zip(one.x, one.y, strict=True):
            if _drawable(b, log_y):
                picture.circle(x(a), y(b), 3, f"fill{colour}", f"{one.name} at {number(a)}: {b:.5g}")


def _drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _padded(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        return (low / 1.3, high * 1.3) if low == high else (low / (high / low) ** 0.04, high * (high / low) ** 0.04)
    gap = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - gap if low < 0 or low - gap > 0 else 0.0, high + gap


def _in_words(series: Sequence[Series], y_label: str) -> str:
    told = []
    for one in series:
        finite = [value for value in one.y if math.isfinite(value)]
        if finite:
            told.append(f"{one.name} {y_label} goes from {finite[0]:.4g} to {finite[-1]:.4g} in {len(finite)} points")
    return "; ".join(told) + "."


def confusion_matrix(title: str, counts: Sequence[Sequence[int]], classes: Sequence[object]) -> str:
    """Rows are the true classes, columns the predicted ones; the shade is the share of the row."""
    size = len(classes)
    cell = max(min(340 // max(size, 1), 64), 22)
    names = [str(name) for name in classes]
    left = 40 + min(7 * max((len(name) for name in names), default=1), 120)
    right = sum(counts[k][k] for k in range(size))
    total = sum(sum(row) for row in counts)
    told = f"{right:,} of {total:,} rows lie on the diagonal, where prediction and truth agree."
    turn = -35 if any(7 * len(name) > cell for name in names) else 0
    foot = 24 if not turn else 52
    picture = Drawing(title, told, left + size * cell + 20, 30 + size * cell + foot, left, 20, 30, foot)
    for i, row in enumerate(counts):
        whole = sum(row)
        for j, found in enumerate(row):
            share = found / whole if whole else 0.0
            x, y = left + j * cell, 30 + i * cell
            hint = f"true {names[i]}, predicted {names[j]}: {found:,} rows ({share:.1%} of {names[i]})"
            picture.rectangle(x, y, cell - 1, cell - 1, "cell")
            if found:
                picture.rectangle(x, y, cell - 1, cell - 1, "hot" if i == j else "miss", hint, 0.15 + 0.85 * share)
            if cell >= 22 and found:
                style = "onhot" if share > 0.5 else "label"
                picture.text(x + cell / 2 - 0.5, y + cell / 2 + 4, f"{found:,}", anchor="middle", style=style)
        picture.text(left - 8, 30 + i * cell + cell / 2 + 4, names[i], anchor="end")
    for j, name in enumerate(names):
        picture.text(
            left + j * cell + cell / 2, 30 + size * cell + 16, name, anchor="end" if turn else "middle", turn=turn
        )
    picture.text(left + size * cell / 2, 20, "predicted", anchor="middle", style="name")
    picture.text(14, 30 + size * cell / 2, "true", anchor="middle", style="name", turn=-90)
    return picture.svg()


def coefficient_chart(
    title: str, names: Sequence[str], values: Sequence[float], errors: Sequence[float] | None = None, *, most: int = 40
) -> str:
    """Coefficients as points with intervals of 1.96 standard errors; the largest `most` by their size."""
    order = sorted(range(len(names)), key=lambda j: -abs(values[j]) if math.isfinite(values[j]) else 0.0)[:most]
    if not order:
        return _empty(title)
    spread = [1.96 * errors[j] if errors is not None and math.isfinite(errors[j]) else 0.0 for j in order]
    lows = [values[j] - s for j, s in zip(order, spread, strict=True)]
    highs = [values[j] + s for j, s in zip(order, spread, strict=True)]
    row = 22
    left = 30 + min(int(6.6 * max(len(names[j]) for j in order)), 190)
    told = f"The largest is {names[order[0]]} at {values[order[0]]:.4g}. A bar that crosses zero is not distinguishable from it."
    picture = Drawing(title, told, 520, 20 + row * len(order) + 46, left, 20, 14, 46)
    low, high = min(*lows, 0.0), max(*highs, 0.0)
    gap = (high - low) * 0.04 or 1.0
    x = Scale(low - gap, high + gap, *picture.x_range)
    for value in x.ticks():
        picture.line(x(value), 14, x(value), picture.height - 46, "grid")
    picture.x_axis(x, "coefficient" + (" with its 95 % interval" if errors is not None else ""))
    picture.line(x(0.0), 14, x(0.0), picture.height - 46, "zero")
    for place, (j, begin, end) in enumerate(zip(order, lows, highs, strict=True)):
        y = 14 + row * place + row / 2 + 3
        clear = begin > 0 or end < 0
        if end > begin:
            picture.line(x(begin), y, x(end), y, f"error line{0 if clear else 5}")
        hint = f"{names[j]}: {values[j]:.5g}" + (f" ± {spread[place]:.3g}" if errors is not None else "")
        picture.circle(x(values[j]), y, 4, f"fill{0 if clear else 5}", hint)
        picture.text(left - 8, y + 4, _shortened(names[j], 28), anchor="end")
    return picture.svg()


def timeline(title: str, spans: Sequence[Span], *, groups: Sequence[str] = ()) -> str:
    """A lane a worker, a bar for each block that it was at, coloured by pass."""
    if not spans:
        return _empty(title)
    workers = sorted({span.worker for span in spans})
    end = max(span.end for span in spans)
    lane = 34
    busy = sum(span.end - span.start for span in spans) / (len(workers) * end) if end > 0 else 0.0
    told = (
        f"{len(workers)} worker{'s' if len(workers) > 1 else ''} over {end:.3g} seconds, busy {busy:.0%} of the time."
    )
    top = 34 if len(groups) > 1 else 16
    picture = Drawing(title, told, 520, top + lane * len(workers) + 46, 84, 20, top, 46)
    x = Scale(0.0, end or 1.0, *picture.x_range)
    if 1 < len(groups) <= SERIES:
        picture.legend(groups)
    for place, worker in enumerate(workers):
        y = top + place * lane
        picture.rectangle(84, y + 5, 416, lane - 10, "lane")
        for span in _merged([span for span in spans if span.worker == worker], end / 1000):
            width = max(x(span.end) - x(span.start), 0.5)
            picture.rectangle(x(span.start), y + 5, width, lane - 10, f"span fill{span.group % SERIES}", span.hint)
        picture.text(76, y + lane / 2 + 4, f"worker {worker}", anchor="end")
    picture.x_axis(x, "seconds")
    return picture.svg()


def _merged(spans: Sequence[Span], gap: float) -> list[Span]:
    """Neighbours of one pass as one bar: gaps that nobody could see would make the picture large."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda one: one.start):
        last = found[-1] if found else None
        if last is not None and last.group == span.group and span.start - last.end < gap:
            found[-1] = Span(span.worker, last.start, max(last.end, span.end), span.group, last.hint)
        else:
            found.append(span)
    return found


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _empty(title: str) -> str:
    picture = Drawing(title, "There is nothing to show.", 520, 80)
    picture.text(260, 44, "nothing to show", anchor="middle")
    return picture.svg()
