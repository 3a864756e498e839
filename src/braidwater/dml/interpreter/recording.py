"""Writes statements into a graph without computing them, so that they can be planned once and run again on other values.

The variables that statements find are stood for by leaves of the graph: a number that a script changes with each turn of a loop
is none of the plan's business. Where it is, since a size or a branch depends on it, it is looked at, and what was seen is a
*condition* of the recording: it holds for other values as long as they give the same answer. What depends on a value that only
computing gives (the sum of a matrix, say, as the condition of a branch) cannot be recorded, nor can statements that do more than
compute: calls of a script's own functions, prints, files, random numbers, assignments to cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.hops import Facts, Hop
from braidwater.dml.hops.facts import is_csr
from braidwater.dml.hops.node import HasFacts
from braidwater.dml.interpreter.lazy import Block, Lazy, settled
from braidwater.dml.operators import OPERATORS
from braidwater.dml.operators.numbers import ARITHMETIC, NUMBERS, arithmetic, kind_of_result
from braidwater.dml.plan.cost import memory, seconds
from braidwater.dml.runtime.described import DOUBLE, Condition
from braidwater.dml.syntax import Span
from braidwater.dml.syntax.nodes import Argument, Assign, Call, Expression, If, Items, Name, Statement, walk

PURE = frozenset({
    "abs", "sqrt", "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "sign", "floor", "ceil",
    "ceiling", "round", "sigmoid", "min", "max", "pmin", "pmax", "ifelse", "ppred",
    "sum", "prod", "mean", "avg", "var", "sd", "trace", "tr", "nrow", "ncol", "length",
    "rowSums", "rowMeans", "rowMins", "rowMaxs", "rowVars", "rowSds", "rowProds", "rowIndexMax", "rowIndexMin",
    "colSums", "colMeans", "colMins", "colMaxs", "colVars", "colSds", "colProds", "cumsum", "cumprod", "cummin", "cummax",
    "matrix", "t", "diag", "rev", "cbind", "rbind", "append", "seq", "solve", "inv", "as.scalar", "as.matrix",
})  # fmt: skip
"""Built-ins that only compute, by nodes."""
COSTLY = 5e-3  # seconds: from there on what recording saves is little beside what waiting for more operators may save
LARGEST = 16 << 20  # bytes of a matrix that a recording makes
# of whole numbers they are whole, or exact: not so as a node
WHOLE = frozenset({"neg", "abs", "pmin", "pmax", "logbase"})


class RefusedError(Exception):
    """This cannot be recorded."""


class Recording(Block):
    """A block whose leaves are the variables that statements find, whatever they hold by the time that it runs."""

    operators: ClassVar[Mapping[str, HasFacts]] = {**OPERATORS, **NUMBERS}
    defers_comparisons = True

    def __init__(self, context: Context, found: Mapping[str, Any]) -> None:
        super().__init__(context)
        self.variables = _Variables(self, found)
        self.conditions: list[Condition] = []
        self.spent = 0.0
        self._kinds: dict[Hop, type] = {}

    def kind(self, hop: Hop) -> type | None:
        """What kind of number a hop is; None for a matrix."""
        return self._kinds.get(hop, float) if not hop.facts.is_matrix else None

    def leaf(self, name: str, value: Any) -> Any:
        """What stands for a variable that the statements find."""
        if is_csr(value) or (type(value) is np.ndarray and value.dtype is DOUBLE and value.ndim == 2):
            return Lazy(self.dag.leaf(name, value))
        if type(value) not in (float, int, bool):
            raise RefusedError
        self.dag.values[name] = value
        hop = self.dag.adopt("leaf", (), MappingProxyType({"name": name}), Facts.scalar())
        self._kinds[hop] = type(value)
        return Lazy(hop)

    def node(self, op: str, *inputs: Any, span: Span | None = None, **attributes: Any) -> Any:
        hops = [self.hop(each) for each in map(settled, inputs)]
        if op in ARITHMETIC:
            if not any(hop.facts.is_matrix for hop in hops):
                return Lazy(self._number(op, hops[0], hops[1], span))
        elif hops and not any(hop.facts.is_matrix for hop in hops):
            kinds = [self.kind(hop) for hop in hops]
            if bool in kinds or (op in WHOLE and int in kinds):
                raise RefusedError
        return Lazy(self._paid(self.dag.node(op, *hops, span=span, **attributes)))

    def _paid(self, hop: Hop) -> Hop:
        """Refuses what is worth more thought: much work, large matrices, and those of which nobody knows."""
        if not hop.facts.known or memory(hop.facts) > LARGEST:
            raise RefusedError
        self.spent += seconds(hop)
        if self.spent > COSTLY:
            raise RefusedError
        return hop

    def _number(self, op: str, a: Hop, b: Hop, span: Span | None) -> Hop:
        kinds = self.kind(a) or float, self.kind(b) or float
        kind = kind_of_result(op, *kinds)
        if kind is float and bool not in kinds:
            return self.dag.node(op, a, b, span=span)
        if kind is float:
            raise RefusedError
        made = self.dag.node(f"number {op}", a, b, span=span)
        self._kinds[made] = kind
        return made

    def hop(self, value: Any) -> Hop:
        if isinstance(value, Lazy):
            return value.hop
        if type(value) not in (float, int, bool):
            raise RefusedError
        hop = self.dag.literal(value)
        self._kinds[hop] = type(value)
        return hop

    def force(self, value: Any) -> Any:
        """A number that follows from those that the statements find: from now on the recording holds for this value of it."""
        if not isinstance(value, Lazy):
            return value
        seen = number(value.hop, self.dag.values)
        condition = Condition(value.hop, seen)
        if condition not in self.conditions:
            self.conditions.append(condition)
        return seen

    def flush(self) -> None:
        raise RefusedError


class _Variables(dict[str, Any]):
    """The variables of statements that are recorded: what they assigned, and leaves for what they find."""

    def __init__(self, recording: Recording, found: Mapping[str, Any]) -> None:
        super().__init__()
        self.assigned: set[str] = set()
        self.leaves: list[str] = []
        self._recording = recording
        self._found = found

    def __missing__(self, name: str) -> Any:
        made = self._recording.leaf(name, self._found[name])
        super().__setitem__(name, made)
        self.leaves.append(name)
        return made

    def __setitem__(self, name: str, value: Any) -> None:
        self._recording.hop(value)  # refuses strings, lists, frames
        super().__setitem__(name, value)
        self.assigned.add(name)

    def state(self) -> tuple[dict[str, Any], set[str], int]:
        return dict(self), set(self.assigned), len(self._recording.conditions)

    def back_to(self, state: tuple[dict[str, Any], set[str], int]) -> None:
        """Forget what a statement left half done."""
        self.clear()
        self.update(state[0])
        self.assigned = state[1]
        del self._recording.conditions[state[2] :]


def holds(condition: Condition, given: Mapping[str, Any]) -> bool:
    """Whether a condition of a recording does for variables with these values."""
    found = number(condition.hop, given)
    return type(found) is type(condition.value) and bool(found == condition.value)


def number(hop: Hop, given: Mapping[str, Any]) -> Any:
    """The value of a number that follows from those in `given`. Raises RefusedError where it follows from matrices."""
    if hop.facts.is_matrix or any(each.facts.is_matrix for each in hop.inputs):
        raise RefusedError
    if hop.op == "leaf":
        return given[hop.attributes["name"]]
    if hop.op == "literal":
        return hop.attributes["value"]
    values = [number(each, given) for each in hop.inputs]
    op = hop.op.removeprefix("number ")
    return arithmetic(op, *values) if op in ARITHMETIC else OPERATORS[op].kernel(values, hop.attributes)


def recordable(statement: Statement, own: Mapping[str, Any]) -> bool:
    """Whether a statement by itself, without what stands in its branches, may be recorded; `own` are the script's functions."""
    if isinstance(statement, If):
        return all(_is_pure(branch.condition, own) for branch in statement.branches)
    return isinstance(statement, Assign) and isinstance(statement.target, Name) and _is_pure(statement.value, own)


def _is_pure(expression: Expression, own: Mapping[str, Any]) -> bool:
    for node in walk(expression):
        if isinstance(node, Argument | Items):
            return False
        if isinstance(node, Call) and (node.name not in PURE or node.name in own):
            return False
    return True
