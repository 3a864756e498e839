"""What does not change from one turn of a loop to the next is computed once: loop-invariant code motion while running.

A block that comes again with some of its matrices being the very same objects has invariant operators: those that depend on
such matrices alone. They are computed on the second turn and kept, like a variable that the script had set before the loop.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from braidwater.dml.hops import Dag, Hop, reachable
from braidwater.dml.hops.node import VOLATILE
from braidwater.dml.plan.cost import memory, seconds

WORTH = 200e-6  # seconds that a turn must save
SMALLER = 4  # a kept value takes at most this part of the matrices that it is made of: what is large is cheaper to fuse
KEPT = 64  # values; each holds on to the matrices that it was made of
LARGE = 1 << 17  # cells of the largest leaf, below which nothing can be worth it

Compute = Callable[[Dag, Sequence[Hop]], list[Any]]


class Reuse:
    """The invariant values of one run.

    A kept value holds on to its matrices, so that nobody changes them in place: whoever wants to, sees that another holds them.
    """

    def __init__(self) -> None:
        self._seen: dict[Any, list[Any]] = {}
        self._places: dict[Any, list[int]] = {}
        self._kept: OrderedDict[Any, tuple[tuple[Any, ...], Any, list[Any]]] = OrderedDict()
        self.hits = 0

    def reduced(
        self, dag: Dag, order: Sequence[Hop], roots: Sequence[Hop], key: Any, compute: Compute
    ) -> tuple[Dag, list[Hop]] | None:
        """The block with its invariant operators as leaves, or None where it has none. `key` is the signature of the block."""
        if not has_large(order):
            return None
        same = self._same(dag, order, key)
        if not same:
            return None
        places = self._places.get((key, same))
        if places is None:
            places = self._places[key, same] = invariant(order, same)
        values = {order[place]: self._value(dag, order, place, key, compute) for place in places}
        return _replaced(dag, order, roots, values) if values else None

    def _same(self, dag: Dag, order: Sequence[Hop], key: Any) -> frozenset[int]:
        """Places of the leaves that are the same objects as the last time."""
        before = self._seen.get(key)
        now = [_reference(dag.values[hop.attributes["name"]]) if hop.op == "leaf" else None for hop in order]
        self._seen[key] = now
        if before is None:
            return frozenset()
        return frozenset(
            place
            for place, (one, other) in enumerate(zip(before, now, strict=True))
            if one and other and one() is other()
        )

    def _value(self, dag: Dag, order: Sequence[Hop], place: int, key: Any, compute: Compute) -> Any:
        needed = reachable([order[place]])
        held = [dag.values[hop.attributes["name"]] for hop in needed if hop.op == "leaf"]
        numbers = tuple(repr(hop.facts.value) for hop in needed if hop.op == "literal")
        identity = (*map(id, held), *numbers)
        found = self._kept.get((key, place))
        if found is not None and found[0] == identity:
            self.hits += 1
            return found[1]
        part = Dag(dag.operators)
        (value,) = compute(part, [_copied(dag, needed, part, {})[order[place]]])
        self._kept[key, place] = identity, value, held  # in place of what was kept for other matrices
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return value


def has_large(order: Sequence[Hop]) -> bool:
    """Whether a block reads a matrix from which something might be worth keeping."""
    return any(hop.op == "leaf" and (hop.facts.cells or 0) > LARGE for hop in order)


def _reference(value: Any) -> Any:
    try:
        return weakref.ref(value)
    except TypeError:  # numbers
        return None


def invariant(order: Sequence[Hop], same: frozenset[int]) -> list[int]:
    """Places of the largest expressions of the `same` leaves that are worth keeping."""
    fixed: dict[Hop, bool] = {}
    spent: dict[Hop, float] = {}
    for place, hop in enumerate(order):
        leaf = place in same or hop.op == "literal"
        fixed[hop] = leaf if not hop.inputs else hop.op not in VOLATILE and all(fixed[each] for each in hop.inputs)
        spent[hop] = seconds(hop) + sum(spent[each] for each in set(hop.inputs))
    worth = {hop for hop in order if fixed[hop] and hop.inputs and spent[hop] > WORTH and _is_small(hop)}
    inside = {each for hop in order if fixed[hop] and hop in worth for each in reachable(hop.inputs)}
    inside -= {each for hop in order if hop not in inside and hop not in worth for each in hop.inputs}
    return [place for place, hop in enumerate(order) if hop in worth and hop not in inside]


def _is_small(hop: Hop) -> bool:
    made_of = sum(memory(each.facts) for each in reachable([hop]) if each.op == "leaf")
    return memory(hop.facts) * SMALLER <= made_of


def _replaced(dag: Dag, order: Sequence[Hop], roots: Sequence[Hop], values: dict[Hop, Any]) -> tuple[Dag, list[Hop]]:
    other = Dag(dag.operators)
    leaves = {hop: other.leaf(f"kept{place}", value) for place, (hop, value) in enumerate(values.items())}
    made = _copied(dag, _without(roots, leaves), other, leaves)
    return other, [made[root] for root in roots]


def _without(roots: Sequence[Hop], leaves: dict[Hop, Hop]) -> list[Hop]:
    """What the roots need when some operators are leaves, inputs first."""
    needed: set[Hop] = set()
    waiting = list(roots)
    while waiting:
        hop = waiting.pop()
        if hop not in needed:
            needed.add(hop)
            waiting.extend(() if hop in leaves else hop.inputs)
    return sorted(needed, key=lambda hop: hop.number)


def _copied(dag: Dag, order: Sequence[Hop], other: Dag, made: dict[Hop, Hop]) -> dict[Hop, Hop]:
    """`order` in another dag, with its leaves' values; what is in `made` stays."""
    made = dict(made)
    for hop in order:
        if hop in made:
            continue
        if hop.op == "leaf":
            made[hop] = other.leaf(hop.attributes["name"], dag.values[hop.attributes["name"]], hop.span)
        else:
            inputs = tuple(made[each] for each in hop.inputs)
            made[hop] = other.adopt(hop.op, inputs, hop.attributes, hop.facts, hop.span)
    return made
