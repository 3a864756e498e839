"""Contingency tables, aggregates by group, outer products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidwater.dml.hops.facts import Facts
from braidwater.dml.operators.base import Attributes, differ, of_shape, operator
from braidwater.dml.operators.cellwise import BINARY
from braidwater.dml.scipy_on_demand import sparse
from braidwater.dml.values import SMALLEST_SPARSE, dense, well_formed
from braidwater.errors import DMLShapeError, DMLValueError


def _table_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    first = inputs[0]
    for other in inputs[1:]:
        if other.is_matrix and other.cells is not None and first.cells is not None and other.cells != first.cells:
            raise DMLShapeError(f"table needs equal shapes, and got {of_shape(first)} and {of_shape(other)}.")
    rows, cols = attributes.get("rows"), attributes.get("cols")
    if first.cells is None or (rows and cols and rows * cols < SMALLEST_SPARSE):
        return Facts.matrix(rows, cols)
    return Facts.matrix(rows, cols, (0, first.cells))


@operator("table", _table_facts, "Counts (or sums of weights) of pairs (i, j); attributes rows, cols pad or cut.")
def table(values: Sequence[Any], attributes: Attributes) -> Any:
    _table_facts([Facts.of(value) for value in values], attributes)
    first = _positions(values[0], "first")
    second = _positions(values[1], "second") if len(values) > 1 else np.zeros(len(first), dtype=np.int64)
    weights = np.ones(len(first))
    if len(values) > 2:
        weights = dense(values[2]).ravel() if hasattr(values[2], "shape") else np.full(len(first), float(values[2]))
    rows = attributes.get("rows") or int(first.max(initial=-1)) + 1
    cols = attributes.get("cols") or int(second.max(initial=-1)) + 1
    inside = (first < rows) & (second < cols)
    if not inside.all():
        first, second, weights = first[inside], second[inside], weights[inside]
    if rows * cols >= SMALLEST_SPARSE and len(first) * 4 < rows * cols:
        return well_formed(sparse.coo_array((weights, (first, second)), shape=(rows, cols)))
    counted = np.bincount(first * cols + second, weights=weights, minlength=rows * cols)
    return counted.astype(np.float64).reshape(rows, cols)


def _positions(value: Any, which: str) -> Any:
    cells = dense(value).ravel()
    bad = ~(cells >= 1)
    if bad.any():
        place = int(np.argmax(bad))
        raise DMLValueError(
            f"The {which} input of table holds {cells[place]:g} in row {place + 1}.",
            hint="Categories are the numbers 1, 2, 3, ...",
        )
    return cells.astype(np.int64) - 1


def _aggregate_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    if differ(inputs[0].rows, inputs[1].cells) and inputs[0].rows != 1:
        raise DMLShapeError(f"aggregate has {of_shape(inputs[0])} values and {of_shape(inputs[1])} groups.")
    return Facts.matrix(attributes.get("ngroups"), inputs[0].cols)


@operator(
    "aggregate", _aggregate_facts, "fn of the rows of each group: (target, groups[, weights]); empty groups are 0."
)
def aggregate(values: Sequence[Any], attributes: Attributes) -> Any:
    target, groups = dense(values[0]), _positions(values[1], "groups")
    _aggregate_facts([Facts.of(target), Facts.of(values[1])], attributes)
    if target.shape[0] == 1 and len(groups) > 1:
        target = target.T
    weights = dense(values[2]).ravel() if len(values) > 2 else np.ones(len(groups))
    size = attributes.get("ngroups") or int(groups.max(initial=-1)) + 1
    inside = groups < size
    groups, target, weights = groups[inside], target[inside], weights[inside]
    counts = np.bincount(groups, weights=weights, minlength=size)
    result = np.zeros((size, target.shape[1]))
    for column in range(target.shape[1]):
        cells = target[:, column]
        result[:, column] = _by_group(attributes["fn"], cells, groups, weights, counts, attributes.get("order", 2))
    return result


def _by_group(function: str, cells: Any, groups: Any, weights: Any, counts: Any, order: int) -> Any:
    size = len(counts)
    if function in ("min", "max"):
        start = np.inf if function == "min" else -np.inf
        found = np.full(size, start)
        (np.minimum if function == "min" else np.maximum).at(found, groups, cells)
        return np.where(counts > 0, found, 0.0)
    if function == "count":
        return counts
    sums = np.bincount(groups, weights=weights * cells, minlength=size)
    if function == "sum":
        return sums
    safe = np.where(counts > 0, counts, 1.0)
    means = sums / safe
    if function == "mean":
        return means
    deviations = cells - means[groups]
    if function in ("variance", "var"):
        squares = np.bincount(groups, weights=weights * deviations**2, minlength=size)
        return squares / np.where(counts > 1, counts - 1, 1.0)
    if function == "centralmoment":
        return np.bincount(groups, weights=weights * deviations**order, minlength=size) / safe
    raise DMLValueError(
        f"aggregate has no function {function!r}.",
        hint="It has sum, count, mean, variance, centralmoment, min and max.",
    )


def _outer_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    column, row = inputs
    if column.cols not in (None, 1) or row.rows not in (None, 1):
        raise DMLShapeError(
            f"outer needs a column and a row, and got {of_shape(column)} and {of_shape(row)}.",
            hint="t(v) makes a row of a column.",
        )
    return Facts.matrix(column.rows, row.cols)


@operator("outer", _outer_facts, "Attribute function (an operator) of every cell of a column with every cell of a row.")
def outer(values: Sequence[Any], attributes: Attributes) -> Any:
    column, row = map(dense, values)
    _outer_facts([Facts.of(column), Facts.of(row)], attributes)
    name = {"min": "pmin", "max": "pmax"}.get(attributes["function"], attributes["function"])
    if name not in BINARY:
        raise DMLValueError(f"outer has no function {name!r}.", hint=f"It has {' '.join(BINARY)}.")
    with np.errstate(all="ignore"):
        return np.asarray(BINARY[name][0](column, row), dtype=np.float64)


def _expanded_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.matrix(inputs[0].rows, attributes["max"])


@operator("rexpand", _expanded_facts, "A column of categories as rows with one 1 each; attributes max, ignore.")
def rexpand(values: Sequence[Any], attributes: Attributes) -> Any:
    cells, width = dense(values[0]).ravel(), attributes["max"]
    inside = (cells >= 1) & (cells < width + 1)
    if not attributes.get("ignore", True) and (cells < 1).any():
        raise DMLValueError("A category is below 1.", hint="ignore=TRUE leaves such rows empty.")
    rows = np.flatnonzero(inside)
    places = (rows, cells[inside].astype(np.int64) - 1)
    return well_formed(sparse.coo_array((np.ones(len(rows)), places), shape=(len(cells), width)))
