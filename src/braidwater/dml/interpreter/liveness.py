"""Which variables may still be read, before and after each statement. All others need not be computed nor kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from braidwater.dml.syntax.nodes import (
    Assign,
    AssignMany,
    Call,
    Expression,
    For,
    If,
    Index,
    Name,
    Perform,
    Statement,
    While,
    walk,
)

Names = frozenset[str]
NOBODY: Names = frozenset()


class Liveness:
    """The variables that live during each statement of a script or function: read in it, or later.

    A loop's body is looked at twice: what its next turn reads lives through this one.
    """

    def __init__(self, statements: list[Statement], at_end: Iterable[str]) -> None:
        self._during: dict[int, Names] = {}
        self._after: dict[int, Names] = {}
        self.at_end = frozenset(at_end)
        self.stretches: dict[
            int, Any
        ] = {}  # what was recorded of these statements (`braidwater.dml.interpreter.replay`)
        self.before = self._block(statements, self.at_end)

    def during(self, statement: Statement) -> Names:
        return self._during[id(statement)]

    def after(self, statement: Statement) -> Names:
        """The variables that are read behind a statement."""
        return self._after[id(statement)]

    def _block(self, statements: list[Statement], after: Names) -> Names:
        for statement in reversed(statements):
            before = self._statement(statement, after)
            self._after[id(statement)] = after
            self._during[id(statement)] = self._during.get(id(statement), NOBODY) | before | after
            after = before
        return after

    def _statement(self, statement: Statement, after: Names) -> Names:
        match statement:
            case Assign():
                before = after - written([statement.target])
                if statement.accumulate and isinstance(statement.target, Name):
                    before |= {statement.target.name}
                return before | read(statement.value) | _read_by_target(statement.target)
            case AssignMany():
                reads = read(statement.call).union(*map(_read_by_target, statement.targets))
                return (after - written(statement.targets)) | reads
            case Perform():
                return after | read(statement.call)
            case If():
                before = self._block(statement.otherwise, after)
                for branch in reversed(statement.branches):
                    before = before | self._block(branch.body, after) | read(branch.condition)
                return before
            case While():
                loop = after | read(statement.condition)
                loop |= self._block(statement.body, loop)
                return loop | self._block(statement.body, loop)
            case For():
                variable = {
                    statement.variable
                }  # each turn assigns it; behind the loop it is read after no turn at all, too
                loop = after | (self._block(statement.body, after) - variable)
                loop |= self._block(statement.body, loop) - variable
                bounds = [read(end) for end in (statement.first, statement.last, statement.step) if end is not None]
                return loop.union(*bounds)
        return after


def read(expression: Expression) -> Names:
    """The variables that an expression reads."""
    found = set()
    for node in walk(expression):
        if isinstance(node, Name | Index):
            found.add(node.name)
        elif isinstance(node, Call):
            found.update(_named_by_call(node))
    return frozenset(found)


def names_in(statements: Iterable[Statement]) -> Names:
    """The variables that statements read or assign to, those inside of branches and loops too."""
    found: set[str] = set()
    for statement in statements:
        match statement:
            case Assign():
                found |= read(statement.value) | read(statement.target)
            case AssignMany():
                found |= read(statement.call).union(*map(read, statement.targets))
            case Perform():
                found |= read(statement.call)
            case If():
                found = found.union(*(read(branch.condition) for branch in statement.branches))
            case While():
                found |= read(statement.condition)
            case For():
                ends = (end for end in (statement.first, statement.last, statement.step) if end is not None)
                found = found.union(*map(read, ends))
        found = found.union(*map(names_in, bodies(statement)))
    return frozenset(found)


def assigned(statements: Iterable[Statement]) -> list[str]:
    """The variables that statements assign to, those inside of branches and loops too, in order."""
    found: dict[str, None] = {}
    waiting = list(statements)[::-1]
    while waiting:
        match waiting.pop():
            case Assign(target=target):
                found[target.name] = None
            case AssignMany(targets=targets):
                found.update(dict.fromkeys(target.name for target in targets))
            case If(branches=branches, otherwise=otherwise):
                waiting.extend(reversed([*(each for branch in branches for each in branch.body), *otherwise]))
            case While(body=body):
                waiting.extend(reversed(body))
            case For(variable=variable, body=body):
                found[variable] = None
                waiting.extend(reversed(body))
            case _:
                pass
    return list(found)


def bodies(statement: Statement) -> list[list[Statement]]:
    """The statements inside of a branch or loop."""
    if isinstance(statement, If):
        return [*(branch.body for branch in statement.branches), statement.otherwise]
    return [statement.body] if isinstance(statement, For | While) else []


def _named_by_call(call: Call) -> Iterable[str]:
    """``exists("X")`` reads a variable by its name."""
    for given in call.arguments:
        value = getattr(given.value, "value", None)
        if call.name == "exists" and isinstance(value, str):
            yield value


def _read_by_target(target: Name | Index) -> Names:
    return read(target) if isinstance(target, Index) else NOBODY


def written(targets: Iterable[Name | Index]) -> Names:
    """The variables that are wholly replaced."""
    return frozenset(target.name for target in targets if isinstance(target, Name))
