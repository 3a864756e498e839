"""Packed blocks as a store that stays in the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from braidwater.blocks.base import Array, Block, BlockSchema
from braidwater.blocks.store import Answer, BlockStore, Unit
from braidwater.engines.postgres.packing import Packed
from braidwater.errors import UnsupportedError

Ask = Callable[[int, Callable[[Block], Any]], Any]
LetGo = Callable[[Packed], None]


class ServerStore(BlockStore):
    """The blocks that sessions of the server make of packed ones, and keep as far as their memory goes.

    `rows` are those of each block, without what the encoder leaves out. `ask` sends a function to the session that has a
    block, which never leaves; `let_go` is called with the packed blocks when the store is closed.
    """

    kind = "server"
    here = False

    def __init__(self, packed: Packed, schema: BlockSchema, rows: Sequence[int], ask: Ask, let_go: LetGo) -> None:
        self.packed = packed
        self.schema = schema
        starts = [0]
        for count in rows:
            starts.append(starts[-1] + count)
        self.units = [Unit(number, count, starts[number]) for number, count in enumerate(rows)]
        self._ask = ask
        self._let_go = let_go

    def ask(self, number: int, function: Callable[[Block], Answer]) -> Answer:
        found: Answer = self._ask(number, function)
        return found

    def read(self, number: int, buffer: Array | None = None) -> Block:
        raise UnsupportedError(
            "These blocks stay in the PostgreSQL server, where only passes of an aggregate read them. To read them here, fit "
            "without `engine`, or with PostgresEngine(address, executor='copy')."
        )

    def close(self) -> None:
        self._let_go(self.packed)
