"""Many aggregates in one pass, each over the rows of some groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import Array, Block
from braidwater.blocks.parts import part_of


@dataclass
class GroupedState:
    """The state of each aggregate that has seen rows. Those in `shared` belong to another `GroupedState` as well."""

    states: dict[int, Any] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)


class Grouped(Aggregate[GroupedState, dict[int, Any]]):
    """For each of `aggregates` its result over the rows of its groups, by the numbers of the aggregates.

    The group of a row is its code in the block column `column`; ``members[code]`` are the numbers of the aggregates that take
    its rows (one of them for groups; for cross validation all whose training rows these are). Codes that are not in `members`
    are left out. `bases` ``(codes,)`` are taken off the row numbers of each group's blocks, so that its own rows count from 0.
    Rows of a group should lie together: an aggregate is handed one run of rows at a time. Cost: that of the aggregates, and some
    30 µs for each run and aggregate.
    """

    what = "groups"

    def __init__(
        self,
        column: str,
        aggregates: Mapping[int, Aggregate[Any, Any]],
        members: Mapping[int, Sequence[int]],
        bases: Array | None = None,
    ) -> None:
        self.column = column
        self.aggregates = dict(aggregates)
        self.members = {
            code: tuple(n for n in numbers if n in self.aggregates)
            for code, numbers in members.items()
            if any(n in self.aggregates for n in numbers)
        }
        self.bases = bases
        self.exact = all(aggregate.exact for aggregate in self.aggregates.values())
        if self.aggregates:
            self.what = f"{next(iter(self.aggregates.values())).what} by group"

    def initialize(self) -> GroupedState:
        return GroupedState()

    def transition(self, state: GroupedState, block: Block) -> GroupedState:
        for code, part in group_parts(block, self.column, self.members, self.bases):
            for number in self.members[code]:
                aggregate = self.aggregates[number]
                state.states[number] = aggregate.transition(self._own(state, number), part)
        return state

    def merge(self, state: GroupedState, other: GroupedState) -> GroupedState:
        for number, theirs in other.states.items():
            if number in state.states:
                state.states[number] = self.aggregates[number].merge(self._own(state, number), theirs)
            else:  # copied when it changes: most groups are in one block only
                state.states[number] = theirs
                state.shared.add(number)
        return state

    def _own(self, state: GroupedState, number: int) -> Any:
        """The state of an aggregate, not shared with anybody."""
        aggregate = self.aggregates[number]
        if number not in state.states:
            return aggregate.initialize()
        if number in state.shared:
            state.shared.discard(number)
            return aggregate.merge(aggregate.initialize(), state.states[number])
        return state.states[number]

    def final(self, state: GroupedState) -> dict[int, Any]:
        return {
            number: aggregate.final(state.states[number] if number in state.states else aggregate.initialize())
            for number, aggregate in self.aggregates.items()
        }


def group_parts(
    block: Block, column: str, wanted: Mapping[int, Any], bases: Array | None = None
) -> Iterator[tuple[int, Block]]:
    """The runs of rows of one group in a block, as blocks, for groups that are `wanted`."""
    order, (codes, begins, ends) = _ordered(block, column)
    for code, begin, end in zip(codes.tolist(), begins.tolist(), ends.tolist(), strict=True):
        if code in wanted:
            base = 0 if bases is None else int(bases[code])
            rows = slice(begin, end) if order is None else order[begin:end]
            yield code, part_of(block, rows, start=block.start + begin - base, memory="part")


def runs(block: Block, column: str) -> tuple[Block, Array, Array, Array]:
    """The block (its rows sorted by group, where those of a group lie scattered), and code, begin and end of every run."""
    order, found = _ordered(block, column)
    return block if order is None else part_of(block, order, memory="sorted"), *found


def _ordered(block: Block, column: str) -> tuple[Array | None, tuple[Array, Array, Array]]:
    """The order of the rows by group where those of a group lie scattered, else None, and the runs of rows in that order."""
    codes = block[column].astype(np.int64)
    found = _runs(codes)
    if len(found[0]) <= 8 or len(found[0]) <= 8 * _different(found[0]):
        return None, found
    order = np.argsort(block[column], kind="stable")
    return order, _runs(codes[order])


def _different(codes: Array) -> int:
    lowest = codes.min()
    return int(np.count_nonzero(np.bincount(codes - lowest)))  # a fifth of the time of np.unique


def _runs(codes: Array) -> tuple[Array, Array, Array]:
    borders = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    begins = np.concatenate([[0], borders]) if len(codes) else np.zeros(0, np.int64)
    return codes[begins], begins, np.append(begins[1:], len(codes))[: len(begins)]
