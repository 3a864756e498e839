"""Runs the statements of a script."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.interpreter.arguments import inferred, needed
from braidwater.dml.interpreter.assignment import assign_cells
from braidwater.dml.interpreter.calls import Calls
from braidwater.dml.interpreter.expressions import Expressions
from braidwater.dml.interpreter.lazy import Block, Lazy, settled
from braidwater.dml.interpreter.liveness import assigned
from braidwater.dml.interpreter.replay import Replays
from braidwater.dml.interpreter.scope import Loader, Module, Scope, unknown
from braidwater.dml.runtime.deferred import whole
from braidwater.dml.syntax.nodes import (
    Argument,
    Assign,
    AssignMany,
    Expression,
    For,
    Function,
    If,
    Import,
    Index,
    Name,
    Perform,
    Statement,
    While,
)
from braidwater.errors import DMLNameError, DMLTypeError

STACK = 10_000  # of Python's calls: a script's calls may nest 200 deep, and each takes some twenty of Python's


class Interpreter:
    """One run of a script: its arguments, scopes, and the block of operators that wait."""

    def __init__(
        self, context: Context, arguments: Mapping[str, Any], loader: Loader, block: Block | None = None
    ) -> None:
        self.context = context
        self.arguments = arguments
        self.loader = loader
        self.block = block or Block(context)
        self.block.forget = self._forget
        self.block.name_of = self._name_of
        self.expressions = Expressions(self)
        self.calls = Calls(self)
        self.scopes: list[Scope] = []
        self.replays = Replays(self)

    def run(self, module: Module, variables: Mapping[str, Any], outputs: Sequence[str] | None) -> dict[str, Any]:
        """Run a script on `variables`; the values of `outputs` (of all variables where that is None) come back."""
        for argument in needed(module.script.statements):  # one that is missing is told before the work, not after
            self.argument(argument)
        names = assigned(module.script.statements) if outputs is None else outputs
        scope = Scope(module, module.liveness_until(names), dict(variables), outputs or ())
        self.scopes.append(scope)
        with _deep_stack(), np.errstate(all="ignore"):
            self.run_statements(module.script.statements, scope)
            scope.live = scope.liveness.at_end
            self._forget()
            self.block.flush()
        self.settle()
        for name in outputs or ():
            if name not in scope.variables:
                raise DMLNameError(f"The script ended without a value for its output {name!r}.")
        return {name: whole(scope.variables[name], self.context) for name in names if name in scope.variables}

    def run_statements(self, statements: Sequence[Statement], scope: Scope) -> None:
        """Run statements: recorded ones again, others one by one."""
        place, end = 0, len(statements)
        while place < end:
            done = self.replays.run(statements, place, scope)
            if not done:
                self.run_statement(statements[place], scope)
                done = 1
            place += done

    def run_statement(self, statement: Statement, scope: Scope) -> None:
        scope.live = scope.liveness.during(statement)
        match statement:
            case Assign():
                self._assign(statement, scope)
                self.block.flush_if_large()
            case Perform():
                self.calls.run(statement.call, scope)
            case AssignMany():
                self._assign_many(statement, scope)
            case If():
                self._if(statement, scope)
            case While():
                self._while(statement, scope)
            case For():
                self._for(statement, scope)
            case Import() | Function():
                pass
            case _:
                raise TypeError(f"not a statement: {statement!r}")

    def _assign(self, statement: Assign, scope: Scope) -> None:
        target = statement.target
        if statement.accumulate:
            before = self.expressions.value(target, scope)
            value = self.expressions.binary("+", before, self.expressions.value(statement.value, scope), statement.span)
        else:
            value = self.expressions.value(statement.value, scope)
        self._store(target, value, scope)

    def _store(self, target: Name | Index, value: Any, scope: Scope) -> None:
        if isinstance(target, Index):
            assign_cells(self, target, value, scope)
        else:
            scope.variables[target.name] = settled(value)

    def _assign_many(self, statement: AssignMany, scope: Scope) -> None:
        found = self.calls.run(statement.call, scope)
        values = found if isinstance(found, tuple) else (found,)
        if len(values) < len(statement.targets) or found is None:
            count = 0 if found is None else len(values)
            raise DMLTypeError(
                f"{statement.call.name} has {count} result{'s' * (count != 1)}, and {len(statement.targets)} are asked for.",
                statement.span,
            )
        for target, value in zip(statement.targets, values, strict=False):
            self._store(target, value, scope)

    def _if(self, statement: If, scope: Scope) -> None:
        for branch in statement.branches:
            if self.expressions.truth(branch.condition, scope):
                self.run_statements(branch.body, scope)
                return
        self.run_statements(statement.otherwise, scope)

    def _while(self, statement: While, scope: Scope) -> None:
        during = scope.liveness.during(statement)
        while self.expressions.truth(statement.condition, scope):
            self.run_statements(statement.body, scope)
            self._end_turn(scope, during)

    def _for(self, statement: For, scope: Scope) -> None:
        during = scope.liveness.during(statement)
        turns = self._turns(statement, scope)
        if statement.parallel:
            from braidwater.dml.interpreter.parfor import run_parfor  # a dozen modules, and most scripts have none

            run_parfor(self, statement, turns, scope)
            return
        for turn in turns:
            scope.variables[statement.variable] = turn
            self.run_statements(statement.body, scope)
            self._end_turn(scope, during)

    def _end_turn(self, scope: Scope, during: frozenset[str]) -> None:
        scope.live = during
        self.block.flush()

    def _turns(self, statement: For, scope: Scope) -> Sequence[Any]:
        first = self._number(statement.first, scope)
        last = self._number(statement.last, scope)
        if statement.step is None:
            step = 1.0 if first <= last else -1.0
        else:
            step = self._number(statement.step, scope)
            if step == 0 or step != step:
                raise DMLTypeError("A loop's step cannot be 0.", statement.step.span)
        if all(float(each).is_integer() for each in (first, step)):
            stop = int(last // 1) if step > 0 else -int(-last // 1)
            return range(int(first), stop + (1 if step > 0 else -1), int(step))
        count = max(0, 1 + int((last - first) / step + 1e-10))
        return [first + step * turn for turn in range(count)]

    def _number(self, node: Expression, scope: Scope) -> float:
        found = self.expressions.scalar(node, scope)
        if isinstance(found, str) or found != found or found in (float("inf"), float("-inf")):
            raise DMLTypeError(f"A loop's bound must be a number, not {found!r}.", node.span)
        return float(found)

    def argument(self, node: Argument) -> Any:
        """The value of ``$name``."""
        if node.name not in self.arguments:
            given = ", ".join(f"${name}" for name in self.arguments) or "none"
            error = unknown("argument", f"${node.name}", [f"${name}" for name in self.arguments], node.span)
            error.hint = (
                error.hint
                or f"Given: {given}. Give it with -nvargs {node.name}=..., or write ifdef(${node.name}, default)."
            )
            raise error
        return inferred(self.arguments[node.name])

    def directory(self) -> Path:
        return self.context.directory

    def _forget(self) -> None:
        for scope in self.scopes:
            scope.forget()

    def _name_of(self, value: Any) -> str | None:
        variables = self.scopes[-1].variables if self.scopes else {}
        return next((name for name, held in variables.items() if settled(held) is value), None)

    def settle(self) -> None:
        """Compute what waits, so that no variable does."""
        self.block.flush()
        for scope in self.scopes:
            for name, value in scope.variables.items():
                if isinstance(value, Lazy):
                    scope.variables[name] = self.block.force(value)


@contextmanager
def _deep_stack() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, STACK))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
