"""Errors that know where in their statement they are."""

from __future__ import annotations

import re

from braidwater.errors import UserError


class PlacedError(UserError):
    """A statement that the database refuses; `position` counts letters of the statement from 0, None where it is not known."""

    def __init__(self, message: str, position: int | None) -> None:
        self.position = position
        super().__init__(message)


class CallError(UserError):
    """A call that cannot be made; `name` is that of the function, by which its place in the statement is found."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


def of_duckdb(error: Exception, text: str) -> PlacedError:
    """An error of DuckDB about the statement `text`, without the picture that it draws: we draw our own.

    >>> drawn = ["Parser Error: syntax error", "", "LINE 2: ...b, FROM t", "              ^"]
    >>> found = of_duckdb(ValueError(chr(10).join(drawn)), "SELECT a," + chr(10) + "b, FROM t")
    >>> str(found), found.position
    ('Parser Error: syntax error', 13)
    """
    message = str(error)
    drawn = re.search(r"\n+LINE (\d+): (.*)\n( *)\^", message)
    if drawn is None:
        return PlacedError(message, None)
    lines = text.split("\n")
    number, excerpt = int(drawn[1]), drawn[2]
    offset = len(drawn[3]) - len(f"LINE {number}: ")
    if excerpt.startswith("..."):
        excerpt, offset = excerpt[3:], offset - 3
    begin = lines[number - 1].find(excerpt.removesuffix("...")) if number <= len(lines) else -1
    before = sum(len(line) + 1 for line in lines[: number - 1])
    place = None if begin < 0 or offset < 0 else before + begin + offset
    return PlacedError(message[: drawn.start()].strip(), place)
