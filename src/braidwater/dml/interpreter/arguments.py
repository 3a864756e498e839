"""Arguments of scripts: ``$1``, ``$name``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from braidwater.dml.syntax.nodes import Argument, Assign, AssignMany, Call, Node, Perform, Statement, children

_INTEGER = re.compile(r"[-+]?\d+$")
_DOUBLE = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


def inferred(value: Any) -> Any:
    """An argument's value: text that looks like a number or truth value is one, all else stays as it is.

    >>> [inferred(text) for text in ("3", "1e-3", "TRUE", "false", "X.csv")]
    [3, 0.001, True, False, 'X.csv']
    """
    if not isinstance(value, str):
        return value
    if _INTEGER.match(value):
        return int(value)
    if _DOUBLE.match(value):
        return float(value)
    return {"TRUE": True, "FALSE": False}.get(value.upper(), value)


def by_name(args: Sequence[Any], nvargs: Mapping[str, Any]) -> dict[str, Any]:
    """Both kinds of arguments: the n-th positional one is called by its number, from 1."""
    return {**{str(place): value for place, value in enumerate(args, 1)}, **nvargs}


def needed(statements: Sequence[Statement]) -> Iterator[Argument]:
    """The arguments that a script is sure to ask for: in statements of no branch or loop, and not within `ifdef`."""
    for statement in statements:
        match statement:
            case Assign():
                waiting: list[Node] = [statement.value]
            case AssignMany() | Perform():
                waiting = [statement.call]
            case _:
                continue
        while waiting:
            node = waiting.pop()
            if isinstance(node, Argument):
                yield node
            elif not (isinstance(node, Call) and node.name == "ifdef"):
                waiting.extend(children(node))
