"""Matrices that are as long as a streamed table and too large to be kept: their expression is kept instead.

``X = cbind(X, matrix(1, nrow(X), 1))`` over a table is no matrix but a recipe for its rows. Whoever reads it later reads the
table, and the recipe becomes a part of that scan. What the recipe needs as a whole (means of the columns, say) is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from braidwater.dml.context import Context
from braidwater.dml.exchange import LARGEST_SENT
from braidwater.dml.hops import Dag, Hop, reachable, to_text
from braidwater.dml.plan.cost import cells
from braidwater.dml.plan.scan import aligned_inputs, can_align, constant_inputs
from braidwater.dml.plan.scans import WIDE
from braidwater.dml.values import is_streamed
from braidwater.options import format_bytes

LARGEST_SHARE = 0.25  # of the memory option: what takes less is computed and held


class DeferredMatrix:
    """An expression over streamed tables, of known `shape`; `bytes` are what the matrix would take in memory."""

    is_streamed_matrix = True

    def __init__(self, dag: Dag, hop: Hop) -> None:
        self.dag = dag
        self.hop = hop
        self.shape = (hop.facts.rows or 0, hop.facts.cols or 0)
        self.name = to_text(hop)

    @property
    def bytes(self) -> int:
        return self.shape[0] * self.shape[1] * 8


def has_deferred(dag: Dag) -> bool:
    """Whether a block reads matrices that are expressions."""
    return any(type(value) is DeferredMatrix for value in dag.values.values())


def expanded(dag: Dag, roots: Sequence[Hop]) -> tuple[Dag, list[Hop]]:
    """The block with expressions in place of the leaves that stand for them."""
    other = Dag(dag.operators)
    leaves: dict[int, Hop] = {}
    made: dict[Hop, Hop] = {}
    for hop in reachable(roots):
        value = dag.values.get(hop.attributes["name"]) if hop.op == "leaf" else None
        if type(value) is DeferredMatrix:
            made[hop] = copied(value.dag, value.hop, other, leaves)
        else:
            made[hop] = _copy(hop, dag, other, made, leaves)
    return other, [made[root] for root in roots]


def copied(dag: Dag, root: Hop, other: Dag, leaves: dict[int, Hop]) -> Hop:
    """An expression in another dag; `leaves` are those it has already, by the identity of their values."""
    made: dict[Hop, Hop] = {}
    for hop in reachable([root]):
        made[hop] = _copy(hop, dag, other, made, leaves)
    return made[root]


def to_defer(dag: Dag, order: Sequence[Hop], roots: Sequence[Hop], context: Context) -> tuple[list[Hop], list[Hop]]:
    """The roots of a block that are kept as expressions, and what these need to be computed first."""
    flowing = _flowing(dag, order)
    if not flowing:
        return [], []
    found = [root for root in dict.fromkeys(roots) if root.op != "leaf" and _is_large(root, flowing, context)]
    needed: dict[Hop, None] = {}
    inside = [hop for hop in reachable(found) if hop in flowing or hop in found]
    for hop in inside:
        needed.update(
            dict.fromkeys(each for each in hop.inputs if each not in flowing and each.op not in ("leaf", "literal"))
        )
    return found, list(needed)


def deferred(dag: Dag, leaves: dict[str, Any], root: Hop, computed: dict[Hop, Any]) -> DeferredMatrix:
    """The matrix that a root stands for, when what it needs was `computed`; `leaves` are the values that the block had."""
    own = Dag(dag.operators)
    made: dict[Hop, Hop] = {}
    waiting = [root]
    while waiting:
        hop = waiting[-1]
        inputs = () if hop in computed else hop.inputs
        missing = [each for each in inputs if each not in made]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if hop in made:
            continue
        if hop in computed or hop.op == "leaf":
            value = computed[hop] if hop in computed else leaves[hop.attributes["name"]]
            made[hop] = _leaf(value, own, hop)
        else:
            made[hop] = own.adopt(hop.op, tuple(made[each] for each in inputs), hop.attributes, hop.facts, hop.span)
    return DeferredMatrix(own, made[root])


def whole(value: Any, context: Context) -> Any:
    """A value for those outside: an expression is computed, which raises BudgetError where its cells do not fit."""
    if type(value) is not DeferredMatrix:
        return value
    from braidwater.dml.runtime.streamed import gathered  # tables are slow to import

    return gathered(value, context, value.hop)


def note(matrix: DeferredMatrix) -> str:
    """What EXPLAIN says of it."""
    rows, cols = matrix.shape
    return (
        f"{matrix.name}, {rows} x {cols}, {format_bytes(matrix.bytes)}, is not kept: whoever reads it reads the table"
    )


def _flowing(dag: Dag, order: Sequence[Hop]) -> dict[Hop, int]:
    """Streamed matrices and what follows from them row by row, with the columns of the widest of these matrices."""
    flowing: dict[Hop, int] = {}
    for hop in order:
        if hop.op == "leaf":
            if is_streamed(dag.values[hop.attributes["name"]]):
                flowing[hop] = hop.facts.cols or 1
        elif can_align(hop) and hop.facts.rows is not None:
            rows = hop.facts.rows
            along = any(each in flowing for each in aligned_inputs(hop, rows))
            if along and not any(each in flowing for each in constant_inputs(hop, rows)):
                flowing[hop] = max(flowing.get(each, 0) for each in hop.inputs)
    return flowing


def _is_large(root: Hop, flowing: dict[Hop, int], context: Context) -> bool:
    """What does not fit at all; and what takes much of the memory, or would have to travel from where the table lies, unless it
    is narrow: a column that a loop changes in each turn would become an expression of all turns, and is better spilled."""
    inner = root.inputs[0] if root.op == "t" else root
    if inner not in flowing:
        return False
    size, cols = cells(root.facts) * 8, inner.facts.cols or 1
    if context.elsewhere and inner.op == "index":  # columns of a table that lies there: no work to have them again
        return True
    held = LARGEST_SENT if context.elsewhere else context.memory * LARGEST_SHARE
    return size > context.memory or (size > held and cols > 1 and cols * WIDE >= flowing[inner])


def _copy(hop: Hop, dag: Dag, other: Dag, made: dict[Hop, Hop], leaves: dict[int, Hop]) -> Hop:
    if hop.op != "leaf":
        return other.adopt(hop.op, tuple(made[each] for each in hop.inputs), hop.attributes, hop.facts, hop.span)
    value = dag.values[hop.attributes["name"]]
    if id(value) not in leaves:
        leaves[id(value)] = _leaf(value, other, hop)
    return leaves[id(value)]


def _leaf(value: Any, dag: Dag, hop: Hop) -> Hop:
    if not hasattr(value, "shape"):
        return dag.literal(value, hop.span)
    name = str(hop.attributes["name"]) if hop.op == "leaf" else "part"
    free = name if name not in dag.values else f"{name}_{len(dag.values) + 1}"
    return dag.leaf(free, value, hop.span)
