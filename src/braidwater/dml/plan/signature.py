"""What a plan depends on: operators, sizes, formats, how full matrices are; not the values. Equal signatures share a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2
from types import MappingProxyType
from typing import Any

import numpy as np

from braidwater.dml.hops import Dag, Facts, Hop
from braidwater.dml.hops.facts import Scalar, is_csr

SPECIAL = (0, 1, -1, 2, 0.5)
"""Numbers that rules look for. Any other is a parameter of the plan, so that a step length that changes with each turn of a loop
does not make a new plan each time."""


def signature(order: Sequence[Hop], roots: Sequence[Hop], values: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """The key of a plan, or None where an attribute cannot be compared. Cost: about a microsecond an operator."""
    place = {hop: number for number, hop in enumerate(order)}
    parts: list[Any] = []
    for hop in order:
        facts = hop.facts
        if hop.op == "leaf":
            parts.append(("leaf", *format_of(values[hop.attributes["name"]]), facts.rows, facts.cols, bucket(facts)))
        elif hop.op == "literal":
            parts.append(("literal", type(facts.value), facts.value if is_special(facts.value) else None))
        else:
            parts.append((hop.op, facts.rows, facts.cols, *[place[each] for each in hop.inputs]))
            if hop.attributes:
                parts.append(tuple(sorted(hop.attributes.items())))
    key = (*parts, *[place[root] for root in roots])
    try:
        hash(key)
    except TypeError:
        return None
    return key


def abstracted(order: Sequence[Hop], roots: Sequence[Hop], dag: Dag) -> list[Hop]:
    """The roots again in a fresh `dag`, without values: leaves and parameters are named by their place in `order`."""
    made: dict[Hop, Hop] = {}
    for place, hop in enumerate(order):
        facts = hop.facts
        attributes = hop.attributes
        if hop.op == "leaf":
            attributes = MappingProxyType({"name": hop.attributes["name"], "place": place})
            facts = Facts.scalar() if facts.kind == "scalar" else facts
        elif hop.op == "literal" and not is_special(facts.value):
            attributes = MappingProxyType({"name": _written(facts.value), "place": place})
            made[hop] = dag.adopt("leaf", (), attributes, Facts.scalar(), hop.span)
            continue
        made[hop] = dag.adopt(hop.op, tuple(made[each] for each in hop.inputs), attributes, facts, hop.span)
    return [made[root] for root in roots]


def is_special(value: Scalar | None) -> bool:
    """Whether a plan may depend on this very value."""
    return isinstance(value, bool | str) or value in SPECIAL


def format_of(value: Any) -> tuple[str, ...]:
    """How a value is held: plans for other formats are other plans."""
    if isinstance(value, np.ndarray):
        return ("dense",)
    if is_csr(value):
        return ("sparse",)
    return (type(value).__name__,)


def bucket(facts: Facts) -> int | None:
    """Sparsity to a factor of two; None where nobody counted."""
    return None if facts.nnz is None or not facts.cells else round(log2(max(facts.nnz[1], 1) / facts.cells))


def _written(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
