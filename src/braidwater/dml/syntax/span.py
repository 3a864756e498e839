"""Scripts and places in them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, eq=False)
class Source:
    """The text of a script and the name that messages call it by."""

    text: str
    file: str = "script"

    @cached_property
    def line_starts(self) -> list[int]:
        return [0, *(place + 1 for place, character in enumerate(self.text) if character == "\n")]


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """The characters ``start`` up to ``end`` of a script.

    >>> span = Span(Source("x = 1\\ny = x %*% z\\n", "fit.dml"), 10, 17)
    >>> span.file, span.line, span.column, span.text
    ('fit.dml', 2, 5, 'x %*% z')
    >>> print(span.underlined())
      y = x %*% z
          ^^^^^^^
    """

    source: Source
    start: int
    end: int

    @property
    def file(self) -> str:
        return self.source.file

    @property
    def line(self) -> int:
        """The line where it begins, counted from 1."""
        return bisect_right(self.source.line_starts, self.start)

    @property
    def column(self) -> int:
        """The character of its line where it begins, counted from 1."""
        return self.start - self.source.line_starts[self.line - 1] + 1

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def underlined(self) -> str:
        """The (first) line of the place, and below it marks under its characters."""
        begin = self.source.line_starts[self.line - 1]
        line = self.source.text[begin:].split("\n", 1)[0].rstrip("\r")
        shown = line.replace("\t", " ")
        marks = max(1, min(self.end, begin + len(line)) - self.start)
        return f"  {shown}\n  {' ' * (self.column - 1)}{'^' * marks}"
