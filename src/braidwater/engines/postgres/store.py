"""Packed blocks as a store that stays in the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from braidwater.blocks.base import Array, Block
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import Answer, BlockStore, Unit
from braidwater.engines.postgres.packing import Packed, pack, still_packed
from braidwater.engines.postgres.sessions import PATIENCE, of_server, open_session
from braidwater.engines.postgres.site import sampled
from braidwater.errors import TableChangedError, UnsupportedError, WorkerLostError
from braidwater.tables.postgres import PostgresTable

Ask = Callable[[BlockSource, int, Callable[[Block], Any]], Any]
LetGo = Callable[[Packed], None]


class ServerStore(BlockStore):
    """The blocks of `source` that sessions of the server make of packed ones, and keep as far as their memory goes.

    `rows` are those of each block, without what the encoder leaves out. `ask` sends a function to the session that has a
    block, which never leaves; `let_go` is called with the packed blocks when the store is closed.
    """

    kind = "server"
    here = False

    def __init__(self, source: BlockSource, packed: Packed, rows: Sequence[int], ask: Ask, let_go: LetGo) -> None:
        assert source.encoder is not None
        self.source = source
        self.packed = packed
        self.schema = source.encoder.block_schema
        starts = [0]
        for count in rows:
            starts.append(starts[-1] + count)
        self.units = [Unit(number, count, starts[number]) for number, count in enumerate(rows)]
        self._ask = ask
        self._let_go = let_go

    def ask(self, number: int, function: Callable[[Block], Answer]) -> Answer:
        found: Answer = self._ask(self.source, number, function)
        return found

    def read(self, number: int, buffer: Array | None = None) -> Block:
        raise UnsupportedError(
            "These blocks stay in the PostgreSQL server, where only passes of an aggregate read them. To read them here, fit "
            "without `engine`, or with PostgresEngine(address, executor='copy')."
        )

    def close(self) -> None:
        self._let_go(self.packed)


def all_there(address: str, stores: Sequence[ServerStore]) -> None:
    """Have the blocks of stores where they were, after sessions were lost: in a session of its own, as others may be at work.

    A server that has just crashed takes connections for a moment yet, and then breaks them.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with open_session(address, patience=PATIENCE) as session:
                for store in stores:
                    pack_again(session, store)
            return
        except psycopg.Error as error:
            lost = of_server(error)
            if not isinstance(lost, WorkerLostError) or time.monotonic() > until:
                raise lost from error
            time.sleep(0.2)


def pack_again(session: psycopg.Connection[Any], store: ServerStore) -> None:
    """Have the blocks of a store where they were: a crash of the server empties unlogged tables."""
    before, (table, _) = store.packed, sampled(store.source.table)
    assert isinstance(table, PostgresTable)
    if still_packed(session, before):
        return
    store.packed = pack(session, table, store.source.columns, pages=before.pages)
    if store.packed.blocks != before.blocks:
        raise TableChangedError(f"Table {table.name!r} changed, and its blocks are gone. Run again.")
