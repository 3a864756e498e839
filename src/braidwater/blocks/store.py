"""Where the blocks of a table are kept between passes: the contract, and the form that keeps them in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, local
from typing import TypeVar

from braidwater.blocks.base import Array, Block, BlockSchema, allocate

Answer = TypeVar("Answer")
Key = tuple[int, int]  # a unit's place in the order of the table: (partition, number within it)


@dataclass(frozen=True)
class Unit:
    """A block as it is kept: `number` counts from 0 in the order of the table, `start` is the number of its first row."""

    number: int
    rows: int
    start: int
    offset: int = 0  # in the file, for a store that has one


class BlockStore(ABC):
    """Blocks of one schema that can be read in any order, by any number of threads."""

    schema: BlockSchema
    units: list[Unit]
    kind: str  # "memory" or "disk"
    # False: its blocks lie elsewhere and stay there. Aggregates fold them, `ask` asks about one, `read` refuses
    here: bool = True
    # False: only the thread that was given it may read
    any_thread: bool = True

    @property
    def rows(self) -> int:
        return sum(unit.rows for unit in self.units)

    @property
    def bytes(self) -> int:
        return self.schema.bytes(self.rows)

    @abstractmethod
    def read(self, number: int, buffer: Array | None = None) -> Block:
        """The block `number`. `buffer` (uint8, of `buffer_bytes`) is used for its numbers where they have to be fetched."""

    def ask(self, number: int, function: Callable[[Block], Answer]) -> Answer:
        """What `function` says of the block `number`, called where it lies."""
        return function(self.read(number))

    @property
    def buffer_bytes(self) -> int:
        """Bytes of a buffer that serves every unit; 0 where none is needed."""
        return 0

    def close(self) -> None:
        """Let go of memory and files."""


def runs(blocks: int, workers: int) -> list[range]:
    """The numbers of the blocks that each worker has where it has a run of them: as equal in length as can be.

    >>> runs(5, 2)
    [range(0, 2), range(2, 5)]
    """
    return [range(blocks * worker // workers, blocks * (worker + 1) // workers) for worker in range(workers)]


class StoreWriter(ABC):
    """Takes blocks from several threads in any order, and makes a store of them or nothing."""

    def __init__(self, schema: BlockSchema) -> None:
        self.schema = schema
        self._lock = Lock()
        self._places: dict[Key, tuple[int, int]] = {}  # rows and offset of each unit

    @abstractmethod
    def buffer(self, rows: int) -> Array:
        """Memory for a block of `rows` rows that is going to be `put`."""

    @abstractmethod
    def put(self, key: Key, block: Block) -> None:
        """Keep the block. `key` is its place in the order of the table."""

    @abstractmethod
    def finish(self) -> BlockStore:
        """All blocks were put: the store."""

    def abort(self) -> None:
        """Leave nothing behind."""

    def _units(self) -> list[Unit]:
        units: list[Unit] = []
        start = 0
        for key in sorted(self._places):
            rows, offset = self._places[key]
            if rows:
                units.append(Unit(len(units), rows, start, offset))
                start += rows
        return units


class MemoryStore(BlockStore):
    """Blocks in memory: for tables that fit, and rather faster than a file that the system caches (no copy)."""

    kind = "memory"

    def __init__(self, schema: BlockSchema, units: list[Unit], buffers: list[Array]) -> None:
        self.schema = schema
        self.units = units
        self._buffers = buffers

    def read(self, number: int, buffer: Array | None = None) -> Block:
        unit = self.units[number]
        return Block(self.schema, self._buffers[number], unit.rows, start=unit.start, number=number)

    def close(self) -> None:
        self._buffers = []


class MemoryWriter(StoreWriter):
    """Keeps the buffers that it hands out."""

    def __init__(self, schema: BlockSchema) -> None:
        super().__init__(schema)
        self._buffers: dict[Key, Array] = {}

    def buffer(self, rows: int) -> Array:
        return allocate(self.schema.bytes(rows))

    def put(self, key: Key, block: Block) -> None:
        with self._lock:
            self._places[key] = (block.rows, 0)
            if block.rows:
                self._buffers[key] = block.buffer

    def finish(self) -> MemoryStore:
        return MemoryStore(self.schema, self._units(), [self._buffers[key] for key in sorted(self._buffers)])


class ThreadBuffers:
    """A buffer for every thread, used again for each of its blocks: fresh memory would cost a page fault every 4 KB."""

    def __init__(self) -> None:
        self._local = local()

    def take(self, size: int) -> Array:
        held: Array | None = getattr(self._local, "held", None)
        if held is None or len(held) < size:
            held = self._local.held = allocate(size)
        return held[:size]


class NoWriter(StoreWriter):
    """Keeps nothing: for a table that is read once."""

    def __init__(self, schema: BlockSchema) -> None:
        super().__init__(schema)
        self._buffers = ThreadBuffers()

    def buffer(self, rows: int) -> Array:
        return self._buffers.take(self.schema.bytes(rows))

    def put(self, key: Key, block: Block) -> None:
        pass

    def finish(self) -> BlockStore:
        raise NotImplementedError("a pass that keeps no blocks has no store")
