"""Measuring the constants of the cost formulas on this machine."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from braidwater.aggregates.logistic_gradient import LogisticGradient
from braidwater.blocks.base import UNIT_BYTES, Block, allocate
from braidwater.blocks.source import BlockSource
from braidwater.encoding import Design, Encoding, NumberTerm
from braidwater.kernels.choice import KernelName
from braidwater.options import current_options
from braidwater.planner.constants import REFERENCE, Machine, memory_bytes, processor, store_machine
from braidwater.planner.cost import MODEL_BYTES
from braidwater.tables.parquet import ParquetTable

Collectives = Callable[[], dict[str, float]]


def calibrate(*, collectives: bool | Collectives = False, store: bool = True) -> Machine:
    """Measure this machine, store the constants, and return them.

    About two seconds: memory, matrix products, the fused kernel, decoding of Parquet and DuckDB, the disk of the cache
    directory. `collectives` also starts two processes with torch and measures an all-reduce and torch's matrix products
    (five to ten seconds more); a function may be given that measures them elsewhere and returns the constants by name.
    What is not measured keeps the reference machine's value, scaled by this machine's matrix products.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the rates are those of one core: the engines run one BLAS thread in each worker
        found: dict[str, Any] = {**_memory(), **_products(), **_decoding(), **_disk()}
        found |= _kernels(found["gemm_float32"])
    speed = found["gemm_float32"] / REFERENCE.gemm_float32
    found["torch_float32"] = REFERENCE.torch_float32 * speed
    found["torch_bytes"] = found["blas_bytes"] * REFERENCE.torch_bytes / REFERENCE.blas_bytes
    if collectives is True:
        from braidwater.planner.collectives import measure_collectives

        collectives = measure_collectives
    if callable(collectives):
        found |= collectives()
    constants = Machine(
        name=processor(),
        cores=current_options().workers,
        memory_bytes=memory_bytes(),
        measured=date.today().isoformat(),
        talked=callable(collectives),
        **found,
    )
    if store:
        store_machine(constants)
    return constants


def best_of(function: Callable[[], Any], seconds: float = 0.1, least: int = 2) -> float:
    """Seconds of the fastest call, of as many as fit into `seconds`: the one that neighbours disturbed least."""
    best = float("inf")
    begun = time.perf_counter()
    calls = 0
    while calls < least or time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
        calls += 1
    return best


def _memory() -> dict[str, float]:
    """Bytes a second of a plain sum over an array that no cache holds."""
    workers = current_options().workers
    share = np.ones(64 * 2**20 // 8)
    one = share.nbytes / best_of(share.sum)
    arrays = [share, *(share.copy() for _ in range(min(workers, 8) - 1))]
    with ThreadPoolExecutor(len(arrays)) as pool:
        together = best_of(lambda: list(pool.map(np.sum, arrays)))
    everyone = max(sum(array.nbytes for array in arrays) / together, one)
    return {"memory_rate": one, "memory_rate_all": everyone}


def _products() -> dict[str, float]:
    found: dict[str, float] = {}
    size = 512
    for name in ("float32", "float64"):
        a = np.ones((size, size), name)
        out = np.empty_like(a)
        found[f"gemm_{name}"] = 2 * size**3 / best_of(partial(np.matmul, a, a, out=out))
    return found


def _kernels(gemm: float) -> dict[str, float]:
    """The gradient of the log-loss of 30 float32 columns in its two forms: what a pass costs beside matrix products."""
    blocks, design = _probe()
    point = np.full((1, 1, design.width + 1), 0.01)
    seconds: dict[str, float] = {}
    for kernel in get_args(KernelName):
        aggregate = LogisticGradient(design, point, kernel=kernel)
        state = aggregate.initialize()
        started = time.perf_counter()
        aggregate.transition(state, blocks[0])  # the first call imports numba and loads or compiles the kernel
        seconds[f"{kernel}_first"] = time.perf_counter() - started
        seconds[kernel] = best_of(partial(_fold, aggregate, state, blocks))
    rows = sum(block.rows for block in blocks)
    flops = 4 * design.width * rows
    passing = sum(block.bytes for block in blocks) + MODEL_BYTES * rows
    return {
        "blas_bytes": passing / max(seconds["blas"] - flops / gemm, 0.2 * seconds["blas"]),
        "fused_flops": flops / seconds["fused"],
        "compile": min(seconds["fused_first"], 3.0),
    }


def _fold(aggregate: LogisticGradient, state: Any, blocks: Sequence[Block]) -> None:
    for block in blocks:
        aggregate.transition(state, block)


def _probe() -> tuple[list[Block], Design]:
    """Blocks of 48 MB in all, so that they come from memory and not from a cache, as those of a large table do."""
    names = tuple(f"x{j}" for j in range(30))
    random = np.random.default_rng(0)
    rows = 49_152
    arrays: dict[str, NDArray[Any]] = {name: random.standard_normal(rows).astype(np.float32) for name in names}
    arrays["y"] = random.integers(0, 2, rows).astype(np.uint8)
    design = Design((NumberTerm(names, 0),), names, label="y")
    return [Block.from_arrays(arrays) for _ in range(8)], design


def _decoding() -> dict[str, float]:
    """Decoded bytes a second of a Parquet file's own reader and of DuckDB's, and of checking and copying into a block."""
    import duckdb

    rows, columns = 400_000, 8
    random = np.random.default_rng(0)
    data = pa.table({f"x{j}": random.standard_normal(rows).astype(np.float32) for j in range(columns)})
    with tempfile.TemporaryDirectory(prefix="braidwater-") as folder:
        path = f"{folder}/probe.parquet"
        pq.write_table(data, path, compression="snappy", row_group_size=100_000)
        parquet = data.nbytes / best_of(lambda: _read_parquet(path))
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            database = data.nbytes / best_of(lambda: _read_duckdb(connection, path))
        encoded = best_of(lambda: _encode_parquet(path), 0.05)
    encoding = max(encoded - data.nbytes / parquet, 0.2 * encoded)
    return {"decode_parquet": parquet, "decode_duckdb": database, "encode": data.nbytes / encoding}


def _read_parquet(path: str) -> None:
    for _ in pq.ParquetFile(path).iter_batches(65_536, use_threads=False):
        pass


def _encode_parquet(path: str) -> None:
    """A first pass that computes nothing and keeps its blocks in memory, without an engine and its events."""
    rows = ParquetTable([path], name="probe")
    with BlockSource(rows, Encoding().fit(rows), passes=2, cache="memory") as source:
        writer = source.writer()
        for partition in source.partitions():
            for number, batches in enumerate(source.pieces(partition)):
                block = source.encode(batches, writer)
                assert isinstance(block, Block)
                writer.put((partition.number, number), block)


def _read_duckdb(connection: Any, path: str) -> None:
    reader = connection.sql(f"SELECT * FROM read_parquet('{path}')").to_arrow_reader(65_536)
    for _ in reader:
        pass
    reader.close()


def _disk() -> dict[str, float]:
    """The disk of the cache directory: written into the system's cache, read back from there and from the device."""
    folder = current_options().cache_directory
    size, unit = 4 * UNIT_BYTES, UNIT_BYTES
    buffer = allocate(unit)
    buffer[:] = 1
    view: Any = memoryview(buffer)  # type: ignore[arg-type]
    path = folder / f"probe-{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with open(path, "wb", buffering=0) as handle:
            for _ in range(size // unit):
                handle.write(view)
            written = time.perf_counter() - started
            os.fsync(handle.fileno())
        warm = best_of(lambda: _read_file(path, view, direct=False), 0.05)
        cold = best_of(lambda: _read_file(path, view, direct=True), 0.0, least=1)
    except OSError:  # a folder that cannot be written: no cache will be either
        return {}
    finally:
        with suppress(OSError):
            path.unlink()
    return {"disk_write": size / written, "copy": size / warm, "disk_read": size / cold}


def _read_file(path: Path, buffer: Any, *, direct: bool) -> None:
    flags = os.O_RDONLY
    if direct and hasattr(os, "O_DIRECT"):
        flags |= os.O_DIRECT
    handle = os.open(path, flags)
    try:
        while os.readv(handle, [buffer]):
            pass
    finally:
        os.close(handle)
