"""Running sums, products and extremes down each column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidwater.dml.hops.facts import Facts
from braidwater.dml.operators.base import Attributes, Kernel, of_shape, operator, same_facts
from braidwater.dml.values import dense
from braidwater.errors import DMLShapeError

RUNNING = {
    "cumsum": (np.cumsum, "sums"),
    "cumprod": (np.cumprod, "products"),
    "cummin": (np.minimum.accumulate, "minima"),
    "cummax": (np.maximum.accumulate, "maxima"),
}


def _kernel(name: str) -> Kernel:
    return lambda values, attributes: RUNNING[name][0](dense(values[0]), axis=0)  # type: ignore[operator]


for _name, (_, _doc) in RUNNING.items():
    operator(_name, same_facts, f"Running {_doc} down each column.")(_kernel(_name))


@operator("rowcumsum", same_facts, "Running sums along each row.")
def row_cumsum(values: Sequence[Any], attributes: Attributes) -> Any:
    return np.cumsum(dense(values[0]), axis=1)


def _pair_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    if inputs[0].cols not in (None, 2):
        raise DMLShapeError(f"cumsumprod needs two columns, and this matrix is {of_shape(inputs[0])}.")
    return Facts.matrix(inputs[0].rows, 1)


@operator("cumsumprod", _pair_facts, "z[i] = x[i] + y[i] * z[i - 1] for the columns x and y.")
def cumsumprod(values: Sequence[Any], attributes: Attributes) -> Any:
    matrix = dense(values[0])
    _pair_facts([Facts.of(matrix)], attributes)
    result, last = np.empty((len(matrix), 1)), 0.0
    for row, (add, factor) in enumerate(matrix.tolist()):
        last = add + factor * last
        result[row, 0] = last
    return result
