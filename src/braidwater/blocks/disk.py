"""The block cache on disk: units of about 8 MB in one file, written once, mapped or read unit by unit.

A cache file holds the units, each at a multiple of 4096 bytes (so that O_DIRECT can read it), then an index as JSON, then a
trailer: the index's length and checksum, and a magic word. It is written under another name and renamed when it is whole.
Blocks are not flushed to the disk (that would cost more than making them again), so a file from before the machine's last
start is not trusted: the index holds the identity of the boot that wrote it.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import struct
import time
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from braidwater.blocks.base import Array, Block, BlockSchema, allocate
from braidwater.blocks.store import BlockStore, Key, StoreWriter, ThreadBuffers, Unit
from braidwater.errors import CacheError
from braidwater.options import current_options, format_bytes

PAGE = 4096
_MAGIC = b"BRAIDBLK"
_TRAILER = struct.Struct("<QI4x8s")
_FORMAT = 1
_RESERVE = 64 * 2**20


class DiskStore(BlockStore):
    """A finished cache file. It pickles as its path, so that other processes can read it, on other machines too where the
    folder is one that they share. `handed_over` says so: whoever hands it over lives, so it is of no earlier start of theirs.

    A unit is mapped for as long as somebody holds its block: nothing is copied, and resident memory stays at a unit a
    thread. A file of more than 0.6 of the memory that is free is read into the caller's buffer past the system's cache
    (O_DIRECT): at the disk's speed, a third of the CPU, and nothing else is pushed out.
    """

    kind = "disk"

    def __init__(self, path: Path, *, temporary: bool = False, handed_over: bool = False) -> None:
        self.path = Path(path)
        index = _read_index(self.path, of_this_start=not handed_over)
        self.schema = BlockSchema.from_json(index["schema"])
        self.units = [Unit(*unit) for unit in index["units"]]
        self.rows_dropped = int(index["rows_dropped"])
        self._file, self._direct = _open_for_reading(self.path)
        # at the latest when the interpreter ends; a process that got the store by pickle never removes the file
        self._release = weakref.finalize(self, _let_go, self._file, self.path if temporary else None, os.getpid())
        with suppress(OSError):
            os.utime(self.path)  # least recently used goes first when the quota is reached

    @property
    def buffer_bytes(self) -> int:
        largest = max((unit.rows for unit in self.units), default=0)
        return _padded(self.schema.bytes(largest)) if self._direct else 0

    def read(self, number: int, buffer: Array | None = None) -> Block:
        unit = self.units[number]
        size = self.schema.bytes(unit.rows)
        if self._direct:
            held = self._fetched(unit, size, allocate(self.buffer_bytes) if buffer is None else buffer)
        else:
            held = self._mapped(unit, size)
        return Block(self.schema, held, unit.rows, start=unit.start, number=number)

    def _mapped(self, unit: Unit, size: int) -> Array:
        """The unit's own pages, until the array is gone."""
        ahead = unit.offset % mmap.ALLOCATIONGRANULARITY
        try:
            # a copy on write, though nobody writes: compiled kernels exist for arrays that may be written to
            pages = mmap.mmap(self._file, ahead + size, access=mmap.ACCESS_COPY, offset=unit.offset - ahead)
        except ValueError as error:
            raise self._too_short(unit) from error
        return np.frombuffer(pages, np.uint8, offset=ahead)

    def _fetched(self, unit: Unit, size: int, buffer: Array) -> Array:
        """The unit in `buffer`."""
        done = 0
        while done < size:
            got = os.preadv(self._file, [memoryview(buffer.data)[done : _padded(size)]], unit.offset + done)
            if got == 0:
                raise self._too_short(unit)
            done += got
        return buffer[:size]

    def _too_short(self, unit: Unit) -> CacheError:
        return CacheError(
            f"The block cache {str(self.path)!r} ends in the middle of block {unit.number}; delete it and run again."
        )

    def close(self) -> None:
        self._release()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(DiskStore, handed_over=True), (self.path,)


class DiskWriter(StoreWriter):
    """Writes a cache file: blocks at offsets in the order in which they come, the index at the end."""

    def __init__(self, schema: BlockSchema, path: Path, *, expected_bytes: int = 0, temporary: bool = False) -> None:
        super().__init__(schema)
        self.path = path
        self._temporary = temporary
        self._end = 0
        self._reserved = 0
        self._buffers = ThreadBuffers()
        self.rows_dropped = 0
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path.parent)
            make_room(path.parent, expected_bytes)
            self._partial = path.with_name(f"{path.stem}.{os.getpid()}.{uuid4().hex[:8]}.tmp")
            self._file = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def buffer(self, rows: int) -> Array:
        """The calling thread's own buffer: a block is done with when it was put and computed on."""
        return self._buffers.take(self.schema.bytes(rows))

    def put(self, key: Key, block: Block) -> None:
        with self._lock:
            offset = self._end
            self._end += _padded(block.bytes)
            self._places[key] = (block.rows, offset)
            self._reserve()
        with _disk_errors(self.path):
            _write_all(self._file, memoryview(block.buffer.data)[: block.bytes], offset)

    def _reserve(self) -> None:
        """Take room on the disk ahead of the blocks: writing into it costs a fifth of growing the file (ext4, measured)."""
        if self._end > self._reserved and hasattr(os, "posix_fallocate"):
            with _disk_errors(self.path):
                os.posix_fallocate(self._file, self._reserved, max(_RESERVE, self._end - self._reserved))
            self._reserved += max(_RESERVE, self._end - self._reserved)

    def finish(self) -> DiskStore:
        index = {
            "format": _FORMAT,
            "boot": _boot_id(),
            "schema": self.schema.to_json(),
            "units": [[u.number, u.rows, u.start, u.offset] for u in self._units()],
            "rows_dropped": self.rows_dropped,
        }
        text = json.dumps(index, separators=(",", ":")).encode()
        with _disk_errors(self.path):
            trailer = _TRAILER.pack(len(text), zlib.crc32(text), _MAGIC)
            os.ftruncate(self._file, self._end)
            _write_all(self._file, memoryview(text + trailer), self._end)
            os.close(self._file)
            self._file = -1
            os.replace(self._partial, self.path)
        return DiskStore(self.path, temporary=self._temporary)

    def abort(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._partial.unlink(missing_ok=True)


def _let_go(file: int, path: Path | None, owner: int) -> None:
    os.close(file)
    if path is not None and os.getpid() == owner:
        path.unlink(missing_ok=True)


def open_cached(path: Path) -> DiskStore | None:
    """The store at `path` when there is a whole one from this boot; a broken one is removed."""
    if not path.is_file():
        return None
    try:
        return DiskStore(path)
    except CacheError:
        path.unlink(missing_ok=True)
        return None


def make_room(folder: Path, size: int) -> None:
    """Evict the least recently used caches until `size` more bytes keep to the quota and fit on the disk."""
    quota = current_options().cache_quota
    files = sorted(folder.glob("*.blocks"), key=lambda file: file.stat().st_mtime)
    used = sum(file.stat().st_size for file in files)
    while files and (used + size > quota or shutil.disk_usage(folder).free < size):
        oldest = files.pop(0)
        used -= oldest.stat().st_size
        oldest.unlink(missing_ok=True)
    if size > quota:
        raise CacheError(
            f"The block cache needs {format_bytes(size)}, its quota is {format_bytes(quota)}. "
            "Raise cache_quota, or choose cache='none' to read the table anew in every pass."
        )
    free = shutil.disk_usage(folder).free
    if size > free:
        raise CacheError(_full(folder, f"{format_bytes(size)} are needed, {format_bytes(free)} are free"))


def clear_cache() -> int:
    """Remove every block cache of this user; the bytes that were freed."""
    freed = 0
    for file in (current_options().cache_directory / "blocks").glob("*.blocks"):
        freed += file.stat().st_size
        file.unlink(missing_ok=True)
    return freed


def _read_index(path: Path, *, of_this_start: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as handle:
            handle.seek(-_TRAILER.size, os.SEEK_END)
            end = handle.tell()
            length, checksum, magic = _TRAILER.unpack(handle.read(_TRAILER.size))
            if magic != _MAGIC or length > end:
                raise CacheError(f"{str(path)!r} is no whole block cache; delete it and run again.")
            handle.seek(end - length)
            text = handle.read(length)
    except (OSError, struct.error) as error:
        raise CacheError(f"The block cache {str(path)!r} cannot be read: {error}") from error
    if zlib.crc32(text) != checksum:
        raise CacheError(f"The index of the block cache {str(path)!r} is damaged; delete it and run again.")
    index: dict[str, Any] = json.loads(text)
    if index["format"] != _FORMAT or (of_this_start and index["boot"] != _boot_id()):
        raise CacheError(f"The block cache {str(path)!r} is from another version or an earlier start of the machine.")
    schema = BlockSchema.from_json(index["schema"])
    needed = max((offset + schema.bytes(rows) for _, rows, _, offset in index["units"]), default=0)
    if needed > end - length:
        raise CacheError(f"The block cache {str(path)!r} was truncated; delete it and run again.")
    return index


def _open_for_reading(path: Path) -> tuple[int, bool]:
    if hasattr(os, "O_DIRECT") and path.stat().st_size > 0.6 * _available_memory():
        with suppress(OSError):  # some file systems (tmpfs) cannot
            return os.open(path, os.O_RDONLY | os.O_DIRECT), True
    return os.open(path, os.O_RDONLY), False


def _available_memory() -> int:
    try:
        with open("/proc/meminfo") as handle:
            for line in handle:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 2**62  # unknown: read through the system's cache


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{(time.time() - time.monotonic()) // 60:.0f}"


def _remove_abandoned(folder: Path) -> None:
    """Unfinished files of processes that are no more."""
    for file in folder.glob("*.tmp"):
        owner = file.name.split(".")[-3]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            file.unlink(missing_ok=True)


def _write_all(file: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(file, data[done:], offset + done)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, CacheError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CacheError(_full(path.parent, str(error.strerror))) from error
        raise CacheError(f"The block cache {str(path)!r} cannot be written: {error}") from error


def _full(folder: Path, detail: str) -> str:
    return (
        f"The disk of the block cache ({str(folder)!r}) is full: {detail}. Free some, set cache_directory to another "
        "disk, or choose cache='none' to read the table anew in every pass."
    )


def _padded(size: int) -> int:
    return (size + PAGE - 1) // PAGE * PAGE
