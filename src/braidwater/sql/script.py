"""A script cut into statements: by semicolons outside of texts and comments, and psql's commands, which take a line each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PIECE = re.compile(
    r"""
      --[^\n]*                              # a comment to the end of the line
    | /\*(?:[^*]|\*(?!/))*(?:\*/|\Z)        # a comment in between
    | [eE]'(?:[^'\\]|''|\\.)*(?:'|\Z)       # a text with escapes
    | '(?:[^']|'')*(?:'|\Z)                 # a text
    | "(?:[^"]|"")*(?:"|\Z)                 # a name in quotes
    | \$(?P<tag>[A-Za-z_]\w*|)\$.*?(?:\$(?P=tag)\$|\Z)    # a text between dollars
    | ;
    | \s+
    | [\w,().][\w\s,().]*(?<![eE])          # anything plain, at a stretch; an E may begin a text with escapes
    | .
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Statement:
    """A statement (or a command of psql, which begins with a backslash) and where in the script it begins, counted from 1.

    `ended` is False where the script ends before its semicolon.
    """

    text: str
    line: int
    column: int
    ended: bool = True

    @property
    def is_command(self) -> bool:
        return self.text.startswith("\\")


def statements(script: str) -> Iterator[Statement]:
    """The statements of a script, in order.

    >>> [(s.text, s.line) for s in statements("SELECT 'a;b';" + chr(10) + r"\\x on" + chr(10) + "SELECT $$;$$ -- end")]
    [("SELECT 'a;b'", 1), ('\\\\x on', 2), ('SELECT $$;$$ -- end', 3)]
    """
    begin: int | None = None
    place = 0
    while place < len(script):
        match = _PIECE.match(script, place)
        assert match is not None
        piece = match[0]
        blank = piece.isspace() or piece.startswith(("--", "/*"))
        if begin is None and piece == "\\":
            end = script.find("\n", place)
            end = len(script) if end < 0 else end
            yield _statement(script, place, end, ended=True)
            place = end
            continue
        if piece == ";":
            if begin is not None:
                yield _statement(script, begin, place, ended=True)
            begin = None
        elif begin is None and not blank:
            begin = place
        place = match.end()
    if begin is not None:
        yield _statement(script, begin, len(script), ended=False)


def is_open(script: str) -> bool:
    """Whether a script breaks off inside a statement, so that an interactive shell waits for more."""
    found = list(statements(script))
    return bool(found) and not found[-1].ended


def place_of(text: str, position: int) -> tuple[int, int]:
    """Line and column of a position in a text, from 1."""
    before = text[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def _statement(script: str, begin: int, end: int, *, ended: bool) -> Statement:
    line, column = place_of(script, begin)
    return Statement(script[begin:end].rstrip(), line, column, ended)
