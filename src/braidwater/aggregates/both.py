"""Two aggregates in one pass."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from braidwater.aggregates.base import Aggregate

First = TypeVar("First")
Second = TypeVar("Second")


class Both(Aggregate[tuple[Any, Any], tuple[First, Second]], Generic[First, Second]):
    """What `first` and `second` find, by one reading of the rows."""

    def __init__(self, first: Aggregate[Any, First], second: Aggregate[Any, Second]) -> None:
        self.first = first
        self.second = second
        self.exact = first.exact and second.exact
        self.what = f"{first.what}, {second.what}"

    def initialize(self) -> tuple[Any, Any]:
        return self.first.initialize(), self.second.initialize()

    def transition(self, state: tuple[Any, Any], block: Any) -> tuple[Any, Any]:
        return self.first.transition(state[0], block), self.second.transition(state[1], block)

    def merge(self, state: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Any, Any]:
        return self.first.merge(state[0], other[0]), self.second.merge(state[1], other[1])

    def final(self, state: tuple[Any, Any]) -> tuple[First, Second]:
        return self.first.final(state[0]), self.second.final(state[1])
