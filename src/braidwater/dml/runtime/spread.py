"""Matrices as long as a table, cut like its blocks: workers that live on are sent a piece once, and keep what they made."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from braidwater.blocks.base import Array
from braidwater.dml.scipy_on_demand import sparse
from braidwater.engines.once import Once
from braidwater.errors import TableChangedError


@dataclass(frozen=True)
class Cut:
    """The rows of a block: its number, the number of its first row, and how many there are."""

    block: int
    start: int
    rows: int


class Spread:
    """Rows of a matrix, in pieces that follow each other."""

    def __init__(self, pieces: Sequence[tuple[Cut, Once[Any]]]) -> None:
        self._pieces = pieces
        self._starts = [cut.start for cut, _ in pieces]

    @classmethod
    def of(cls, matrix: Any, cuts: Sequence[Cut]) -> Spread:
        """A matrix cut like the blocks of a table."""
        return cls([(cut, Once(matrix[cut.start : cut.start + cut.rows])) for cut in cuts])

    @classmethod
    def whole(cls, matrix: Any) -> Spread:
        """A matrix in one piece, for those who share memory with us."""
        return cls.of(matrix, [Cut(0, 0, matrix.shape[0])])

    def part(self, blocks: range) -> Spread:
        """What those need who have these blocks only."""
        return Spread([(cut, piece) for cut, piece in self._pieces if cut.block in blocks])

    def rows(self, begin: int, end: int) -> Any:
        """The rows between two numbers, the last one left out: a view where one piece has them all."""
        place = bisect_right(self._starts, begin) - 1
        found = []
        while begin < end:
            cut, piece = self._pieces[min(place, len(self._pieces) - 1)]
            if not cut.start <= begin < cut.start + cut.rows:
                raise TableChangedError(f"Row {begin} is in another block than when its table was cut. Run again.")
            stop = min(end, cut.start + cut.rows)
            found.append(piece.value[begin - cut.start : stop - cut.start])
            begin, place = stop, place + 1
        return found[0] if len(found) == 1 else _stacked(found)

    def into(self, out: Array) -> None:
        """Put the rows into `out`; the pieces are parts of it from now on."""
        for cut, piece in self._pieces:
            room = out[cut.start : cut.start + cut.rows]
            room[...] = piece.value
            piece.value = room


def _stacked(found: list[Any]) -> Any:
    if not found:
        return np.empty((0, 0))
    return sparse.vstack(found, format="csr") if hasattr(found[0], "tocsr") else np.concatenate(found)
