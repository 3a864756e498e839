"""Matrices made, joined, reordered, counted."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.interpreter.lazy import is_matrix_value
from braidwater.dml.interpreter.printing import text_of
from braidwater.dml.values import Frame, ListValue, kind_of, with_article
from braidwater.errors import DMLShapeError, DMLTypeError, DMLValueError


@builtin("matrix(data: value, rows: int = none, cols: int = none, byrow: boolean = TRUE)",
         "A matrix of one number, of the numbers in a string (separated by spaces), or with the cells of another.")  # fmt: skip
def matrix(caller: Caller, data: Any, rows: int | None, cols: int | None, byrow: bool) -> Any:
    for size, what in ((rows, "rows"), (cols, "cols")):
        if size is not None and size < 0:
            raise DMLShapeError(f"A matrix cannot have {size} {what}.")
    if isinstance(data, Frame | ListValue):
        raise DMLTypeError(
            f"matrix cannot be made of {with_article(kind_of(data))}.", hint="as.matrix(F) takes a frame's numbers."
        )
    if is_matrix_value(data):
        return _reshaped(caller, data, rows, cols, byrow)
    if rows is None or cols is None:
        raise DMLTypeError("matrix needs rows and cols.", hint="matrix(0, rows=10, cols=2)")
    if isinstance(data, str):
        return _written(data, rows, cols, byrow)
    return caller.node("fill", data, rows, cols)


def _reshaped(caller: Caller, data: Any, rows: int | None, cols: int | None, byrow: bool) -> Any:
    if rows is None or cols is None:
        height, width = caller.shape(data)
        if rows is None and cols is None:
            return data
        rows = rows if rows is not None else height * width // max(cols or 1, 1)
        cols = cols if cols is not None else height * width // max(rows, 1)
    return caller.node("reshape", data, rows, cols, byrow=byrow)


def _written(text: str, rows: int, cols: int, byrow: bool) -> Any:
    try:
        cells = np.array([float(word) for word in text.split()])
    except ValueError:
        wrong = next(word for word in text.split() if not _is_number(word))
        raise DMLValueError(
            f"{wrong!r} in the string of matrix is no number.", hint="Numbers are separated by spaces."
        ) from None
    if len(cells) == 1:
        return np.full((rows, cols), cells[0])
    if len(cells) != rows * cols:
        raise DMLShapeError(f"{len(cells)} numbers do not make a {rows} x {cols} matrix.")
    return np.array(cells.reshape((rows, cols), order="C" if byrow else "F"), order="C")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


@builtin("rand(rows: int = 1, cols: int = 1, min: double = 0, max: double = 1, sparsity: double = 1, pdf: string = 'uniform', "
         "lambda: double = 1, seed: int = -1)",
         "Random cells (uniform, normal or poisson). The same seed gives the same matrix.", "Rand")  # fmt: skip
def rand(
    caller: Caller, rows: int, cols: int, min: float, max: float, sparsity: float, pdf: str, lambda_: float, seed: int
) -> Any:
    if rows < 0 or cols < 0:
        raise DMLShapeError(f"A matrix cannot have {rows} x {cols} cells.")
    if not 0 <= sparsity <= 1:
        raise DMLValueError(f"sparsity={sparsity:g} is not possible; it must be between 0 and 1.")
    if min > max:
        raise DMLValueError(f"rand has min={min:g} above max={max:g}.")
    seed = caller.context.draw_seed() if seed == -1 else abs(seed)
    return caller.node(
        "rand", rows=rows, cols=cols, min=min, max=max, sparsity=sparsity, pdf=pdf, seed=seed, **{"lambda": lambda_}
    )


@builtin(
    "seq(from: double, to: double, incr: double = none)",
    "A column of evenly spaced numbers; the step is 1 or -1 where left out.",
)
def seq(caller: Caller, to: float, incr: float | None, **named: float) -> Any:
    first = named["from"]  # a keyword of Python
    return caller.node("seq", first, to, incr if incr is not None else (1.0 if first <= to else -1.0))


@builtin("sample(range: int, size: int, replacement: value = FALSE, seed: int = -1)",
         "`size` numbers drawn from 1 to `range`. The third argument may also be the seed.")  # fmt: skip
def sample(caller: Caller, range: int, size: int, replacement: Any, seed: int) -> Any:
    replacement = caller.force(replacement)
    if not isinstance(replacement, bool):
        replacement, seed = False, int(replacement)
    if size > range and not replacement:
        raise DMLValueError(
            f"{size} of {range} numbers cannot be drawn without replacement.", hint="sample(range, size, TRUE)"
        )
    seed = caller.context.draw_seed() if seed == -1 else abs(seed)
    return caller.node("sample", range=range, size=size, replacement=replacement, seed=seed)


@builtin("t(X: matrix)", "Transpose.")
def transpose(caller: Caller, X: Any) -> Any:
    return caller.node("t", X)


@builtin("diag(X: matrix)", "A column as the diagonal of a matrix, or the diagonal of a square matrix as a column.")
def diag(caller: Caller, X: Any) -> Any:
    return caller.node("diag", X)


@builtin("rev(X: matrix)", "The rows in reverse order.")
def rev(caller: Caller, X: Any) -> Any:
    return caller.node("rev", X)


@builtin("roll(X: matrix, shift: int)", "The rows moved down; what falls off comes back at the top.")
def roll(caller: Caller, X: Any, shift: int) -> Any:
    return caller.node("roll", X, shift)


def _joined(caller: Caller, op: str, items: list[tuple[str | None, Any]]) -> Any:
    values = [value for _, value in items if not isinstance(value, bool)]
    if len(values) == 1 and isinstance(values[0], ListValue):
        values = list(values[0].items)
    if not values:
        raise DMLTypeError(f"{caller.name} needs at least one matrix.")
    if any(isinstance(value, ListValue) for value in values):
        return _appended(caller, values)
    if any(isinstance(value, Frame) for value in values):
        return _joined_frames(caller, op, [caller.force(value) for value in values])
    if any(isinstance(value, str) for value in values) and not any(map(is_matrix_value, values)):
        return "\n".join(text_of(caller.force(value)) for value in values)
    for value in values:
        if isinstance(value, str):
            raise DMLTypeError(f"{caller.name} joins matrices, and got the string {value!r}.")
    matrices = [value if is_matrix_value(value) else caller.node("as.matrix", value) for value in values]
    return matrices[0] if len(matrices) == 1 else caller.node(op, *matrices)


def _appended(caller: Caller, values: list[Any]) -> ListValue:
    items: list[Any] = []
    names: list[str | None] = []
    for value in values:
        items.extend(value.items if isinstance(value, ListValue) else [value])
        names.extend(value.names if isinstance(value, ListValue) else [None])
    return ListValue(items, names)


def _joined_frames(caller: Caller, op: str, values: list[Any]) -> Frame:
    frames = [value if isinstance(value, Frame) else Frame.of(list(np.atleast_2d(value).T)) for value in values]
    first = frames[0]
    if op == "cbind":
        if any(frame.shape[0] != first.shape[0] for frame in frames):
            raise DMLShapeError(
                f"cbind needs as many rows, and got {', '.join(str(frame.shape[0]) for frame in frames)}."
            )
        names = [name for frame in frames for name in frame.names]
        names = names if len(set(names)) == len(names) else [f"C{i + 1}" for i in range(len(names))]
        return Frame([c for f in frames for c in f.columns], names, [kind for f in frames for kind in f.types])
    if any(frame.shape[1] != first.shape[1] for frame in frames):
        raise DMLShapeError(
            f"rbind needs as many columns, and got {', '.join(str(frame.shape[1]) for frame in frames)}."
        )
    kinds = [
        first.types[c] if all(f.types[c] == first.types[c] for f in frames) else "string" for c in range(first.shape[1])
    ]
    columns = [np.concatenate([f.columns[c].astype(object) for f in frames]) for c in range(first.shape[1])]
    return Frame.of(columns, first.names, kinds)


@builtin("cbind(items...: value)", "Matrices or frames side by side; strings as lines; lists one after the other.")
def cbind(caller: Caller, items: list[tuple[str | None, Any]]) -> Any:
    return _joined(caller, "cbind", items)


@builtin(
    "append(items...: value)",
    "A list with items added at its end (those of a list of one, with its name); else what cbind does.",
)
def append(caller: Caller, items: list[tuple[str | None, Any]]) -> Any:
    first = items[0][1] if items else None
    if isinstance(first, ListValue):
        added = [entry for name, value in items[1:] for entry in _entries(name, value)]
        return ListValue((*first.items, *(value for _, value in added)), (*first.names, *(name for name, _ in added)))
    return _joined(caller, "cbind", items)


def _entries(name: str | None, value: Any) -> list[tuple[str | None, Any]]:
    """A list of one item, which may have a name, stands for the item."""
    if isinstance(value, ListValue) and len(value) == 1:
        return [(value.names[0], value.items[0])]
    return [(name, value)]


@builtin(
    "rbind(items...: value)", "Matrices or frames one below the other; strings as lines; lists one after the other."
)
def rbind(caller: Caller, items: list[tuple[str | None, Any]]) -> Any:
    return _joined(caller, "rbind", items)


@builtin("order(target: matrix, by: value = 1, decreasing: boolean = FALSE, index.return: boolean = FALSE)",
         "Rows sorted (stable) by one or several columns; or, with index.return, where the rows were.")  # fmt: skip
def order(caller: Caller, target: Any, by: Any, decreasing: bool, index_return: bool) -> Any:
    columns = caller.array(by).ravel() if is_matrix_value(by) else [caller.force(by)]
    return caller.node(
        "order", target, by=tuple(int(each) for each in columns), decreasing=decreasing, index_return=index_return
    )


@builtin("removeEmpty(target: value, margin: string, select: matrix = none, empty.return: boolean = TRUE)",
         "Rows or columns that are not all zero, or those where select is not zero. Of nothing, one empty row is "
         "left.")  # fmt: skip
def remove_empty(caller: Caller, target: Any, margin: str, select: Any, empty_return: bool) -> Any:
    if margin not in ("rows", "cols"):
        raise DMLValueError(f'margin={margin!r} is not possible; it must be "rows" or "cols".')
    if isinstance(target, Frame):
        return _frame_without_empty(caller, target, margin, select)
    if not is_matrix_value(target):
        raise DMLTypeError(
            f"removeEmpty needs a matrix or frame, and got {with_article(kind_of(caller.force(target)))}."
        )
    inputs = [target] if select is None else [target, select]
    return caller.node("removeEmpty", *inputs, margin=margin, empty_return=empty_return)


def _frame_without_empty(caller: Caller, frame: Frame, margin: str, select: Any) -> Frame:
    """Rows or columns of which some cell is neither missing nor zero."""
    filled = np.array(
        [[cell not in (None, "", "0", 0) and cell == cell for cell in column.tolist()] for column in frame.columns]
    )
    keep = filled.any(axis=0 if margin == "rows" else 1) if select is None else caller.array(select).ravel() != 0
    if margin == "rows":
        return frame.take(keep, range(len(frame.names)))
    return frame.take(slice(None), np.flatnonzero(keep).tolist())


@builtin(
    "replace(target: value, pattern: scalar, replacement: scalar)",
    "Every cell that equals pattern (also NaN) replaced.",
)
def replace(caller: Caller, target: Any, pattern: Any, replacement: Any) -> Any:
    if isinstance(target, str):
        return target.replace(str(pattern), str(replacement))
    if isinstance(target, Frame):
        wanted, new = str(pattern), str(replacement)
        columns = [
            np.array([new if str(cell) == wanted else cell for cell in column.tolist()], dtype=object)
            for column in target.columns
        ]
        return Frame.of(columns, target.names, target.types)
    if not is_matrix_value(target):
        value = caller.force(target)
        return replacement if value == pattern or (value != value and pattern != pattern) else value
    return caller.node("replace", target, float(pattern), float(replacement))


@builtin("table(i: matrix, j: value = none, more...: value)",
         "Counts of the pairs (i, j): table(i, j), table(i, j, weights), table(i, j, rows, cols), "
         "table(i, j, weights, rows, cols).",
         "ctable")  # fmt: skip
def table(caller: Caller, i: Any, j: Any, more: list[tuple[str | None, Any]]) -> Any:
    rest = [value for name, value in more if name in (None, "rows", "cols") and not isinstance(value, bool)]
    named = {name: value for name, value in more if name not in (None, "rows", "cols")}
    for name in named:
        if name not in ("weights", "odim1", "odim2", "outputEmptyBlocks"):
            raise DMLTypeError(f"table has no parameter {name!r}.", hint="It has weights, odim1 and odim2.")
    if len(rest) > 3:
        raise DMLTypeError("table is given too many arguments.")
    weights = named.get("weights", rest[0] if len(rest) in (1, 3) else None)
    sizes = [named["odim1"], named["odim2"]] if "odim2" in named else rest[-2:] if len(rest) >= 2 else []
    if j is not None and not is_matrix_value(j):
        if len(rest) == 1 and not is_matrix_value(rest[0]):  # table(i, rows, cols): counts of one column
            j, weights, sizes = None, None, [j, rest[0]]
        else:
            j = caller.node("fill", caller.force(j), *caller.shape(i))
    inputs = [value for value in (i, j, weights) if value is not None]
    rows, cols = (int(caller.force(size)) for size in sizes) if sizes else (0, 0)
    attributes = {} if rows <= 0 else {"rows": rows, "cols": cols}
    return caller.node("table", *inputs, **attributes)


@builtin("aggregate(target: matrix, groups: matrix, weights: matrix = none, fn: string, ngroups: int = none, order: scalar = 2)",
         "fn (sum, count, mean, variance, min, max, centralmoment of an order) of the cells of each "
    "group 1, 2, ...; 0 for empty groups.",
         "groupedAggregate")  # fmt: skip
def aggregate(caller: Caller, target: Any, groups: Any, weights: Any, fn: str, ngroups: int | None, order: Any) -> Any:
    inputs = [target, groups] if weights is None else [target, groups, weights]
    sizes = {} if ngroups is None else {"ngroups": ngroups}
    return caller.node("aggregate", *inputs, fn=fn, order=int(order), **sizes)


@builtin(
    "outer(column: matrix, row: matrix, function: string)",
    "An operator of every cell of a column with every cell of a row.",
)
def outer(caller: Caller, column: Any, row: Any, function: str) -> Any:
    rows, cols = caller.shape(row)
    if rows > 1 and caller.shape(column) in (
        (rows, 1),
        (rows, cols),
    ):  # rows of a matrix are no row: cell by cell, as there
        return caller.node(function, column, row)
    return caller.node("outer", column, row, function=function)


@builtin(
    "rexpand(target: matrix, max: int, dir: string = 'cols', ignore: boolean = TRUE)",
    "A column of categories as rows with one 1 each.",
)
def rexpand(caller: Caller, target: Any, max: int, dir: str, ignore: bool) -> Any:
    found = caller.node("rexpand", target, max=max, ignore=ignore)
    return found if dir == "cols" else caller.node("t", found)


@builtin(
    "lower.tri(target: matrix, diag: boolean = FALSE, values: boolean = FALSE)",
    "1 (or the cells) below the diagonal, else 0.",
)
def lower_tri(caller: Caller, target: Any, diag: bool, values: bool) -> Any:
    return caller.node("triangle", target, lower=True, diag=diag, values=values)


@builtin(
    "upper.tri(target: matrix, diag: boolean = FALSE, values: boolean = FALSE)",
    "1 (or the cells) above the diagonal, else 0.",
)
def upper_tri(caller: Caller, target: Any, diag: bool, values: bool) -> Any:
    return caller.node("triangle", target, lower=False, diag=diag, values=values)


@builtin(
    "unique(target: matrix, dir: string = 'rc')",
    "Distinct cells, sorted: of all as a column (rc), of each row (r), of each column (c).",
)
def unique(caller: Caller, target: Any, dir: str) -> Any:
    return caller.node("unique", target, dir=dir)
