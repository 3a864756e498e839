"""What a script consists of. Every node knows its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from braidwater.dml.syntax.span import Span


@dataclass(slots=True, eq=False)
class Node:
    """A piece of a script."""

    span: Span


class Expression(Node):
    """Something with a value."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class Constant(Expression):
    """A number, string or truth value, as written."""

    value: float | int | bool | str


@dataclass(slots=True, eq=False)
class Name(Expression):
    """A variable."""

    name: str


@dataclass(slots=True, eq=False)
class Argument(Expression):
    """``$name`` or ``$1``: what the caller of the script gives. `name` is without the ``$``."""

    name: str


@dataclass(slots=True, eq=False)
class Unary(Expression):
    """``-x``, ``+x`` or ``!x``."""

    op: str
    operand: Expression


@dataclass(slots=True, eq=False)
class Binary(Expression):
    """``left op right``."""

    op: str
    left: Expression
    right: Expression


@dataclass(slots=True, eq=False)
class Given(Node):
    """An argument of a call; `name` is None where it is given by its position."""

    name: str | None
    value: Expression


@dataclass(slots=True, eq=False)
class Call(Expression):
    """``name(...)`` of a built-in or a function; `name` may be ``namespace::name``."""

    name: str
    arguments: tuple[Given, ...]


@dataclass(slots=True, eq=False)
class Bounds(Node):
    """One dimension of an index: ``a``, ``a:b``, or nothing for all (both None). `upper` is None for a single place."""

    lower: Expression | None = None
    upper: Expression | None = None
    is_range: bool = False


@dataclass(slots=True, eq=False)
class Index(Expression):
    """``name[rows, columns]``, or ``name[rows]`` with `columns` None."""

    name: str
    rows: Bounds
    columns: Bounds | None


@dataclass(slots=True, eq=False)
class Items(Expression):
    """``[a, b, c]`` as a value: a list."""

    items: tuple[Expression, ...]


class Statement(Node):
    """Something that is done."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class Assign(Statement):
    """``target = value``, or ``target += value``."""

    target: Name | Index
    value: Expression
    accumulate: bool = False


@dataclass(slots=True, eq=False)
class AssignMany(Statement):
    """``[a, b] = call``."""

    targets: tuple[Name | Index, ...]
    call: Call


@dataclass(slots=True, eq=False)
class Perform(Statement):
    """A call whose value nobody wants."""

    call: Call


@dataclass(slots=True, eq=False)
class Branch(Node):
    """A condition and what is done where it is true."""

    condition: Expression
    body: list[Statement]


@dataclass(slots=True, eq=False)
class If(Statement):
    """``if (c) {...} else if (d) {...} else {...}``."""

    branches: list[Branch]
    otherwise: list[Statement]


@dataclass(slots=True, eq=False)
class While(Statement):
    condition: Expression
    body: list[Statement]


@dataclass(slots=True, eq=False)
class For(Statement):
    """``for (variable in first:last)``; `options` belong to ``parfor``."""

    variable: str
    first: Expression
    last: Expression
    step: Expression | None
    body: list[Statement]
    parallel: bool = False
    options: tuple[Given, ...] = ()


@dataclass(slots=True, eq=False)
class Import(Statement):
    """``source("file.dml") as namespace``."""

    path: str
    namespace: str


@dataclass(slots=True, eq=False)
class Parameter(Node):
    """``type name = default`` of a function. `data` is scalar, matrix, frame, list or tensor; `value` its cells' type."""

    name: str
    data: str
    value: str
    default: Expression | None = None


@dataclass(slots=True, eq=False)
class Function(Statement):
    """``name = function (parameters) return (results) { body }``."""

    name: str
    parameters: tuple[Parameter, ...]
    results: tuple[Parameter, ...]
    body: list[Statement] = field(default_factory=list)
    external: bool = False


@dataclass(slots=True, eq=False)
class Script(Node):
    """A whole file."""

    statements: list[Statement]
    functions: dict[str, Function]


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below an expression."""
    match node:
        case Unary():
            yield node.operand
        case Binary():
            yield node.left
            yield node.right
        case Call():
            for given in node.arguments:
                yield given.value
        case Items():
            yield from node.items
        case Index():
            for bounds in (node.rows, node.columns):
                if bounds is not None:
                    yield from (end for end in (bounds.lower, bounds.upper) if end is not None)
        case _:
            return


def walk(node: Node) -> Iterator[Node]:
    """An expression and everything below it. Without recursion: sums may have thousands of terms."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        waiting.extend(children(found))
