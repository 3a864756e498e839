"""Assignments to cells: ``X[i, j] = v`` for matrices, frames and lists.

Values behave as if they were copied when they are assigned. A matrix is changed in place where nobody but its variable holds it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.interpreter.lazy import is_matrix_value, settled
from braidwater.dml.interpreter.scope import Scope, unknown
from braidwater.dml.operators.indexing import assign
from braidwater.dml.syntax import Span
from braidwater.dml.syntax.nodes import Index
from braidwater.dml.values import Frame, ListValue, is_matrix, kind_of, with_article
from braidwater.errors import DMLError, DMLShapeError, DMLTypeError

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter

# references to a matrix that only its variable holds: the variable, our local name, getrefcount's argument
SOLE_HOLDER = 3


def assign_cells(interpreter: Interpreter, target: Index, new: Any, scope: Scope) -> None:
    """``target = new`` for an indexed target."""
    if target.name not in scope.variables:
        raise unknown("variable", target.name, list(scope.variables), target.span)
    held = settled(scope.variables[target.name])
    try:
        if isinstance(held, ListValue):
            scope.variables[target.name] = _list(interpreter, held, target, new, scope)
        elif isinstance(held, Frame):
            scope.variables[target.name] = _frame(interpreter, held, target, new, scope)
        elif is_matrix_value(held):
            del held
            _matrix(interpreter, target, new, scope)
        else:
            raise DMLTypeError(f"{target.name} is {with_article(kind_of(held))}, which has no cells to assign to.")
    except DMLError as error:
        raise error.at(target.span)  # noqa: B904 - the same error, with its place


def _matrix(interpreter: Interpreter, target: Index, new: Any, scope: Scope) -> None:
    block = interpreter.block
    new = settled(new)
    shape = block.shape(scope.variables[target.name])
    rows, cols = interpreter.expressions.bounds(target, shape, scope)
    if not is_matrix_value(new):
        new = interpreter.expressions.to_scalar(new, target.span)
        if isinstance(new, str):
            raise DMLTypeError(f"A cell of a matrix cannot hold the string {new!r}.")
        if interpreter.context.strict and (rows[0] != rows[1] or cols[0] != cols[1]):
            raise DMLShapeError(f"A number cannot be put into {rows[1] - rows[0] + 1} x {cols[1] - cols[0] + 1} cells.")
    new = block.force(new)
    put(interpreter, target.name, rows, cols, new, scope, target.span)


def put(
    interpreter: Interpreter,
    name: str,
    rows: tuple[int, int],
    cols: tuple[int, int],
    new: Any,
    scope: Scope,
    span: Span | None,
) -> None:
    """Replace cells (first and last row, first and last column) of the matrix in a variable; `new` is computed."""
    if scope.recorded is not None and name in scope.recorded:
        scope.recorded[name].append((rows, cols, new))
    block = interpreter.block
    block.flush()  # an operator that still has to read the matrix would keep it from being changed in place
    matrix = scope.variables[name] = settled(scope.variables[name])
    if not is_matrix(matrix):
        scope.variables[name] = block.node("leftindex", matrix, new, *rows, *cols, span=span)
        return
    references = sys.getrefcount(matrix)
    if isinstance(matrix, np.ndarray) and not _is_ours(matrix, references):
        matrix = np.array(matrix, order="C")
    scope.variables[name] = assign(matrix, new, (*rows, *cols))


def _is_ours(matrix: np.ndarray[Any, Any], references: int) -> bool:
    return references <= SOLE_HOLDER and matrix.base is None and matrix.flags.writeable


def _list(interpreter: Interpreter, held: ListValue, target: Index, new: Any, scope: Scope) -> ListValue:
    if target.columns is not None or target.rows.is_range or target.rows.lower is None:
        raise DMLTypeError('One item of a list is assigned at a time: L[i] = x or L["name"] = x.')
    key = interpreter.expressions.scalar(target.rows.lower, scope)
    if isinstance(key, str) and key not in held.names:
        return ListValue((*held.items, new), (*held.names, key))
    if not isinstance(key, str) and int(key) == len(held) + 1:
        return ListValue((*held.items, new), (*held.names, None))
    return held.replaced(held.position(key), new)


def _frame(interpreter: Interpreter, held: Frame, target: Index, new: Any, scope: Scope) -> Frame:
    rows, cols = interpreter.expressions.bounds(target, held.shape, scope, held.names)
    new = interpreter.block.force(new)
    height, width = rows[1] - rows[0] + 1, cols[1] - cols[0] + 1
    if rows[0] < 1 or cols[0] < 1 or rows[1] > held.shape[0] or cols[1] > held.shape[1]:
        raise DMLShapeError(
            f"Rows {rows[0]}:{rows[1]}, columns {cols[0]}:{cols[1]} lie beyond a {held.shape[0]} x {held.shape[1]} frame."
        )
    if isinstance(new, Frame) and new.shape != (height, width):
        raise DMLShapeError(f"A {new.shape[0]} x {new.shape[1]} frame cannot be put into {height} x {width} cells.")
    columns, types = list(held.columns), list(held.types)
    for offset in range(width):
        place = cols[0] - 1 + offset
        cells = new.columns[offset] if isinstance(new, Frame) else new
        types[place] = new.types[offset] if isinstance(new, Frame) and (height == held.shape[0]) else types[place]
        column = columns[place].astype(object)
        column[rows[0] - 1 : rows[1]] = cells
        columns[place] = column
    return Frame.of(columns, held.names, types)
