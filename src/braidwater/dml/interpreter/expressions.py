"""The values of expressions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.interpreter import scalars
from braidwater.dml.interpreter.frames import compared
from braidwater.dml.interpreter.lazy import SCALARS, Lazy, is_matrix_value, settled
from braidwater.dml.interpreter.scope import Scope, unknown
from braidwater.dml.syntax import Span
from braidwater.dml.syntax.nodes import (
    Argument,
    Binary,
    Bounds,
    Call,
    Constant,
    Expression,
    Index,
    Items,
    Name,
    Unary,
)
from braidwater.dml.values import Frame, ListValue, dense, kind_of, with_article
from braidwater.errors import DMLError, DMLShapeError, DMLTypeError

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter

EPSILON = 1e-10  # what is added to a double before it is cut to an index
BOOLEAN = frozenset({"<", "<=", ">", ">=", "==", "!=", "&", "|"})
SAME = {"&&": "&", "||": "|"}
USUAL = frozenset({Lazy, np.ndarray, float, int, bool})  # what every operator takes


class Expressions:
    """Computes expressions for an interpreter, in a scope."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._block = interpreter.block

    def value(self, node: Expression, scope: Scope) -> Any:
        """The value of an expression: there already, or waiting to be computed."""
        kind = type(node)  # a chain of patterns would ask up to eight times, for every name and constant
        if kind is Name:
            try:
                return scope.variables[node.name]  # type: ignore[attr-defined]
            except KeyError:
                pass
        elif kind is Constant:
            return node.value  # type: ignore[attr-defined]
        return WAYS[kind](self, node, scope)

    def scalar(self, node: Expression, scope: Scope) -> Any:
        """The value of an expression that must be a number, string or truth value, computed."""
        return self.to_scalar(self.value(node, scope), node.span)

    def to_scalar(self, value: Any, span: Span) -> Any:
        value = settled(value)
        if is_matrix_value(value):
            if self._interpreter.context.strict or self._block.shape(value) != (1, 1):
                rows, cols = self._block.shape(value)
                hint = "as.scalar(X[1, 1]) takes a number out of a matrix; sum, max or nrow make one."
                raise DMLTypeError(f"A number is needed, and this is a {rows} x {cols} matrix.", span, hint=hint)
            return float(dense(self._block.force(value))[0, 0])
        if isinstance(value, Frame | ListValue):
            raise DMLTypeError(f"A number is needed, and this is {with_article(kind_of(value))}.", span)
        return self._block.force(value)

    def truth(self, node: Expression, scope: Scope) -> bool:
        """The value of a condition. Numbers are true unless they are 0."""
        found = self.scalar(node, scope)
        if isinstance(found, str):
            raise DMLTypeError(f"A condition must be a truth value or a number, not the string {found!r}.", node.span)
        return bool(found)

    def _named(self, node: Name, scope: Scope) -> Any:
        return self._variable(node.name, node.span, scope)

    def _constant(self, node: Constant, scope: Scope) -> Any:
        return node.value

    def _called(self, node: Call, scope: Scope) -> Any:
        return self._interpreter.calls.single(node, scope)

    def _argument(self, node: Argument, scope: Scope) -> Any:
        return self._interpreter.argument(node)

    def _items(self, node: Items, scope: Scope) -> ListValue:
        return ListValue([self.value(item, scope) for item in node.items])

    def _variable(self, name: str, span: Span, scope: Scope) -> Any:
        try:
            return scope.variables[name]
        except KeyError:
            error = unknown("variable", name, list(scope.variables), span)
            if error.hint is None and self._interpreter.calls.exists(name, scope):
                error.hint = f"{name} is a function: {name}(...)."
            raise error from None

    def _chain(self, node: Binary, scope: Scope) -> Any:
        """A binary operator. Long chains a + b + c ... lean to the left: they are walked, not recursed into."""
        chain = [node]
        while isinstance(chain[-1].left, Binary):
            chain.append(chain[-1].left)
        left = self.value(chain[-1].left, scope)
        for each in reversed(chain):
            left = self.binary(each.op, left, self.value(each.right, scope), each.span)
        return left

    def binary(self, op: str, a: Any, b: Any, span: Span) -> Any:
        """``a op b`` of values."""
        a, b = settled(a), settled(b)
        if type(a) not in USUAL or type(b) not in USUAL or op in SAME or self._interpreter.context.strict:
            if isinstance(a, Frame) or isinstance(b, Frame):
                return self._compared(op, a, b, span)
            a, b = self._number_in(a, b), self._number_in(b, a)
            op = self._checked(op, a, b, span)
        try:
            if type(a) in SCALARS and type(b) in SCALARS and op != "%*%":
                return scalars.binary(op, a, b)
            if not is_matrix_value(a) and not is_matrix_value(b):
                if op == "%*%":
                    raise DMLTypeError("'%*%' multiplies matrices.", hint="Numbers are multiplied by *.")
                if (
                    (isinstance(a, Lazy) or isinstance(b, Lazy))
                    and (op not in BOOLEAN or self._block.defers_comparisons)
                    and not isinstance(a, str)
                    and not isinstance(b, str)
                ):
                    return self._block.node(op, a, b, span=span)
                return scalars.binary(op, self.to_scalar(a, span), self.to_scalar(b, span))
            if op == "%*%":
                return self._product(a, b, span)
        except DMLError as error:
            raise error.at(span)  # noqa: B904 - the same error, with its place
        return self._block.node(op, a, b, span=span)

    def _compared(self, op: str, a: Any, b: Any, span: Span) -> Frame:
        try:
            return compared(op, self._block.force(a), self._block.force(b))
        except DMLError as error:
            raise error.at(span)  # noqa: B904 - the same error, with its place

    def _product(self, a: Any, b: Any, span: Span) -> Any:
        if not (is_matrix_value(a) and is_matrix_value(b)):
            raise DMLTypeError(
                "'%*%' multiplies matrices, and one side is a number.", hint="Numbers are multiplied by *."
            )
        return self._block.node("matmul", a, b, span=span)

    def _checked(self, op: str, a: Any, b: Any, span: Span) -> str:
        strict = self._interpreter.context.strict
        if op in SAME:
            if strict:
                raise DMLTypeError(f"'{op}' is not supported.", span, hint=f"Write {SAME[op]}.")
            op = SAME[op]
        matrix = is_matrix_value(a), is_matrix_value(b)
        for value, other in ((a, matrix[1]), (b, matrix[0])):
            if isinstance(value, Frame | ListValue) or (isinstance(value, str) and other):
                hint = (
                    "toString(X) writes a matrix, as.scalar(X) takes a number out." if isinstance(value, str) else None
                )
                raise DMLTypeError(
                    f"'{op}' cannot combine {with_article(self._kind(a))} and {with_article(self._kind(b))}.",
                    span,
                    hint=hint,
                )
        if strict and all(matrix) and op != "%*%":
            self._refuse_vector_first(op, a, b, span)
        return op

    def _number_in(self, value: Any, other: Any) -> Any:
        """A text that stands beside a matrix as the number that it holds, where it holds one."""
        if isinstance(value, str) and is_matrix_value(other) and not self._interpreter.context.strict:
            number = scalars.number_in(value)
            return value if number is None else number
        return value

    def _kind(self, value: Any) -> str:
        if isinstance(value, Lazy):
            return "matrix" if value.is_matrix else "double"
        return kind_of(value)

    def _refuse_vector_first(self, op: str, a: Any, b: Any, span: Span) -> None:
        left, right = self._block.shape(a), self._block.shape(b)
        if left != right and left != (1, 1) and right[0] >= left[0] and right[1] >= left[1]:
            raise DMLShapeError(
                f"A vector ({left[0]} x {left[1]}) stands to the left of '{op}'.", span, hint="Put the matrix first."
            )

    def _signed(self, node: Unary, scope: Scope) -> Any:
        operand = settled(self.value(node.operand, scope))
        if isinstance(operand, Frame | ListValue):
            raise DMLTypeError(f"'{node.op}' cannot be applied to {with_article(kind_of(operand))}.", node.span)
        if isinstance(operand, Lazy) or is_matrix_value(operand):
            if node.op == "+":
                return operand
            if node.op == "-" or is_matrix_value(operand):
                return self._block.node("neg" if node.op == "-" else "!", operand, span=node.span)
        try:
            return scalars.unary(node.op, self._block.force(operand))
        except DMLError as error:
            raise error.at(node.span)  # noqa: B904 - the same error, with its place

    def _indexed(self, node: Index, scope: Scope) -> Any:
        target = settled(self._variable(node.name, node.span, scope))
        if isinstance(target, ListValue):
            return self._item(target, node, scope)
        if isinstance(target, Frame):
            rows, cols = self.bounds(node, target.shape, scope, target.names)
            return self._frame_part(target, rows, cols, node.span)
        if not is_matrix_value(target):
            raise DMLTypeError(
                f"{node.name} is {with_article(self._kind(target))}, which has no cells to index.", node.span
            )
        rows, cols = self.bounds(node, self._sizes(target, node), scope)
        return self._block.node("index", target, *rows, *cols, span=node.span)

    def _sizes(self, target: Any, node: Index) -> tuple[int, int]:
        """Rows and columns as far as the bounds need them; -1 for a size that no bound needs."""
        rows, cols = self._block.facts_of(target)
        open_rows = _is_open(node.rows)
        open_cols = node.columns is None or _is_open(node.columns)
        if (rows is None and open_rows) or (cols is None and open_cols):
            rows, cols = self._block.shape(target)
        return (-1 if rows is None else rows, -1 if cols is None else cols)

    def bounds(
        self, node: Index, shape: tuple[int, int], scope: Scope, names: list[str] | None = None
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last row, first and last column (from 1) that an index means."""
        everything = Bounds(node.span)
        rows = self._ends(node.rows, shape[0], scope, None)
        return rows, self._ends(node.columns or everything, shape[1], scope, names)

    def _ends(self, bounds: Bounds, size: int, scope: Scope, names: list[str] | None) -> tuple[int, int]:
        if bounds.lower is None and bounds.upper is None:
            return 1, size
        first = 1 if bounds.lower is None else self._position(bounds.lower, scope, names)
        if not bounds.is_range:
            return first, first
        last = size if bounds.upper is None else self._position(bounds.upper, scope, names)
        return first, last

    def _position(self, node: Expression, scope: Scope, names: list[str] | None) -> int:
        found = self.scalar(node, scope)
        if isinstance(found, str):
            if names is None or found not in names:
                hint = f"Its columns are {', '.join(names)}." if names else None
                raise DMLTypeError(
                    f"{found!r} is no place in a matrix." if not names else f"There is no column {found!r}.",
                    node.span,
                    hint=hint,
                )
            return names.index(found) + 1
        if not math.isfinite(found):
            raise DMLShapeError("An index is NaN or infinite.", node.span)
        place: float = found + EPSILON
        return math.floor(place)

    def _item(self, target: ListValue, node: Index, scope: Scope) -> Any:
        if node.columns is not None and self._ends(node.columns, 1, scope, None) != (1, 1):
            raise DMLTypeError(f"{node.name} is a list, which has one column.", node.span)
        try:
            if not node.rows.is_range:
                key = self.scalar(node.rows.lower, scope) if node.rows.lower is not None else None
                return target if key is None else target.items[target.position(key)]
            first, last = self._ends(node.rows, len(target), scope, None)
            target.position(first)
            target.position(last)
        except DMLError as error:
            raise error.at(node.rows.span)  # noqa: B904 - the same error, with its place
        return ListValue(target.items[first - 1 : last], target.names[first - 1 : last])

    def _frame_part(self, frame: Frame, rows: tuple[int, int], cols: tuple[int, int], span: Span) -> Frame:
        for (first, last), size, what in ((rows, frame.shape[0], "row"), (cols, frame.shape[1], "column")):
            if first < 1 or last > size or last < first - 1:
                raise DMLShapeError(
                    f"There is no {what} {first}:{last} in a {frame.shape[0]} x {frame.shape[1]} frame.", span
                )
        return frame.take(slice(rows[0] - 1, rows[1]), range(cols[0] - 1, cols[1]))


WAYS: dict[type, Callable[[Expressions, Any, Scope], Any]] = {
    Constant: Expressions._constant,
    Name: Expressions._named,
    Binary: Expressions._chain,
    Call: Expressions._called,
    Index: Expressions._indexed,
    Unary: Expressions._signed,
    Argument: Expressions._argument,
    Items: Expressions._items,
}
"""How each kind of expression is computed."""


def _is_open(bounds: Bounds) -> bool:
    return (bounds.lower is None and bounds.upper is None) or (bounds.is_range and bounds.upper is None)
