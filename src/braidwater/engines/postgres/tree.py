"""Merging the states of blocks in an order that depends on their numbers alone, whoever holds which block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from braidwater.aggregates.base import Aggregate

Nodes = dict[tuple[int, int], Any]


class TreeFold:
    """States of blocks as nodes of a fixed binary tree: node ``(level, place)`` holds blocks ``place * 2**level`` and on.

    Two nodes are merged as soon as both halves of their parent are there, wherever they come from, so the result is the same
    to the last bit on one worker and on many. For a run of n blocks about ``2 log2(n)`` states are held at a time.
    """

    def __init__(self, aggregate: Aggregate[Any, Any], nodes: Nodes | None = None) -> None:
        self._aggregate = aggregate
        self.nodes: Nodes = {} if nodes is None else nodes

    def add(self, number: int, state: Any) -> None:
        """Take the state of block `number`."""
        self._put((0, number), state)

    def take(self, nodes: Nodes) -> None:
        """Take the nodes of another worker."""
        for key in sorted(nodes):
            self._put(key, nodes[key])

    def _put(self, key: tuple[int, int], state: Any) -> None:
        level, place = key
        while (level, place ^ 1) in self.nodes:
            other = self.nodes.pop((level, place ^ 1))
            state = self._aggregate.merge(*((other, state) if place & 1 else (state, other)))
            level, place = level + 1, place >> 1
        self.nodes[level, place] = state

    def state(self) -> Any:
        """All states merged, in the order of the blocks."""
        return merged(
            self._aggregate, (self.nodes[key] for key in sorted(self.nodes, key=lambda key: key[1] << key[0]))
        )


def merged(aggregate: Aggregate[Any, Any], states: Iterable[Any]) -> Any:
    """States merged one after the other."""
    total = aggregate.initialize()
    for state in states:
        total = aggregate.merge(total, state)
    return total
