"""The matrices that scripts made and still hold, within a bound of memory: what does not fit lies in a file and is paged.

A matrix that is spilled stays an ordinary array. Its cells lie in a file mapping, so whoever reads them gets them, and the pool
can let go of their memory at any time without asking those who hold the array.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.runtime.reuse import Reuse
from braidwater.dml.values import Array
from braidwater.errors import BudgetError, CacheError
from braidwater.options import current_options, format_bytes

SMALLEST = 1 << 20  # bytes: smaller matrices are not worth a file, and are not counted
IDLE = 16 << 20  # bytes of scratch memory at most
COPIED = 8 << 20  # bytes that are written to a mapping before its pages are let go
OWN_SHARE = 0.5  # of the budget at most is held without a file; the rest is for pages of spilled matrices


@dataclass(slots=True)
class _Held:
    size: int
    mapping: mmap.mmap | None = None
    resident: bool = True


def pool_of(context: Context) -> Pool:
    """The pool of a run, with the run's memory option as its budget."""
    if context.pool is None:
        context.pool = Pool(context.memory)
    pool: Pool = context.pool
    return pool


class Scratch:
    """Memory for values that nobody keeps: fresh memory costs a page fault for each 4 KB, which is more than writing to it.

    `take` gives an array of any content, `give` gets it back when nobody reads it any more. At most `budget` bytes lie idle.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.idle = 0
        self._arrays: dict[tuple[int, int], list[Array]] = {}

    def take(self, shape: tuple[int, int]) -> Array:
        try:
            found = self._arrays[shape].pop()  # at once, whatever other threads do
        except (KeyError, IndexError):
            return np.empty(shape)
        self.idle -= found.nbytes
        return found

    def give(self, *arrays: Array) -> None:
        for array in arrays:
            self.idle += array.nbytes
            if self.idle > self.budget:
                self._arrays, self.idle = {}, array.nbytes
            self._arrays.setdefault(array.shape, []).append(array)


class Pool:
    """Counts what is held, and spills it to files of the cache directory when it is more than `budget` bytes.

    `keep` takes a new matrix and returns it, or the same cells in a file. `touch` says that one is about to be read: pages of
    those that were not read for longest go first. `resident` never exceeds the budget; what counts are matrices of 1 MB and more
    that operators made, not those that the caller gave, nor the blocks of a scan (some MB a thread).
    """

    def __init__(self, budget: int, directory: Path | None = None) -> None:
        self.budget = budget
        self._directory = directory
        self._lock = RLock()  # a matrix may be freed by the garbage collector while the pool is at work
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self.own = 0
        self.mapped = 0
        self.on_disk = 0
        self.spills = 0
        self.largest = 0
        self.reuse = Reuse()
        self.scratch = Scratch(min(IDLE, budget // 16))

    @property
    def resident(self) -> int:
        """Bytes in memory now."""
        return self.own + self.mapped

    def keep(self, value: Any) -> Any:
        """A matrix that was made: itself, or the same cells in a file. Raises BudgetError if it alone is beyond the budget."""
        if (
            not isinstance(value, np.ndarray)
            or value.nbytes < SMALLEST
            or not value.flags.owndata
            or id(value) in self._held
        ):
            return value
        size = value.nbytes
        if size > self.budget:
            raise BudgetError(
                f"A matrix of {value.shape[0]} x {value.shape[1]} cells takes {format_bytes(size)}; the memory option is "
                f"{format_bytes(self.budget)}. Raise it, or keep the matrix sparse or streamed."
            )
        with self._lock:
            if self.own + size <= self.budget * OWN_SHARE:
                self._make_room(size)
                return self._count(value, value, _Held(size))
            return self._spilled(value)

    def touch(self, value: Any) -> None:
        """A matrix is about to be read."""
        key = id(_owner(value))
        with self._lock:
            held = self._held.get(key)
            if held is None:
                return
            self._held.move_to_end(key)
            if not held.resident:
                self._make_room(held.size)
                held.resident = True
                self.mapped += held.size
                self._note()

    def _spilled(self, value: Array) -> Array:
        quota = current_options().cache_quota
        if self.on_disk + value.nbytes > quota:
            raise CacheError(
                f"Matrices that do not fit into memory need {format_bytes(self.on_disk + value.nbytes)} on disk; the cache_quota "
                f"option is {format_bytes(quota)}."
            )
        mapping = _mapping(value.nbytes, self._directory or current_options().cache_directory / "spilled")
        base = np.frombuffer(mapping, np.float64)
        _copy(value, base, mapping)
        self.spills += 1
        self.on_disk += value.nbytes
        return self._count(base, base.reshape(value.shape), _Held(value.nbytes, mapping, resident=False))

    def _count(self, owner: Array, value: Array, held: _Held) -> Array:
        self._held[id(owner)] = held
        if held.mapping is None:
            self.own += held.size
        weakref.finalize(owner, self._freed, id(owner)).atexit = False
        self._note()
        return value

    def _note(self) -> None:
        self.largest = max(self.largest, self.resident)

    def _freed(self, key: int) -> None:
        with self._lock:
            held = self._held.pop(key)
            if held.mapping is None:
                self.own -= held.size
            else:
                self.on_disk -= held.size
                self.mapped -= held.size if held.resident else 0

    def _make_room(self, size: int) -> None:
        """Let go of pages, those that were not read for longest first."""
        for held in list(self._held.values()):
            if self.resident + size <= self.budget:
                return
            if held.mapping is not None and held.resident:
                _let_go(held.mapping)
                held.resident = False
                self.mapped -= held.size


def _owner(value: Any) -> Any:
    while isinstance(value, np.ndarray) and isinstance(value.base, np.ndarray):
        value = value.base
    return value


def _mapping(size: int, directory: Path) -> mmap.mmap:
    """A file without a name, as memory. Its space is reserved: a full disk is an error here, not a crash on a later write."""
    from tempfile import TemporaryFile  # slow to import, and most runs spill nothing

    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=directory) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise CacheError(
            f"A matrix of {format_bytes(size)} that does not fit into memory cannot be written to {str(directory)!r}: "
            f"{error.strerror or error}{_free(directory)}. Make room there, set the cache_directory option, or raise the memory "
            "option."
        ) from error


def _free(directory: Path) -> str:
    from shutil import disk_usage

    try:
        return f"; {format_bytes(disk_usage(directory).free)} are free"
    except OSError:
        return ""  # there is no such directory, which is what the error says


def _copy(value: Array, target: Array, mapping: mmap.mmap) -> None:
    rows = max(1, COPIED // max(value.shape[1] * 8, 1))
    shaped = target.reshape(value.shape)
    for begin in range(0, len(value), rows):
        shaped[begin : begin + rows] = value[begin : begin + rows]
        _let_go(mapping)


def _let_go(mapping: mmap.mmap) -> None:
    """Drop the pages from this process; what was written is the file's, so nothing is lost."""
    mapping.madvise(mmap.MADV_DONTNEED)
