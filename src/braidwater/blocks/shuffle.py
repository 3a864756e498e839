"""A store with its rows in a random order, in bounded memory.

Every row is dealt to a block drawn at random, then the rows of each block are permuted (Sanders 1998, "Random permutations on
distributed, external and hierarchical memory"): the rows are read twice and written twice, two blocks in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from braidwater.blocks.base import Array, Block, allocate
from braidwater.blocks.store import BlockStore, StoreWriter


def shuffled(store: BlockStore, make_writer: Callable[[], StoreWriter], seed: int) -> BlockStore:
    """The rows of `store` in an order that follows from `seed` alone. `make_writer` is called twice; `store` stays open."""
    random = np.random.default_rng(seed)
    dealt = _deal(store, make_writer(), random)
    try:
        return _permute(dealt, len(store.units), make_writer(), random)
    finally:
        dealt.store.close()


class _Dealt:
    """Rows dealt to blocks: `hands[j]` are the units of `store` that make block j."""

    def __init__(self, store: BlockStore, hands: Sequence[Sequence[int]]) -> None:
        self.store = store
        self.hands = hands


def _deal(store: BlockStore, writer: StoreWriter, random: np.random.Generator) -> _Dealt:
    count = len(store.units)
    buffer = allocate(store.buffer_bytes)
    keys = []
    try:
        for unit in store.units:
            block = store.read(unit.number, buffer)
            target = random.integers(0, count, block.rows)
            order = np.argsort(target, kind="stable")
            ends = np.searchsorted(target[order], np.arange(count + 1))
            for hand in range(count):
                rows = order[ends[hand] : ends[hand + 1]]
                if len(rows):
                    _put(writer, (hand, unit.number), [(block, rows)])
                    keys.append((hand, unit.number))
        found = writer.finish()
    except BaseException:
        writer.abort()
        raise
    hands: list[list[int]] = [[] for _ in range(count)]
    for number, (hand, _) in enumerate(sorted(keys)):  # a store's units lie in the order of their keys
        hands[hand].append(number)
    return _Dealt(found, hands)


def _permute(dealt: _Dealt, count: int, writer: StoreWriter, random: np.random.Generator) -> BlockStore:
    try:
        for hand in range(count):
            pieces = [dealt.store.read(number) for number in dealt.hands[hand]]
            order = random.permutation(sum(piece.rows for piece in pieces))
            if len(order):
                _put(writer, (hand, 0), [(piece, np.arange(piece.rows)) for piece in pieces], order)
        return writer.finish()
    except BaseException:
        writer.abort()
        raise


def _put(
    writer: StoreWriter, key: tuple[int, int], parts: Sequence[tuple[Block, Array]], order: Array | None = None
) -> None:
    """Hand rows of several blocks over as one block, in `order` where there is one."""
    schema = writer.schema
    rows = sum(len(index) for _, index in parts)
    made = Block(schema, writer.buffer(rows), rows)
    for column in schema.columns:
        picked = [block[column.name][index] for block, index in parts]
        values = picked[0] if len(picked) == 1 else np.concatenate(picked)
        made[column.name][...] = values if order is None else values[order]
    writer.put(key, made)
