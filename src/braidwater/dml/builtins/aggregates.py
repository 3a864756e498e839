"""Sums, means, extremes, variances; of all cells, of rows, of columns; running ones."""

from __future__ import annotations

from typing import Any

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.operators import OPERATORS
from braidwater.dml.operators.aggregates import SUFFIX

NAMES = [
    "sum", "prod", "var", "sd",
    *(f"{side}{suffix}" for suffix in SUFFIX.values() for side in ("row", "col")),
    "rowIndexMax", "rowIndexMin", "cumsum", "cumprod", "cummin", "cummax", "rowcumsum", "cumsumprod", "trace",
]  # fmt: skip
ALIASES = {"trace": ("tr",)}


def _declare(name: str) -> None:
    @builtin(f"{name}(X: matrix)", OPERATORS[name].doc, *ALIASES.get(name, ()))
    def run(caller: Caller, X: Any) -> Any:
        return caller.node(name, X)


for _name in NAMES:
    _declare(_name)


@builtin(
    "mean(X: matrix, W: matrix = none)", "Mean of all cells; or of those of a column, each as often as W says.", "avg"
)
def mean(caller: Caller, X: Any, W: Any) -> Any:
    if W is None:
        return caller.node("mean", X)
    return caller.node("/", caller.node("sum", caller.node("*", X, W)), caller.node("sum", W))
