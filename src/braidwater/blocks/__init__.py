"""Blocks: typed columns of contiguous rows, and where they are kept between passes."""

from braidwater.blocks.base import Block, BlockColumn, BlockEncoder, BlockSchema, RawBlock
from braidwater.blocks.disk import DiskStore, clear_cache
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import BlockStore, MemoryStore, Unit

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
