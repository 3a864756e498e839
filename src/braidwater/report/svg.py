"""Drawing axes, ticks and legends as SVG text. Colours are CSS classes, so that one picture serves light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import count

SERIES = 6  # colours in the page's style; further series begin again
_identifiers = count(1)


@dataclass(frozen=True)
class Scale:
    """Data from `low` to `high` onto pixels from `begin` to `end`; `log` draws powers of ten at equal distances."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = 0.5 if high == low else (value - low) / (high - low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self, wanted: int = 6) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else nice_ticks(self.low, self.high, wanted)


def nice_ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """About `wanted` round numbers from `low` to `high`: steps of 1, 2 or 5 times a power of ten.

    >>> nice_ticks(0.0, 0.97), nice_ticks(3, 11, 4)
    ([0.0, 0.2, 0.4, 0.6, 0.8], [4.0, 6.0, 8.0, 10.0])
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    rough = (high - low) / max(wanted - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    digits = max(-math.floor(math.log10(step)), 0)
    return [round(k * step, digits) + 0.0 for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between `low` and `high`, and 2 and 5 times them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    found = [m * 10.0**k for k in range(first, last + 1) for m in steps]
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


def number(value: float) -> str:
    """A number as an axis shows it.

    >>> [number(v) for v in (0.0, 0.25, 12.0, 1500.0, 2.5e6, 0.00004)]
    ['0', '0.25', '12', '1,500', '2.5M', '4e-05']
    """
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.4g}M" if size < 1e9 else f"{value:.3g}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


@dataclass
class Drawing:
    """An SVG picture under construction, with a plot area inside margins (pixels)."""

    title: str
    description: str
    width: int = 520
    height: int = 280
    left: int = 60
    right: int = 20
    top: int = 34
    bottom: int = 46
    parts: list[str] = field(default_factory=list)

    @property
    def x_range(self) -> tuple[float, float]:
        return self.left, self.width - self.right

    @property
    def y_range(self) -> tuple[float, float]:
        return self.height - self.bottom, self.top

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        self.parts.append(f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def path(self, points: Sequence[tuple[float, float]], style: str, *, opacity: float = 1.0) -> None:
        text = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        shade = "" if opacity == 1.0 else f' stroke-opacity="{opacity:.3f}"'
        self.parts.append(f'<path class="{style}" d="M{text}"{shade}/>')

    def circle(self, x: float, y: float, radius: float, style: str, hint: str = "") -> None:
        self.parts.append(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{_hint(hint)}</circle>')

    def rectangle(
        self, x: float, y: float, width: float, height: float, style: str, hint: str = "", opacity: float = 1.0
    ) -> None:
        shade = "" if opacity == 1.0 else f' fill-opacity="{opacity:.3f}"'
        self.parts.append(
            f'<rect class="{style}" x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}"{shade}>'
            f"{_hint(hint)}</rect>"
        )

    def text(
        self, x: float, y: float, text: str, *, anchor: str = "start", style: str = "label", turn: int = 0
    ) -> None:
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        self.parts.append(
            f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{escape(text)}</text>'
        )

    def x_axis(self, scale: Scale, label: str, *, wanted: int = 7, whole: bool = False) -> None:
        """Ticks below the plot area and the axis' name. `whole` shows whole numbers only (epochs)."""
        bottom = self.height - self.bottom
        for value in scale.ticks(wanted):
            if whole and value != int(value):
                continue
            self.line(scale(value), bottom, scale(value), bottom + 5, "axis")
            self.text(scale(value), bottom + 19, number(value), anchor="middle")
        self.line(self.left, bottom, self.width - self.right, bottom, "axis")
        self.text((self.left + self.width - self.right) / 2, self.height - 8, label, anchor="middle", style="name")

    def y_axis(self, scale: Scale, label: str, *, wanted: int = 6) -> None:
        """Grid lines with their values left of the plot area, and the axis' name."""
        for value in scale.ticks(wanted):
            self.line(self.left, scale(value), self.width - self.right, scale(value), "grid")
            self.text(self.left - 8, scale(value) + 4, number(value), anchor="end")
        middle = (self.top + self.height - self.bottom) / 2
        self.text(16, middle, label, anchor="middle", style="name", turn=-90)

    def legend(self, names: Sequence[str]) -> None:
        """The series' names above the plot area, each beside its colour."""
        x = float(self.left)
        for position, name in enumerate(names):
            self.rectangle(x, self.top - 24, 12, 12, f"fill{position % SERIES}")
            self.text(x + 17, self.top - 14, name)
            x += 17 + 7.2 * len(name) + 18

    def svg(self) -> str:
        """The picture as an ``<svg>`` element that scales to its container and names itself to screen readers."""
        identifier = f"chart{next(_identifiers)}"
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-labelledby="{identifier}t {identifier}d" '
            f'xmlns="http://www.w3.org/2000/svg"><title id="{identifier}t">{escape(self.title)}</title>'
            f'<desc id="{identifier}d">{escape(self.description)}</desc>{"".join(self.parts)}</svg>'
        )


def _hint(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
