"""A pass over the block cache: value and gradient of the log-loss of 30 float32 columns, in nanoseconds a row and GB/s.

python benchmarks/warm_pass.py --rows 4000000

Each pass takes turns with what it is held against, in the same process: warm passes with a plain sum over memory by as many
threads, the cold pass with a loop that does nothing but read the same file with O_DIRECT.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from data import FEATURES, normal_features
from harness import Benchmark, Found

bench = Benchmark("A pass over the block cache, 30 float32 columns", rows=4_000_000, make_data=normal_features)

PASSES = 15
SUMMED = 256 * 2**20  # bytes for each thread of the plain sum: no cache holds them
PIECE = 8 * 2**20


@contextmanager
def gradient_pass(data: Path, kept: Any, threads: int, kernel: Any) -> Iterator[tuple[Callable[[], Any], Any]]:
    """A function that makes one pass, and the source whose store it reads."""
    from braidwater.aggregates import LogisticGradient
    from braidwater.blocks import BlockSource
    from braidwater.encoding import Encoding
    from braidwater.engines import LocalEngine
    from braidwater.tables import table

    rows = table(data / "rows.parquet")
    encoding = Encoding(features=FEATURES, label="y", label_kind="class").fit(rows)
    point = np.full((1, 1, encoding.design.width + 1), 0.01)
    engine = LocalEngine(threads)
    with BlockSource(rows, encoding, passes=100, cache=kept) as source:
        engine.materialise(source)
        yield lambda: engine.aggregate(source, LogisticGradient(encoding.design, point, kernel=kernel)), source


@cache
def plain_sum(threads: int) -> Callable[[], int]:
    """Reads `SUMMED` bytes in each thread; gives how many in all."""
    from numba import njit

    @njit(fastmath=True, nogil=True)
    def total(numbers: Any) -> float:
        found = 0.0
        for place in range(len(numbers)):  # by place: the compiler then adds in vectors
            found += numbers[place]
        return found

    arrays = [np.ones(SUMMED // 8) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)
    total(arrays[0][:8])

    def read() -> int:
        list(pool.map(total, arrays))
        return threads * SUMMED

    return read


def timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    found = run()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def warm(data: Path, kept: str, threads: int, kernel: str = "fused") -> Found:
    """Medians over the passes; the share is that of a pass in the sum just before it."""
    sums = plain_sum(threads)
    walls, cpus, shares, rates = [], [], [], []
    with gradient_pass(data, kept, threads, kernel) as (run, source):
        size = sum(source.store.schema.bytes(unit.rows) for unit in source.store.units)
        run()
        for _ in range(PASSES):
            summed, wall, _ = timed(sums)
            rates.append(summed / wall)
            _, wall, cpu = timed(run)
            walls.append(wall)
            cpus.append(cpu)
            shares.append(size / wall / rates[-1])
        rows = source.store.rows
    values = {
        "cpu_ns_row": statistics.median(cpus) / rows * 1e9,
        "least_cpu_ns_row": min(cpus) / rows * 1e9,
        "gb_s": size / statistics.median(walls) / 1e9,
        "memory_gb_s": statistics.median(rates) / 1e9,
        "share": statistics.median(shares),
    }
    text = (
        f"{values['cpu_ns_row']:.1f} CPU-ns a row, {values['gb_s']:.1f} GB/s, {values['share']:.0%} of the "
        f"{values['memory_gb_s']:.1f} GB/s of a plain sum"
    )
    return Found(text, values, statistics.median(walls), statistics.median(cpus))


@bench.contender("in memory, 2 threads", ours=True)
def memory_two(data: Path) -> Found:
    return warm(data, "memory", 2)


@bench.contender("in memory, 1 thread", ours=True)
def memory_one(data: Path) -> Found:
    return warm(data, "memory", 1)


@bench.contender("cache file in the page cache, 2 threads", ours=True)
def disk_two(data: Path) -> Found:
    return warm(data, "disk", 2)


@bench.contender("cache file in the page cache, 1 thread", ours=True)
def disk_one(data: Path) -> Found:
    return warm(data, "disk", 1)


@bench.contender("in memory, 2 threads, numpy form", ours=True)
def blas_two(data: Path) -> Found:
    return warm(data, "memory", 2, "blas")


@bench.contender("cold cache file, 2 threads", ours=True)
def cold(data: Path) -> Found:
    """Medians of seven, each against the quicker of a plain O_DIRECT loop of one thread and of two just before it."""
    from braidwater.blocks import disk
    from braidwater.blocks.disk import DiskStore

    walls, cpus, shares, rates = [], [], [], []
    with gradient_pass(data, "disk", 2, "fused") as (run, source):
        path, buffered = source.store.path, source.store
        size = sum(source.store.schema.bytes(unit.rows) for unit in source.store.units)
        disk._available_memory = lambda: 0  # as if the file did not fit into memory: it is read with O_DIRECT
        source.store = DiskStore(path)
        for _ in range(7):
            plain = max(direct_rate(path, threads) for threads in (1, 2))
            forget(path)
            _, wall, cpu = timed(run)
            walls.append(wall)
            cpus.append(cpu)
            rates.append(plain)
            shares.append(size / wall / plain)
        rows = source.store.rows
        buffered.close()
    values = {
        "cpu_ns_row": statistics.median(cpus) / rows * 1e9,
        "gb_s": size / statistics.median(walls) / 1e9,
        "disk_gb_s": statistics.median(rates) / 1e9,
        "share": statistics.median(shares),
    }
    text = f"{values['gb_s']:.2f} GB/s, {values['share']:.0%} of the {values['disk_gb_s']:.2f} GB/s of a plain O_DIRECT loop"
    return Found(text, values, statistics.median(walls), statistics.median(cpus))


def forget(path: Path) -> None:
    """Write the file out and drop it from the system's cache."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def direct_rate(path: Path, threads: int) -> float:
    """Bytes a second of `threads` threads that read alternate pieces of 8 MB past the system's cache."""
    forget(path)
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    size = os.fstat(file).st_size
    buffers = [touched_pages() for _ in range(threads)]

    def read(thread: int) -> None:
        for begin in range(thread * PIECE, size, threads * PIECE):
            os.preadv(file, [buffers[thread]], begin)

    with ThreadPoolExecutor(threads) as pool:
        _, wall, _ = timed(lambda: list(pool.map(read, range(threads))))
    os.close(file)
    return size / wall


def touched_pages() -> memoryview:
    """A buffer of `PIECE` bytes on page bounds, as O_DIRECT wants, in large pages, into which it reads twice as quickly."""
    pages = mmap.mmap(-1, 2 * PIECE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared ones cannot be large
    pages.madvise(mmap.MADV_HUGEPAGE)
    pages[:] = bytes(2 * PIECE)
    return memoryview(pages)[:PIECE]


if __name__ == "__main__":
    bench.main()
