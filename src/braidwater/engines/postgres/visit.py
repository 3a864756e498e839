"""What runs inside the server for a visit: a function of the blocks of a share, which it reads like those of any store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from braidwater.blocks.base import Array, Block, BlockSchema
from braidwater.blocks.store import BlockStore, Unit
from braidwater.engines.local.threads import one_blas_thread
from braidwater.engines.postgres.share import Rows, Share, block_at, keep, torch_threads
from braidwater.events import Event, intercept


@dataclass(frozen=True)
class Part:
    """Blocks of a table as a session finds them: `units` of the blocks that `rows` makes of those of `share`, of which each
    lies in one of `ones`."""

    share: Share
    rows: Rows
    schema: BlockSchema
    units: tuple[Unit, ...]
    ones: tuple[Share, ...]


class ShareStore(BlockStore):
    """The blocks of a part where they lie: in the memory of this session, else in the table."""

    kind = "server"
    any_thread = False  # PostgreSQL has one a session

    def __init__(self, part: Part) -> None:
        self.schema = part.schema
        self.units = list(part.units)
        self.name = f"{part.share.key} {part.rows.key}"
        self._part = part
        self._ones = {unit.number: one for unit, one in zip(part.units, part.ones, strict=True)}
        if self.bytes <= part.share.keep:
            keep(part.share, part.rows)

    def read(self, number: int, buffer: Array | None = None) -> Block:
        found: Block = block_at(self._part.share, self._part.rows, self._ones[number])
        return found


@dataclass
class Visited:
    """What came of a visit, and the events that it emitted."""

    value: Any
    events: list[Event] = field(default_factory=list)


def visit(where: list[str], parts: Sequence[Part], function: Callable[..., Any], arguments: Sequence[Any]) -> Visited:
    """``function([store, ...], *arguments)`` over the blocks of `parts`; the first is the one that this session holds."""
    import plpy

    share = parts[0].share
    where[0] = f"a visit to the blocks {share.first} to {share.last}"
    found = Visited(None)

    def heard(event: Event) -> None:
        found.events.append(event)
        plpy.execute("SELECT 1")  # where a cancelled statement ends

    with one_blas_thread(), torch_threads(share.threads), intercept(heard):
        found.value = function([ShareStore(part) for part in parts], *arguments)
    return found


visit.tells_where = True  # type: ignore[attr-defined]
