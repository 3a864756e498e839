"""One turn of a parallel loop by itself: what it wrote, added up and printed; and how that is put into place afterwards.

Every turn draws random numbers of its own, prints into a list, and adds up from zero what ``+=`` adds up over the turns. Results
are put into place in the order of the turns. So they are the same, in every bit, however the turns were run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from braidwater.dml.interpreter.assignment import put
from braidwater.dml.interpreter.lazy import settled
from braidwater.dml.interpreter.scope import Scope
from braidwater.dml.syntax import Span
from braidwater.dml.syntax.nodes import For
from braidwater.dml.values import ListValue
from braidwater.errors import DMLError

if TYPE_CHECKING:
    from braidwater.dml.context import Context
    from braidwater.dml.interpreter.interpreter import Interpreter

Write: TypeAlias = tuple[tuple[int, int], tuple[int, int], Any]  # first and last row, first and last column, new cells


@dataclass(frozen=True)
class Parallel:
    """A parallel loop: `turns` are the values of its variable, `cells` the matrices whose cells it writes, `sums` the variables
    that it adds up, `kept` the others whose last value somebody may ask for. `seed` is drawn once for the loop."""

    loop: For
    turns: Sequence[Any]
    cells: frozenset[str]
    sums: frozenset[str]
    kept: frozenset[str]
    seed: int


@dataclass
class Turn:
    """What became of one turn; `place` is its number, from 0."""

    place: int
    writes: dict[str, list[Write]] = field(default_factory=dict)
    added: dict[str, Any] = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)  # of the last turn only: the values of `Parallel.kept`
    error: Exception | None = None


def run_turn(interpreter: Interpreter, parallel: Parallel, place: int, scope: Scope) -> Turn:
    """Run a turn in a scope of its own, or one that turns share one after the other; its error is part of what it gives."""
    turn = Turn(place, writes={name: [] for name in parallel.cells})
    scope.recorded = turn.writes
    try:
        with printing_into(interpreter.context, turn.printed):
            one_turn(interpreter, parallel, place, scope)
            turn.added = {
                name: _computed(interpreter, scope, name) for name in parallel.sums if name in scope.variables
            }
            if place == len(parallel.turns) - 1:
                kept = parallel.kept & set(scope.variables)
                turn.last = {name: _computed(interpreter, scope, name) for name in kept}
    except Exception as error:
        turn.error = error
    return turn


def one_turn(interpreter: Interpreter, parallel: Parallel, place: int, scope: Scope) -> None:
    """The statements of a turn. Sums begin at zero; errors say which turn it was."""
    loop, context = parallel.loop, interpreter.context
    context.random = np.random.default_rng([parallel.seed, place])
    scope.variables.update({name: zero_of(scope.variables[name]) for name in parallel.sums if name in scope.variables})
    scope.variables[loop.variable] = parallel.turns[place]
    try:
        interpreter.run_statements(loop.body, scope)
        scope.live = scope.liveness.during(loop)
        interpreter.block.flush()
    except DMLError as error:
        line = f"In the turn {loop.variable} = {parallel.turns[place]} of the parfor in line {loop.span.line}."
        error.hint = "\n".join(part for part in (error.hint, line) if part)
        raise


def put_into_place(interpreter: Interpreter, turn: Turn, scope: Scope, span: Span) -> None:
    """The cells, sums and prints of a turn, as if it had run here. Raises its error."""
    for text in turn.printed:
        interpreter.context.show(text)
    if turn.error is not None:
        raise turn.error
    for name, writes in turn.writes.items():
        for rows, cols, new in writes:
            put(interpreter, name, rows, cols, new, scope, span)
    add_up(interpreter, turn.added, scope, span)
    scope.variables.update(turn.last)


def add_up(interpreter: Interpreter, added: dict[str, Any], scope: Scope, span: Span) -> None:
    """Add what a turn added."""
    for name, value in added.items():
        if name in scope.variables:
            whole = interpreter.expressions.binary("+", scope.variables[name], value, span)
            scope.variables[name] = interpreter.block.force(whole)


def zero_of(value: Any) -> Any:
    """What adding up begins at: a zero of the same kind."""
    value = settled(value)
    if isinstance(value, bool | int):
        return 0
    return 0.0 if isinstance(value, float) else np.zeros(value.shape)


@contextmanager
def printing_into(context: Context, lines: list[str]) -> Iterator[None]:
    """What is printed becomes lines of a list."""
    before: Callable[[str], None] = context.show
    context.show = lines.append
    try:
        yield
    finally:
        context.show = before


def _computed(interpreter: Interpreter, scope: Scope, name: str) -> Any:
    interpreter.block.force(settled(scope.variables[name]))
    return without_lazy(scope.variables[name])


def without_lazy(value: Any) -> Any:
    """A value that was computed, in lists too, so that others can have it."""
    value = settled(value)
    if isinstance(value, ListValue):
        return ListValue(map(without_lazy, value.items), value.names)
    return value
