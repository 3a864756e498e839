"""Cells that are not written as nearly all others of their column: disguised missing values.

Each cell becomes a pattern of classes of characters and their numbers, which is made coarser level by level until one pattern
covers more than a share of the column.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from braidwater.dml.values import Frame
from braidwater.errors import OptionError

CLASSES = (
    ("d", str.isdigit),
    ("l", str.islower),
    ("u", str.isupper),
    ("s", str.isspace),
    ("t", ".".__eq__),
    ("-", "-".__eq__),
)

LEVELS: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: re.sub(r"\d", "+", text),  # however many there are
    lambda text: re.sub(r"\++", "+", re.sub(r"[ula](\+*[ul])*", "a", text)),  # upper and lower case are letters
    lambda text: _inside(text, "d", "t"),  # 1.5 is as good as 15
    lambda text: _inside(text, "a", "s"),  # two words as good as one
    lambda text: re.sub(r"-(d)", r"\1", text),  # -1 as good as 1
)


def replace_uncommon(frame: Frame, threshold: float, replacement: str) -> Frame:
    """The frame with `replacement` in the cells whose pattern is not the one of more than `threshold` of their column."""
    if not 0 <= threshold <= 1:
        raise OptionError("threshold", threshold, "between 0 and 1")
    columns = []
    for column in frame.columns:
        cells = [None if cell is None else str(cell) for cell in column.tolist()]
        common = _common(["NULL" if cell is None else cell for cell in cells], threshold)
        columns.append([cell if keep else replacement for cell, keep in zip(cells, common, strict=True)])
    return Frame.of(columns, frame.names, ["string"] * len(frame.names))


def _common(cells: list[str], threshold: float) -> list[bool]:
    patterns = [pattern_of(cell) for cell in cells]
    for coarser in LEVELS:
        patterns = [coarser(pattern) for pattern in patterns]
        most, count = Counter(patterns).most_common(1)[0] if patterns else ("", 0)
        if count > threshold * len(patterns):
            return [pattern == most for pattern in patterns]
    return [True] * len(cells)


def pattern_of(text: str) -> str:
    """Classes of characters, each with how many follow one another.

    >>> pattern_of("A-104")
    'u1-1d3'
    """
    classes = "".join(next((name for name, has in CLASSES if has(character)), "y") for character in text)
    return "".join(f"{run[0][0]}{len(run[0])}" for run in re.finditer(r"(.)\1*", classes))


def _inside(pattern: str, outer: str, inner: str) -> str:
    """One `outer` for a run of `outer` and `inner` that begins with it; other runs as they are, one + after each."""
    found, run = "", False
    for character in pattern:
        if run and character in (outer, inner):
            continue
        if character == outer or character not in (inner, "+"):
            found, run = found + character, character == outer
        elif found and not found.endswith("+"):
            found += character
    return found
