"""Loops whose turns may run at the same time: that no turn reads or writes what another writes.

The cells that each turn touches are bounded by interval arithmetic over all turns at once, with the actual sizes: two accesses
are independent if their rows, or their columns, never meet in different turns. What cannot be bounded counts as dependent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.interpreter.intervals import Interval, bound, overlaps
from braidwater.dml.interpreter.lazy import is_matrix_value, settled
from braidwater.dml.interpreter.liveness import bodies, read
from braidwater.dml.interpreter.scope import Scope
from braidwater.dml.syntax import Span
from braidwater.dml.syntax.nodes import (
    Assign,
    AssignMany,
    Bounds,
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
from braidwater.errors import DMLValueError

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter

EVERYTHING = Interval(np.asarray(-np.inf), np.asarray(np.inf))


@dataclass(frozen=True)
class Access:
    """Cells of a variable that a statement reads or writes."""

    name: str
    writes: bool
    rows: Interval
    cols: Interval
    span: Span


def check_dependencies(touched: Touched, loop: For, turns: Sequence[Any]) -> None:
    """Raise DMLValueError where turns of a ``parfor`` may depend on one another."""
    if len(turns) < 2:
        return
    _refuse_carried(touched, loop)
    for write in (each for each in touched.accesses if each.writes):
        for other in touched.accesses:
            if (
                other.name == write.name
                and overlaps(write.rows, other.rows, len(turns))
                and overlaps(write.cols, other.cols, len(turns))
            ):
                what = "writes" if other.writes else "reads"
                raise DMLValueError(
                    f"The turns of this parfor may depend on one another: "
                    f"one {what} cells of {write.name!r} that another writes.",
                    other.span,
                    hint="Write for instead, or check=0 if no two turns touch the same cell.",
                )


def _refuse_carried(touched: Touched, loop: For) -> None:
    for name, span in touched.carried.items():
        if name in touched.assigned:
            raise DMLValueError(
                f"The turns of this parfor depend on one another: {name!r} is read before it is assigned, "
                "so it comes from the turn before.",
                span,
                hint="Write for instead, or give each turn a cell of its own: result[i, 1] = ...",
            )
    for name, span in touched.accumulated.items():
        if name in touched.carried or name in touched.assigned:
            raise DMLValueError(
                f"{name!r} adds up over the turns of this parfor, and is read or assigned in it as well.",
                span,
                hint="Write for instead.",
            )
    behind = read_behind(touched.scope, loop)
    for name in sorted(touched.assigned & behind):
        raise DMLValueError(
            f"{name!r} is assigned in every turn of this parfor and read behind it.",
            loop.span,
            hint="Which turn's value is meant? Write for instead.",
        )
    written = {access.name for access in touched.accesses if access.writes}
    for name in written & touched.assigned:
        raise DMLValueError(
            f"This parfor assigns to {name!r} as a whole and to cells of it.", loop.span, hint="Write for instead."
        )


def read_behind(scope: Scope, loop: For) -> frozenset[str]:
    """The variables whose value somebody asks for when the loop has ended."""
    liveness = scope.liveness
    if loop in scope.module.script.statements:  # where no outputs were named, all variables count as read
        liveness = scope.module.liveness_until(scope.outputs)
    return liveness.after(loop) - {loop.variable}


class Touched:
    """What the turns of a loop read and write: its body is gone through in order, for all turns at once."""

    def __init__(self, interpreter: Interpreter, loop: For, turns: Sequence[Any], scope: Scope) -> None:
        self.scope = scope
        self.interpreter = interpreter
        self.known: dict[str, Interval] = {}
        self.accesses: list[Access] = []
        self.assigned: set[str] = set()  # as a whole, on some way through the body
        self.carried: dict[str, Span] = {}  # read before this turn has surely assigned it
        self.accumulated: dict[str, Span] = {}  # by +=
        self.sure: set[str] = set()  # assigned in this turn on every way so far
        for name, value in scope.variables.items():
            value = settled(value)
            if isinstance(value, float | int):
                self.known[name] = Interval.exactly(float(value))
        self.known[loop.variable] = Interval.exactly(np.asarray(turns, dtype=np.float64))
        self.sure.add(loop.variable)
        self.block(loop.body)

    def block(self, statements: Sequence[Statement]) -> None:
        for statement in statements:
            self.statement(statement)

    def statement(self, statement: Statement) -> None:
        match statement:
            case Assign():
                if statement.accumulate and isinstance(statement.target, Name):
                    self.reads(statement.value)  # sums of all turns may be added in any order
                    self.known.pop(statement.target.name, None)
                    if statement.target.name not in self.sure:
                        self.accumulated.setdefault(statement.target.name, statement.span)
                    return
                self.reads(statement.value)
                if statement.accumulate:
                    self.reads(statement.target)
                self.write(statement.target, bound(statement.value, self.known))
            case AssignMany():
                self.reads(statement.call)
                for target in statement.targets:
                    self.write(target, Interval.unknown())
            case Perform():
                self.reads(statement.call)
            case If():
                self.branches(statement)
            case While():
                self.loop(statement.body, [statement.condition])
            case For():
                ends = [end for end in (statement.first, statement.last, statement.step) if end is not None]
                first, last = bound(statement.first, self.known), bound(statement.last, self.known)
                self.forget(statement.body)
                self.known[statement.variable] = first.hull(last)
                self.sure.add(statement.variable)
                self.loop(statement.body, ends)

    def branches(self, statement: If) -> None:
        before, known = set(self.sure), dict(self.known)
        ends: list[tuple[set[str], dict[str, Interval]]] = []
        for body in (*(branch.body for branch in statement.branches), statement.otherwise):
            self.sure, self.known = set(before), dict(known)
            self.block(body)
            ends.append((self.sure, self.known))
        for branch in statement.branches:
            self.reads(branch.condition)
        self.sure = set.intersection(*(sure for sure, _ in ends))
        names = set.intersection(*(set(each) for _, each in ends))
        self.known = {name: _hull([each[name] for _, each in ends]) for name in names}

    def loop(self, body: Sequence[Statement], conditions: Sequence[Expression]) -> None:
        for condition in conditions:
            self.reads(condition)
        before = set(self.sure)
        self.forget(body)
        self.block(body)
        self.sure = before

    def forget(self, body: Sequence[Statement]) -> None:
        """A later turn of an inner loop may have changed what the body assigns."""
        for statement in body:
            if isinstance(statement, Assign) and isinstance(statement.target, Name):
                self.known.pop(statement.target.name, None)
            for inner in bodies(statement):
                self.forget(inner)

    def reads(self, node: Expression) -> None:
        for found in walk(node):
            if isinstance(found, Index):
                if found.name not in self.sure:
                    self.accesses.append(self.access(found, writes=False))
                    self.carried.setdefault(found.name, found.span)
            elif isinstance(found, Name) and found.name not in self.sure:
                self.accesses.append(Access(found.name, False, EVERYTHING, EVERYTHING, found.span))
                self.carried.setdefault(found.name, found.span)

    def write(self, target: Name | Index, value: Interval) -> None:
        if isinstance(target, Name):
            self.known[target.name] = value
            self.assigned.add(target.name)
            self.sure.add(target.name)
        else:
            for name in read(target) - {target.name}:
                if name not in self.sure:
                    self.carried.setdefault(name, target.span)
            if target.name not in self.sure:
                self.accesses.append(self.access(target, writes=True))

    def access(self, node: Index, *, writes: bool) -> Access:
        held = settled(self.scope.variables.get(node.name))
        shape = self.interpreter.block.shape(held) if held is not None and is_matrix_value(held) else (None, None)
        rows = self.range(node.rows, shape[0])
        cols = self.range(node.columns, shape[1]) if node.columns is not None else EVERYTHING
        return Access(node.name, writes, rows, cols, node.span)

    def range(self, bounds: Bounds, size: int | None) -> Interval:
        if bounds.lower is None and bounds.upper is None:
            return EVERYTHING
        low = bound(bounds.lower, self.known) if bounds.lower is not None else Interval.exactly(1.0)
        high = low
        if bounds.is_range:
            high = (
                bound(bounds.upper, self.known) if bounds.upper is not None else Interval.exactly(float(size or np.inf))
            )
        return Interval(np.floor(low.low + 1e-10), np.floor(high.high + 1e-10))


def _hull(intervals: Sequence[Interval]) -> Interval:
    found = intervals[0]
    for each in intervals[1:]:
        found = found.hull(each)
    return found
