"""The plain way to compute a block: every operator's kernel, inputs first. What the optimised ways are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidwater.dml.hops import Dag, Hop, reachable
from braidwater.dml.operators import OPERATORS
from braidwater.errors import DMLError


def evaluate_plainly(dag: Dag, roots: Sequence[Hop]) -> list[Any]:
    """The values of `roots`, each operator computed once, nothing rewritten."""
    values: dict[int, Any] = {}
    for hop in reachable(roots):
        values[hop.number] = _value(dag, hop, values)
    return [values[root.number] for root in roots]


def _value(dag: Dag, hop: Hop, values: dict[int, Any]) -> Any:
    if hop.op == "leaf":
        return dag.values[hop.attributes["name"]]
    if hop.op == "literal":
        return hop.attributes["value"]
    try:
        with np.errstate(all="ignore"):
            return OPERATORS[hop.op].kernel([values[each.number] for each in hop.inputs], hop.attributes)
    except DMLError as error:
        raise error.at(hop.span) from None
