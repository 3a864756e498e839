"""Values that are not computed yet, and the block of operators that they wait in.

Statements only extend a graph; it is computed when a number is needed (a condition, a print) or a loop's turn ends, so that the
optimiser sees as much as possible, with actual sizes. What is computed then is whatever somebody still holds: a variable that is
read again, or an expression under way.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.hops import Dag, Hop
from braidwater.dml.hops.node import HasFacts
from braidwater.dml.interpreter.plain import evaluate_plainly
from braidwater.dml.operators import OPERATORS
from braidwater.dml.runtime.evaluate import evaluate
from braidwater.dml.syntax import Span
from braidwater.dml.values import is_matrix, is_streamed
from braidwater.errors import DMLError

LARGEST_BLOCK = 1000  # operators: the optimiser's time grows with a block, and a longer one has little more to share
AT_ONCE = 16  # cells: below it computing is cheaper than waiting

SCALARS = frozenset({float, int, bool, str})

Value: TypeAlias = Any  # a scalar, matrix, Frame, ListValue or Lazy


class Lazy:
    """A matrix or number that some block will compute; `value` is None until then."""

    __slots__ = ("__weakref__", "hop", "value")

    def __init__(self, hop: Hop) -> None:
        self.hop = hop
        self.value: Value = None

    @property
    def is_matrix(self) -> bool:
        return self.hop.facts.is_matrix


class Block:
    """The operators that wait. `forget` is called before they are computed, to drop variables that nobody reads again."""

    operators: ClassVar[Mapping[str, HasFacts]] = OPERATORS
    defers_comparisons = False  # of numbers: their value decides where a script goes on

    def __init__(self, context: Context) -> None:
        self.context = context
        self.forget: Callable[[], None] = lambda: None
        self.name_of: Callable[[Value], str | None] = lambda value: None  # the variable that holds a value
        self._begin()

    def _begin(self) -> None:
        self.dag = Dag(self.operators)
        self.waiting: dict[int, weakref.ref[Lazy]] = {}
        self._leaves: dict[int, Hop] = {}

    def node(self, op: str, *inputs: Value, span: Span | None = None, **attributes: Any) -> Value:
        """An operator on values that are there or will be. Tiny ones are computed at once."""
        inputs = tuple(map(settled, inputs))
        try:
            if all(map(_tiny, inputs)) and self.context.explain is None and op not in ("rand", "fill"):
                with np.errstate(all="ignore"):
                    return OPERATORS[op].kernel(inputs, attributes)
            hop = self.dag.node(op, *map(self.hop, inputs), span=span, **attributes)
        except DMLError as error:
            raise error.at(span) from None
        made = Lazy(hop)
        self.waiting[id(made)] = weakref.ref(made)
        return made

    def hop(self, value: Value) -> Hop:
        """The place of a value in this block's graph."""
        if type(value) is Lazy:
            if value.value is None:
                return value.hop
            value = value.value
        if type(value) in SCALARS or isinstance(value, float | int | str):
            return self.dag.literal(value)
        known = self._leaves.get(id(value))
        if known is None:
            known = self._leaves[id(value)] = self.dag.leaf(self._free(self.name_of(value)), value)
        return known

    def _free(self, name: str | None) -> str:
        if name and name not in self.dag.values:
            return name
        return f"{name or 'm'}{len(self.dag.values) + 1}"

    def force(self, value: Value) -> Value:
        """A value that is there: what waits is computed, if this one does."""
        if not isinstance(value, Lazy):
            return value
        if value.value is None:
            self.flush()
        return value.value

    def gathered(self, value: Value) -> Value:
        """A value that is there, and in memory where it is a matrix that lies in a table.

        Raises BudgetError where it does not fit.
        """
        found = self.force(value)
        if not is_streamed(found):
            return found
        from braidwater.dml.runtime.streamed import gathered  # tables are slow to import, and most scripts have none

        return gathered(found, self.context, self.hop(found))

    def facts_of(self, value: Value) -> tuple[int | None, int | None]:
        """Rows and columns of a matrix, None where only computing could tell."""
        value = settled(value)
        return value.hop.facts.shape if isinstance(value, Lazy) else value.shape

    def shape(self, value: Value) -> tuple[int, int]:
        """Rows and columns of a matrix, computed where they are not known otherwise."""
        rows, cols = self.facts_of(value)
        if rows is None or cols is None:
            rows, cols = self.force(value).shape
        return rows, cols

    def flush(self) -> None:
        """Compute what waits and somebody holds."""
        if not self.waiting:
            return
        self.forget()
        held = [lazy for lazy in (reference() for reference in self.waiting.values()) if lazy is not None]
        dag = self.dag
        self._begin()
        if held:
            roots = [lazy.hop for lazy in held]
            results = evaluate_plainly(dag, roots) if self.context.plain else evaluate(dag, roots, self.context)
            for lazy, result in zip(held, results, strict=True):
                lazy.value = result
            del results

    def flush_if_large(self) -> None:
        if self.dag.size > LARGEST_BLOCK:
            self.flush()


def settled(value: Value) -> Value:
    """The value itself where it was computed since."""
    return value.value if type(value) is Lazy and value.value is not None else value


def is_matrix_value(value: Value) -> bool:
    """Whether a value, computed or not, is a matrix."""
    kind = type(value)
    if kind in SCALARS:
        return False
    if kind is np.ndarray:
        return True
    return value.is_matrix if isinstance(value, Lazy) else is_matrix(value) or is_streamed(value)


def _tiny(value: Value) -> bool:
    kind = type(value)
    if kind is np.ndarray:
        return bool(value.size <= AT_ONCE)
    if kind is Lazy:
        return False
    if kind in SCALARS or isinstance(value, float | int | str):
        return True
    return is_matrix(value) and bool(value.shape[0] * value.shape[1] <= AT_ONCE)
