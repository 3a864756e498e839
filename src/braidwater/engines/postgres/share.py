"""The blocks of a session: packed ones that it takes out of the table, decodes, and keeps while they fit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from braidwater.blocks.base import Block, BlockEncoder, RawBlock
from braidwater.engines.postgres.form import PackedColumn, unpacked
from braidwater.errors import WorkerLostError
from braidwater.tables.split import Sample


@dataclass(frozen=True)
class Rows:
    """How packed blocks become blocks: their columns, the encoder, and the `sample` of their rows that is taken, if not all
    are. `key` names what comes out."""

    columns: tuple[PackedColumn, ...]
    encoder: BlockEncoder | None
    key: str
    sample: Sample | None = None

    def block(self, number: int, start: int, rows: int, data: list[bytes]) -> tuple[Block | RawBlock, int]:
        """The block, and how many rows the policy for NULLs left out."""
        batch = unpacked(self.columns, rows, data)
        if self.sample is not None:
            batch = self.sample.of(batch, start)
        if self.encoder is None:
            return RawBlock(batch, start=start, number=number), 0
        arrays = self.encoder.encode(batch)
        block = Block.from_arrays(arrays, self.encoder.block_schema)
        block.number, block.start = number, start
        return block, batch.num_rows - block.rows


@dataclass(frozen=True)
class Share:
    """The blocks ``first`` to ``last`` of a table of packed blocks (a name as SQL has it).

    `version` differs when the table was packed anew, `place` and `start` count the blocks and rows before the first, `count`
    those that there are, `keep` the bytes of blocks that the session may hold, `threads` those that torch may compute with.
    """

    table: str
    version: str
    first: int
    last: int
    place: int
    start: int
    count: int
    keep: int
    threads: int = 1

    @property
    def key(self) -> str:
        """What tells it from others in the memory of a session."""
        return f"{self.table} {self.version} {self.first} {self.last}"


class Item(NamedTuple):
    """A block, the number that its packed form has in the table, and how many rows the policy for NULLs left out."""

    block: Block | RawBlock
    packed: int
    dropped: int


_kept: dict[tuple[str, str], list[Item]] = {}  # by what they are blocks of, those used last at the end


def blocks_of(share: Share, rows: Rows) -> Generator[Item, None, None]:
    """The blocks of a share: kept ones, else out of the table, and then they are kept while they fit."""
    import plpy

    key = (share.key, rows.key)
    kept = _kept.pop(key, None)
    if kept is not None:
        _kept[key] = kept
        for item in kept:
            plpy.execute("SELECT 1")  # where a cancelled statement ends
            yield item
        return
    held: list[Item] | None = [] if share.keep else None
    size = 0
    with closing(_read(share, rows)) as items:
        for item in items:
            size += item.block.bytes
            held = held if held is not None and _make_room(share.keep - size) else None
            if held is not None:
                held.append(item)
            yield item
    if held is not None:
        _kept[key] = held


def _read(share: Share, rows: Rows) -> Generator[Item, None, None]:
    """The blocks of a share out of the table."""
    import plpy

    start, place = share.start, share.place
    statement = f"SELECT number, rows, data FROM {share.table} WHERE number BETWEEN $1 AND $2 ORDER BY number"
    plan = plpy.prepare(statement, ["int4", "int4"])
    cursor = plpy.cursor(plan, [share.first, share.last])
    try:
        while got := cursor.fetch(1):
            row = got[0]
            block, dropped = rows.block(place, start, row["rows"], row["data"])
            yield Item(block, row["number"], dropped)
            start += row["rows"]
            place += 1
    finally:
        cursor.close()  # after an error too: the transaction does not end while it is open
    if place < share.place + share.count:
        raise WorkerLostError(f"Packed blocks of {share.table} are gone: the server was restarted after a crash.")


def _make_room(size: int) -> bool:
    """Forget blocks, those used longest ago first, until all that are kept take `size` bytes. False where that cannot be."""
    while _kept and sum(item.block.bytes for kept in _kept.values() for item in kept) > size:
        del _kept[next(iter(_kept))]
    return size >= 0


def keep(share: Share, rows: Rows) -> None:
    """Have the blocks of a share in memory, where they fit."""
    if (share.key, rows.key) not in _kept:
        for _ in blocks_of(share, rows):
            pass


def ask(share: Share, rows: Rows, one: Share, function: Callable[[Any], Any]) -> Any:
    """What `function` says of a block of `share`, that of the share `one`."""
    return function(block_at(share, rows, one))


def block_at(share: Share, rows: Rows, one: Share) -> Any:
    """The block of the share `one` out of the memory of `share`, or, where that is not kept, out of the table."""
    kept = _kept.get((share.key, rows.key))
    if kept is not None:
        return kept[one.place - share.place].block
    with closing(_read(one, rows)) as items:
        return next(items).block


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Where torch is loaded: `count` threads for an operation, so that the sessions together take the machine once; fewer
    where OMP_NUM_THREADS says so.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        asked = int(os.environ.get("OMP_NUM_THREADS") or count)
        if torch.get_num_threads() != min(count, asked):
            torch.set_num_threads(min(count, asked))
    yield
