"""Scans over the rows of a table as aggregates, which an engine folds on threads of this process or on workers elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from braidwater.aggregates import Aggregate
from braidwater.blocks.base import Array, Block
from braidwater.dml.runtime.scan import CompiledScan
from braidwater.dml.runtime.spread import Cut, Spread
from braidwater.encoding.design import Design
from braidwater.engines.once import Once


@dataclass
class Found:
    """The states of the folds; and, where workers do not share memory with this process, how the table is cut into blocks, with
    the rows that they made of values which are as long as it."""

    folds: list[Any] = field(default_factory=list)
    pieces: list[tuple[Cut, list[Once[Array]]]] = field(default_factory=list)


class WithRows(Aggregate[Found, Found]):
    """Fills `out`, arrays of as many rows as are wanted, the first of them for row `first` of the table.

    Threads write them in place. Workers `elsewhere` send their rows with their states: `final` puts them into place. With no
    array to fill it finds out how the table is cut into blocks.
    """

    what = "scan rows"

    def __init__(self, design: Design, out: Sequence[Array] = (), *, elsewhere: bool, first: int = 0) -> None:
        self.design = design
        self.elsewhere = elsewhere
        self.first = first
        self._shapes = [each.shape for each in out]
        self._out = out

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_out": ()}  # what is filled stays here

    def initialize(self) -> Found:
        return Found()

    def transition(self, state: Found, block: Block) -> Found:
        self.room(state, block)
        return state

    def merge(self, state: Found, other: Found) -> Found:
        folds = self.merged(state.folds, other.folds) if state.folds and other.folds else state.folds or other.folds
        return Found(folds, [*state.pieces, *other.pieces])

    def merged(self, one: list[Any], other: list[Any]) -> list[Any]:
        """Two states of folds as one."""
        return [*one, *other]

    def final(self, state: Found) -> Found:
        found = Found(state.folds, sorted(state.pieces, key=lambda piece: piece[0].start))
        if self.elsewhere:
            for out, spread in zip(self._out, spreads(found), strict=True):
                spread.into(out)
        return found

    def room(self, state: Found, block: Block) -> list[Array]:
        """Where the rows of a block are written."""
        begin, end = block.start, block.start + block.rows
        if self._shapes:
            begin, end = (min(max(place - self.first, 0), self._shapes[0][0]) for place in (begin, end))
        if not self.elsewhere:
            return [out[begin:end] for out in self._out]
        made = [np.empty((end - begin, width)) for _, width in self._shapes]
        if begin < end:
            state.pieces.append((Cut(block.number, begin, end - begin), [Once(each) for each in made]))
        return made


def spreads(found: Found) -> list[Spread]:
    """Each of the values that were made, in its pieces."""
    values = zip(*(made for _, made in found.pieces), strict=True)
    return [Spread([(cut, one) for (cut, _), one in zip(found.pieces, value, strict=True)]) for value in values]


class CopyRows(WithRows):
    """The cells of the table's rows from `first` on, as many as there is room for."""

    what = "copy rows"

    def transition(self, state: Found, block: Block) -> Found:
        (out,) = self.room(state, block)
        skipped = max(self.first - block.start, 0)
        if len(out):
            out[...] = self.design.dense(block, slice(skipped, skipped + len(out))).T
        return state


class ScanRows(WithRows):
    """A compiled scan. `held` are the sources that are there as matrices (None at the place of the table, `driver`), `constants`
    what each block needs as a whole, `stored` takes the aligned values that are kept."""

    def __init__(
        self,
        design: Design,
        compiled: CompiledScan,
        driver: int,
        held: Sequence[Spread | None],
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

    def part(self, blocks: range) -> Self:
        found = copy.copy(self)
        found.held = [None if each is None else each.part(blocks) for each in self.held]
        return found

    def transition(self, state: Found, block: Block) -> Found:
        buffers = self.compiled.buffers(self.constants)
        stored = self.room(state, block)
        held = [None if each is None else each.rows(block.start, block.start + block.rows) for each in self.held]
        for begin in range(0, block.rows, self.compiled.block_rows):
            end = min(begin + self.compiled.block_rows, block.rows)
            blocks: list[Any] = [None if each is None else each[begin:end] for each in held]
            blocks[self.driver] = self.design.dense(block, slice(begin, end)).T
            state.folds = self.compiled.step(buffers, blocks, state.folds, [out[begin:end] for out in stored])
        return state

    def merged(self, one: list[Any], other: list[Any]) -> list[Any]:
        return self.compiled.merged(one, other)
