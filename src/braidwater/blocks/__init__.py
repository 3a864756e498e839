"""Blocks: typed columns of contiguous rows, and where they are kept between passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from braidwater.blocks.base import Block, BlockColumn, BlockEncoder, BlockSchema, RawBlock
from braidwater.blocks.disk import DiskStore, clear_cache
from braidwater.blocks.store import BlockStore, MemoryStore, Unit

if TYPE_CHECKING:
    from braidwater.blocks.source import BlockSource

__all__ = [
    "Block",
    "BlockColumn",
    "BlockEncoder",
    "BlockSchema",
    "BlockSource",
    "BlockStore",
    "DiskStore",
    "MemoryStore",
    "RawBlock",
    "Unit",
    "clear_cache",
]


def __getattr__(name: str) -> Any:
    """A source brings all kinds of tables along: imported where it is asked for."""
    if name == "BlockSource":
        from braidwater.blocks.source import BlockSource

        return BlockSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
