"""Runs statements again without reading them again: recorded once for the kinds and sizes of what they find, then a plan.

A *stretch* is a row of statements that can be recorded: from where the interpreter stands to a loop, a print, a costly operator,
or a branch that only computing decides. What the interpreter does for a statement costs some 20 us an operator, which is much
beside matrices of a thousand cells; a recorded stretch runs as one Python function of numpy calls, which begins by asking whether
kinds, sizes and conditions are still those of its recording.

What costs more than the interpreter is left to it: it waits longer before it computes, and so shares scans and what does not
change from turn to turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from braidwater.dml.context import Context
from braidwater.dml.hops import Hop, reachable
from braidwater.dml.interpreter.lazy import Lazy
from braidwater.dml.interpreter.liveness import Names, assigned, names_in
from braidwater.dml.interpreter.recording import Recording, RefusedError, holds, recordable
from braidwater.dml.interpreter.scope import Scope
from braidwater.dml.plan.signature import signature
from braidwater.dml.runtime.described import Condition, Described, Result, described
from braidwater.dml.runtime.evaluate import planned, run, slots_of
from braidwater.dml.runtime.generated import generated
from braidwater.dml.runtime.program import Program
from braidwater.dml.runtime.reuse import has_large, invariant
from braidwater.dml.syntax.nodes import Statement
from braidwater.errors import DMLError

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter

LONGEST = 200  # statements of a stretch: the optimiser's time grows with it
# kinds and sizes for which one run records a stretch: where each turn brings others, recording is for nothing
MOST = 32
HOPELESS = 2  # refusals of a stretch of which nothing was recorded yet


@dataclass(eq=False)
class Recorded:
    """A stretch that was recorded: what it finds, under which conditions it holds, its program, what it leaves behind."""

    length: int
    live: Names
    order: list[Hop]
    given: Mapping[str, Described]  # what it finds: kinds and sizes that it holds for
    conditions: list[Condition]
    program: Program
    results: list[Result]
    dead: list[str]
    code: Callable[[dict[str, Any], Context], bool] | None = None
    ran: bool = False

    def holds(self, variables: Mapping[str, Any]) -> bool:
        return all(holds(condition, variables) for condition in self.conditions)

    def run(self, variables: dict[str, Any], context: Context) -> None:
        """Instruction by instruction: for the first time, and where somebody measures or explains them."""
        found = run(self.program, slots_of(self.program, self.order, variables), context)
        for result, value in zip(self.results, found, strict=True):
            variables[result.name] = float(value) if result.kind is float else value
        for name in self.dead:
            del variables[name]


@dataclass(eq=False)
class Stretch:
    """Statements in a row, and their recordings by the kinds and sizes of the variables that they may read."""

    statements: Sequence[Statement]
    reads: Sequence[str]
    changing: Names  # the variables that these statements or those around them assign to
    comes_again: bool  # where it does, what stays the same from turn to turn is the interpreter's to keep
    recorded: dict[Any, list[Recorded]] = field(default_factory=dict)

    def keep(self, key: Any, recorded: Recorded) -> None:
        if len(self.recorded) > 2 * MOST:
            self.recorded.clear()
        self.recorded.setdefault(key, []).append(recorded)


@dataclass(eq=False, slots=True)
class _State:
    """What one run did with a stretch: the recording that it used last, all that it used, and what it could not record."""

    stretch: Stretch
    last: Recorded | None = None
    used: set[Recorded] = field(default_factory=set)
    refused: set[Any] = field(default_factory=set)
    given_up: bool = False


class Replays:
    """The stretches of a run. `run` is asked before each statement, and says how many it did.

    Which recordings a run uses follows from what it computes, not from what ran before it: the digits are the same each time.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._block = interpreter.block
        self._context = interpreter.context
        self._states: dict[int, _State] = {}
        self._allowed = not (self._context.plain or self._context.strict)

    def run(self, statements: Sequence[Statement], place: int, scope: Scope) -> int:
        """Do the statements from `place` on that were recorded: their number, or 0 where the interpreter has to."""
        context = self._context
        if self._block.waiting or not self._allowed or (context.pool is not None and context.pool.on_disk):
            return 0
        state = self._states.get(id(statements[place]))
        if state is None:
            state = self._states[id(statements[place])] = _state(statements, place, scope)
        if state.given_up:
            return 0
        last = state.last
        if last is None or not last.code(scope.variables, context):  # type: ignore[misc]
            last = self._other(state, scope)
            if last is None:
                return 0
        scope.live = last.live
        return last.length

    def _other(self, state: _State, scope: Scope) -> Recorded | None:
        """Run another recording than the last one, or a new one."""
        variables, context = scope.variables, self._context
        key = _key(state.stretch, variables)
        found = next((each for each in state.stretch.recorded.get(key, ()) if each.holds(variables)), None)
        if found not in state.used:
            found = self._first_use(state, key, found, scope)
        if found is None:
            return None
        if not found.ran or context.explain is not None or context.statistics is not None:
            found.run(variables, context)
            found.ran = True
            return found
        if found.code is None:
            found.code = generated(found.program, found.order, found.given, found.conditions, found.results, found.dead)
        found.code(variables, context)
        state.last = found
        return found

    def _first_use(self, state: _State, key: Any, found: Recorded | None, scope: Scope) -> Recorded | None:
        """A recording that this run did not use yet: of another run, or made now."""
        numbers = (scope.variables.get(name) for name in state.stretch.reads)
        seen = (key, *(number for number in numbers if type(number) in (int, bool)))
        if seen in state.refused:
            return None
        if len(state.used) + len(state.refused) >= (MOST if state.used else HOPELESS):
            state.given_up = True
            return None
        if found is None:
            found = _recorded(self._interpreter, state.stretch, scope)
            if found is None:
                state.refused.add(seen)
                return None
            state.stretch.keep(key, found)
        state.used.add(found)
        return found


class _Checked:
    """In the place of `Replays`, while statements are recorded: says no to those that cannot be."""

    def run(self, statements: Sequence[Statement], place: int, scope: Scope) -> int:
        if not recordable(statements[place], scope.module.functions):
            raise RefusedError
        return 0


def _state(statements: Sequence[Statement], place: int, scope: Scope) -> _State:
    known: dict[int, Stretch] = scope.liveness.stretches
    stretch = known.get(id(statements[place]))
    if stretch is None:
        end = place
        while end < min(len(statements), place + LONGEST) and recordable(statements[end], scope.module.functions):
            end += 1
        row = statements[place:end]
        stretch = known[id(statements[place])] = Stretch(
            row,
            sorted(names_in(row)),
            frozenset(assigned(statements)),
            statements is not scope.module.script.statements,
        )
    return _State(stretch, given_up=not stretch.statements)


def _key(stretch: Stretch, variables: dict[str, Any]) -> tuple[Any, ...]:
    """Kinds and sizes of what a stretch may read."""
    parts = []
    for name in stretch.reads:
        value = variables.get(name)
        if type(value) is Lazy and value.value is not None:
            value = variables[name] = value.value
        parts.append(described(value))
    return tuple(parts)


def _recorded(interpreter: Interpreter, stretch: Stretch, scope: Scope) -> Recorded | None:
    recording = Recording(interpreter.context, scope.variables)
    done = _write(interpreter, recording, stretch.statements, scope)
    if not done:
        return None
    live = scope.liveness.after(stretch.statements[done - 1])
    variables = recording.variables
    wanted = {name: value for name, value in variables.items() if name in live and name in variables.assigned}
    roots = [recording.hop(value) for value in wanted.values()]
    order = reachable(roots)
    values = recording.dag.values
    same = frozenset(
        place
        for place, hop in enumerate(order)
        if hop.op == "leaf" and hop.facts.is_matrix and hop.attributes["name"] not in stretch.changing
    )
    if stretch.comes_again and has_large(order) and invariant(order, same):
        return None
    program = planned(order, roots, values, signature(order, roots, values), interpreter.context)
    return Recorded(
        done,
        scope.liveness.during(stretch.statements[done - 1]),
        order,
        {name: described(value) for name, value in values.items()},
        recording.conditions,
        program,
        [Result(name, recording.kind(hop)) for name, hop in zip(wanted, roots, strict=True)],
        [name for name in variables.leaves if name not in live],
    )


def _write(interpreter: Interpreter, recording: Recording, statements: Sequence[Statement], scope: Scope) -> int:
    """Run statements into a recording, as far as that goes: how many."""
    writer = type(interpreter)(interpreter.context, interpreter.arguments, interpreter.loader, recording)
    writer.replays = _Checked()  # type: ignore[assignment]
    inside = Scope(scope.module, scope.liveness, recording.variables)
    writer.scopes.append(inside)
    for done, statement in enumerate(statements):
        before = recording.variables.state()
        try:
            writer.run_statement(statement, inside)
        except (RefusedError, DMLError):  # what is wrong with a statement the interpreter says better
            recording.variables.back_to(before)
            return done
    return len(statements)
