"""Any number of aggregates in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from braidwater.aggregates.base import Aggregate


class Several(Aggregate[list[Any], list[Any]]):
    """What each of `aggregates` finds, in their order, by one reading of the rows.

    A block is handed to one after the other, so it is fetched once and lies in the processor's cache for the others. Cost: that
    of the aggregates without the reading.
    """

    def __init__(self, aggregates: Sequence[Aggregate[Any, Any]]) -> None:
        self.aggregates = list(aggregates)
        self.exact = all(aggregate.exact for aggregate in self.aggregates)
        self.what = ", ".join(dict.fromkeys(aggregate.what for aggregate in self.aggregates))

    def initialize(self) -> list[Any]:
        return [aggregate.initialize() for aggregate in self.aggregates]

    def transition(self, state: list[Any], block: Any) -> list[Any]:
        return [aggregate.transition(own, block) for aggregate, own in zip(self.aggregates, state, strict=True)]

    def merge(self, state: list[Any], other: list[Any]) -> list[Any]:
        return [
            aggregate.merge(own, theirs) for aggregate, own, theirs in zip(self.aggregates, state, other, strict=True)
        ]

    def final(self, state: list[Any]) -> list[Any]:
        return [aggregate.final(own) for aggregate, own in zip(self.aggregates, state, strict=True)]
