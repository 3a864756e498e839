"""nrow(X) -> 3, 2 * 3 -> 6: what is known while planning is not computed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule, number_of

ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
"""What has one meaning for all numbers. Division, powers and comparisons of scalars are the interpreter's, with DML's types."""


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    first = hop.inputs[0]
    if hop.op in ("nrow", "ncol", "length"):
        size = {"nrow": first.facts.rows, "ncol": first.facts.cols, "length": first.facts.cells}[hop.op]
        if size is not None and first.facts.is_matrix:
            yield dag.literal(size)
        return
    known = [number_of(each) for each in hop.inputs]
    if len(known) == 2 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        yield dag.literal(ARITHMETIC[hop.op](*known))  # type: ignore[arg-type]


RULE = Rule("constant folding", ("nrow", "ncol", "length", *ARITHMETIC), candidates)
