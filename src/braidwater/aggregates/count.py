"""How many rows there are."""

from __future__ import annotations

from typing import Any

from braidwater.aggregates.base import Aggregate


class Count(Aggregate[int, int]):
    """The number of rows.

    >>> count = Count()
    >>> count.merge(3, 4)
    7
    """

    what = "count"

    def initialize(self) -> int:
        return 0

    def transition(self, state: int, block: Any) -> int:
        return state + int(block.rows)

    def merge(self, state: int, other: int) -> int:
        return state + other

    def final(self, state: int) -> int:
        return state
