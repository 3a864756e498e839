"""Scans over the rows of a table as aggregates, which an engine folds on threads of this process or on workers elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from braidwater.aggregates import Aggregate
from braidwater.blocks.base import Array, Block
from braidwater.dml.runtime.scan import CompiledScan
from braidwater.encoding.design import Design


@dataclass
class Found:
    """The states of the folds; and, where workers do not share memory with this process, rows of values that are as long as the
    table, each piece with the number of its first row."""

    folds: list[Any] = field(default_factory=list)
    pieces: list[tuple[int, list[Array]]] = field(default_factory=list)


class WithRows(Aggregate[Found, list[Any]]):
    """Fills `out`, arrays of as many rows as are wanted, the first of them for row `first` of the table.

    Threads write them in place. Workers `elsewhere` send their rows with their states: `final` puts them into place.
    """

    what = "scan rows"

    def __init__(self, design: Design, out: Sequence[Array], *, elsewhere: bool, first: int = 0) -> None:
        self.design = design
        self.elsewhere = elsewhere
        self.first = first
        self._widths = [each.shape[1] for each in out]
        self._rows = len(out[0]) if out else 0
        self._out: Sequence[Array] = out

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_out": ()}  # what is filled stays here

    def initialize(self) -> Found:
        return Found()

    def merge(self, state: Found, other: Found) -> Found:
        folds = self.merged(state.folds, other.folds) if state.folds and other.folds else state.folds or other.folds
        return Found(folds, [*state.pieces, *other.pieces])

    def merged(self, one: list[Any], other: list[Any]) -> list[Any]:
        """Two states of folds as one."""
        return [*one, *other]

    def final(self, state: Found) -> list[Any]:
        for begin, arrays in state.pieces:
            for out, array in zip(self._out, arrays, strict=True):
                out[begin : begin + len(array)] = array
        return state.folds

    def room(self, state: Found, start: int, rows: int) -> list[Array]:
        """Where these rows of the table are written."""
        begin, end = (min(max(place - self.first, 0), self._rows) for place in (start, start + rows))
        if not self.elsewhere:
            return [out[begin:end] for out in self._out]
        made = [np.empty((end - begin, width)) for width in self._widths]
        if made and begin < end:
            state.pieces.append((begin, made))
        return made


class CopyRows(WithRows):
    """The cells of the table's rows from `first` on, as many as there is room for."""

    what = "copy rows"

    def transition(self, state: Found, block: Block) -> Found:
        (out,) = self.room(state, block.start, block.rows)
        skipped = max(self.first - block.start, 0)
        if len(out):
            out[...] = self.design.dense(block, slice(skipped, skipped + len(out))).T
        return state


class ScanRows(WithRows):
    """A compiled scan. `held` are the sources that are there as arrays (None at the place of the table, `driver`), `constants`
    what each block needs as a whole, `stored` takes the aligned values that are kept."""

    def __init__(
        self,
        design: Design,
        compiled: CompiledScan,
        driver: int,
        held: Sequence[Any],
        constants: Sequence[Any],
        stored: Sequence[Array],
        *,
        elsewhere: bool,
    ) -> None:
        super().__init__(design, stored, elsewhere=elsewhere)
        self.compiled = compiled
        self.driver = driver
        self.held = held
        self.constants = constants

    def transition(self, state: Found, block: Block) -> Found:
        buffers = self.compiled.buffers(self.constants)
        stored = self.room(state, block.start, block.rows)
        for begin in range(0, block.rows, self.compiled.block_rows):
            end = min(begin + self.compiled.block_rows, block.rows)
            rows = slice(block.start + begin, block.start + end)
            blocks: list[Any] = [None if each is None else each[rows] for each in self.held]
            blocks[self.driver] = self.design.dense(block, slice(begin, end)).T
            state.folds = self.compiled.step(buffers, blocks, state.folds, [out[begin:end] for out in stored])
        return state

    def merged(self, one: list[Any], other: list[Any]) -> list[Any]:
        return self.compiled.merged(one, other)
