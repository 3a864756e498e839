"""Coefficients with what is known of their errors, as figures and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from braidwater.blocks.base import Array


@dataclass(frozen=True)
class CoefficientTable:
    """Estimates by name; all arrays ``(len(names),)``, NaN where the data cannot tell.

    `statistic` is z (or t, where `degrees` of freedom are given), `p_value` two-sided.
    """

    names: tuple[str, ...]
    coefficient: Array
    standard_error: Array
    degrees: float | None = None

    @property
    def statistic(self) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Array = self.coefficient / self.standard_error
        return ratio

    @property
    def p_value(self) -> Array:
        from scipy.special import ndtr, stdtr

        size = -np.abs(self.statistic)
        return np.asarray(2 * (ndtr(size) if self.degrees is None else stdtr(self.degrees, size)))

    def interval(self, level: float = 0.95) -> Array:
        """Confidence intervals ``(len(names), 2)``."""
        from scipy.special import ndtri, stdtrit

        tail = 0.5 + level / 2
        reach = (ndtri(tail) if self.degrees is None else stdtrit(self.degrees, tail)) * self.standard_error
        return np.column_stack([self.coefficient - reach, self.coefficient + reach])

    def to_dict(self) -> dict[str, dict[str, float]]:
        """The columns of the table by name, each a dictionary by coefficient."""
        low, high = self.interval().T
        columns = {
            "coefficient": self.coefficient,
            "standard_error": self.standard_error,
            "statistic": self.statistic,
            "p_value": self.p_value,
            "low": low,
            "high": high,
        }
        return {title: dict(zip(self.names, values.tolist(), strict=True)) for title, values in columns.items()}

    def to_text(self, head: Sequence[tuple[str, Any]] = (), *, odds: bool = False) -> str:
        """The table as text, under the figures of `head`; `odds` adds the odds ratio ``exp(coefficient)``."""
        letter = "z" if self.degrees is None else "t"
        titles = ["", "coef", "std err", letter, f"P>|{letter}|", "[0.025", "0.975]", *(["odds"] if odds else [])]
        low, high = self.interval().T
        rows = []
        for j, name in enumerate(self.names):
            row = [name, _number(self.coefficient[j]), _number(self.standard_error[j]), f"{self.statistic[j]:.3f}"]
            row += [f"{self.p_value[j]:.3f}", _number(low[j]), _number(high[j])]
            with np.errstate(over="ignore"):
                rows.append([*row, *([_number(np.exp(self.coefficient[j]))] if odds else [])])
        widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
        lines = [_line(titles, widths), "-" * (sum(widths) + 2 * (len(widths) - 1))]
        lines += [_line(row, widths) for row in rows]
        wide = max((len(title) for title, _ in head), default=0)
        figures = [f"{title:<{wide}}  {value:.6g}" if isinstance(value, float) else f"{title:<{wide}}  {value}"
                   for title, value in head]  # fmt: skip
        return "\n".join([*figures, *([""] if figures else []), *lines])


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) >= 1e4 or 0 < abs(value) < 1e-3 else f"{value:.4f}"


def _line(cells: list[str], widths: list[int]) -> str:
    first = f"{cells[0]:<{widths[0]}}"
    return "  ".join([first, *(f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True))]).rstrip()
