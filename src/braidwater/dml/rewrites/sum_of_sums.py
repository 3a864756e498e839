"""sum(rowSums(X)) -> sum(X), rowSums(v) -> v for a column v, mean, minimum and maximum alike."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import Rule

PARTS = {
    "sum": ("rowSums", "colSums"),
    "mean": ("rowMeans", "colMeans"),
    "min": ("rowMins", "colMins"),
    "max": ("rowMaxs", "colMaxs"),
}
ROWS = ("rowSums", "rowMeans", "rowMins", "rowMaxs")
COLUMNS = ("colSums", "colMeans", "colMins", "colMaxs")


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    inner = hop.inputs[0]
    if hop.op in PARTS:
        if inner.op in PARTS[hop.op]:
            yield dag.node(hop.op, inner.inputs[0])
    elif (inner.facts.cols if hop.op in ROWS else inner.facts.rows) == 1:
        yield inner


RULE = Rule("sum of sums", (*PARTS, *ROWS, *COLUMNS), candidates)
