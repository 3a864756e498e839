"""A report as one HTML file: no network, no scripts, pictures as SVG inside the page."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import uuid4

from braidwater.report.charts import coefficient_chart, confusion_matrix, line_chart, timeline
from braidwater.report.record import Record
from braidwater.report.style import STYLE


class Report:
    """A page of sections, each with a note, figures, tables and texts, in the order in which they are added.

    >>> report = Report("Digits")
    >>> report.section("Metrics", "On rows that were held out.")
    >>> report.metrics({"accuracy": 0.98})
    >>> report.html().startswith("<!doctype html>")
    True
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._sections: list[str] = []
        self._body: list[str] = []
        self._figures: list[str] = []

    def section(self, heading: str, note: str = "") -> None:
        """Begin a section."""
        self._end_figures()
        self._sections.append(heading)
        self._body.append(f'<h2 id="{_anchor(heading)}">{escape(heading)}</h2>')
        if note:
            self._body.append(f'<p class="note">{escape(note)}</p>')

    def figure(self, svg: str, caption: str, note: str = "", *, narrow: bool = False) -> None:
        """A picture. Pictures that follow each other stand side by side where the page is wide enough."""
        if narrow:
            width = re.search(r'viewBox="0 0 (\d+)', svg)
            svg = svg.replace("<svg ", f'<svg class="narrow" style="max-width:{width[1] if width else 460}px" ', 1)
        small = f"<small>{escape(note)}</small>" if note else ""
        self._figures.append(f"<figure><figcaption>{escape(caption)}</figcaption>{svg}{small}</figure>")

    def metrics(self, values: Mapping[str, float | int | str]) -> None:
        """Figures as cards."""
        self._end_figures()
        cards = [
            f'<div class="card"><b>{escape(figure(v))}</b><span>{escape(k)}</span></div>' for k, v in values.items()
        ]
        self._body.append(f'<div class="cards">{"".join(cards)}</div>')

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; columns whose first cell is a number are set to the right."""
        self._end_figures()
        numeric = [bool(rows) and isinstance(rows[0][j], (int, float)) for j in range(len(columns))]
        style = [' class="number"' if is_number else "" for is_number in numeric]
        head = "".join(f'<th scope="col"{style[j]}>{escape(name)}</th>' for j, name in enumerate(columns))
        body = "".join(
            "<tr>" + "".join(f"<td{style[j]}>{escape(figure(cell))}</td>" for j, cell in enumerate(row)) + "</tr>"
            for row in rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self._body.append(f'<div class="scroll">{table}</div>')

    def text(self, text: str) -> None:
        """Text as it is, every character of the same width: a plan, a summary."""
        self._end_figures()
        self._body.append(f'<pre tabindex="0">{escape(text)}</pre>')

    def record(self, record: Record) -> None:
        """The curves and the workers' timeline of a run."""
        every = record.curves()
        by_steps = [curve for curve in every if curve.name.startswith("step_")]
        epochs = max((len(curve.x) for curve in every if curve not in by_steps), default=0)
        for curve in (curve for curve in by_steps if len(curve.x) > 3 * epochs):  # else the epochs tell as much
            name = curve.name.removeprefix("step_")
            self.figure(line_chart(name, [curve], x_label="step", y_label=name), f"{name.capitalize()} of each step")
        curves = [curve for curve in every if curve not in by_steps]
        losses = [curve for curve in curves if "loss" in curve.name]
        others = [curve for curve in curves if "loss" not in curve.name]
        by_epoch = any(metric.epoch for found in record.metrics.values() for metric in found)
        x_label = "epoch" if by_epoch else "pass"
        if losses:
            self.figure(line_chart("Loss", losses, x_label=x_label, y_label="loss", whole_x=True), "Loss")
        if others:
            name = others[0].name if len(others) == 1 else "metrics"
            chart = line_chart(name, others, x_label=x_label, y_label=name, whole_x=True)
            self.figure(chart, name.replace("_", " ").capitalize())
        spans, kinds = record.timeline()
        if spans:
            note = f"{len(record.passes)} passes; a bar is a block of rows, its colour the kind of pass or of waiting."
            self.figure(timeline("Workers", spans, groups=kinds), "What each worker did", note)
        for note in record.notes:
            self._end_figures()
            self._body.append(f'<p class="note">{escape(note)}</p>')

    def confusion(
        self, counts: Sequence[Sequence[int]], classes: Sequence[object], caption: str = "Confusion matrix"
    ) -> None:
        """Counts of true (rows) against predicted (columns) classes."""
        self.figure(confusion_matrix(caption, counts, classes), caption, "Shade: share of the true class.", narrow=True)

    def coefficients(
        self,
        names: Sequence[str],
        values: Sequence[float],
        errors: Sequence[float] | None = None,
        caption: str = "Coefficients",
    ) -> None:
        """Coefficients with their errors."""
        note = "Grey: the interval crosses zero." if errors is not None else ""
        self.figure(coefficient_chart(caption, names, values, errors), caption, note)

    def html(self) -> str:
        """The page."""
        self._end_figures()
        links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in self._sections)
        made = datetime.now().strftime("%Y-%m-%d %H:%M")
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{STYLE}</style></head><body><main>"
            f"<header><h1>{escape(self.title)}</h1><p>{escape(self.subtitle)}</p></header>"
            f'<nav aria-label="Sections">{links}</nav>{"".join(self._body)}'
            f"<footer>Made by braidwater {_version()} on {made}.</footer></main></body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write the page to `path`; a page that is there is replaced in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
        try:
            temporary.write_text(self.html(), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _end_figures(self) -> None:
        if self._figures:
            self._body.append(f'<div class="grid">{"".join(self._figures)}</div>')
            self._figures = []


def figure(value: object) -> str:
    """A value as a table shows it.

    >>> figure(0.123456), figure(1234567), figure("pass"), figure(None)
    ('0.1235', '1,234,567', 'pass', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _version() -> str:
    try:
        return version("braidwater")
    except PackageNotFoundError:
        return ""
