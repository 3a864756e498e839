"""Merging partial states in the order of the blocks, whichever worker is done first."""

from __future__ import annotations

from typing import Any

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.store import Key
from braidwater.engines.local.feed import ABSENT, Piece


class OrderedFold:
    """The state of all blocks so far that follow each other from the first one on; those that came early wait.

    As workers take blocks in their order, about as many states wait as there are workers (with several partitions: as
    there are blocks in the partitions at work).
    """

    def __init__(self, aggregate: Aggregate[Any, Any]) -> None:
        self._aggregate = aggregate
        self._waiting: dict[Key, Any] = {}
        self._ends: dict[int, int] = {}  # how many blocks a partition has, once that is known
        self._next: Key = (0, 0)
        self.state = aggregate.initialize()

    def add(self, piece: Piece) -> None:
        """Take the state of a piece, and note the end of its partition."""
        if piece.state is not ABSENT:
            self._waiting[piece.key] = piece.state
        if piece.last:
            self._ends[piece.key[0]] = piece.key[1]
        self._advance()

    def _advance(self) -> None:
        while True:
            partition, number = self._next
            if self._next in self._waiting:
                self.state = self._aggregate.merge(self.state, self._waiting.pop(self._next))
                self._next = (partition, number + 1)
            elif self._ends.get(partition) == number:
                self._next = (partition + 1, 0)
            else:
                return
