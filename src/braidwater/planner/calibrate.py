"""Measuring the constants of the cost formulas on this machine."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from braidwater.blocks.base import UNIT_BYTES, allocate
from braidwater.options import current_options
from braidwater.planner.machine import REFERENCE, Machine, memory_bytes, processor, store_machine

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
        found: dict[str, Any] = {**_memory(), **_products(), **_decoding(), **_disk(), **_fused()}
    speed = found["gemm_float32"] / REFERENCE.gemm_float32
    found.setdefault("fused_flops", REFERENCE.fused_flops * speed)
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
    """Matrix products, and what the numpy form of a gradient costs a byte beside its arithmetic."""
    found: dict[str, float] = {}
    size = 512
    for name in ("float32", "float64"):
        a = np.ones((size, size), name)
        out = np.empty_like(a)
        found[f"gemm_{name}"] = 2 * size**3 / best_of(lambda a=a, out=out: np.matmul(a, a, out=out))  # type: ignore[misc]
    block = np.ones((30, 16_384), np.float32)
    weights = np.full(30, 0.01, np.float32)
    seconds = best_of(lambda: _gradient(block, weights))
    arithmetic = 4 * block.size / found["gemm_float32"]
    found["blas_bytes"] = block.nbytes / max(seconds - arithmetic, 0.2 * seconds)
    return found


def _gradient(block: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """The gradient of the log-loss in numpy: the pattern of every pass that is made of skinny products."""
    predictor = weights @ block
    residual = 1 / (1 + np.exp(-predictor)) - 0.5
    np.log1p(np.exp(-np.abs(predictor))).sum()
    return np.asarray(block @ residual)


def _decoding() -> dict[str, float]:
    rows, columns = 200_000, 8
    random = np.random.default_rng(0)
    data = pa.table({f"x{j}": random.standard_normal(rows).astype(np.float32) for j in range(columns)})
    with tempfile.TemporaryDirectory(prefix="braidwater-") as folder:
        path = f"{folder}/probe.parquet"
        pq.write_table(data, path, compression="snappy", row_group_size=100_000)
        parquet = data.nbytes / best_of(lambda: _read_parquet(path))
        duckdb = data.nbytes / best_of(lambda: _read_duckdb(path))
    target = allocate(data.nbytes).view(np.float32).reshape(columns, rows)

    def encode() -> None:
        for j, column in enumerate(data.columns):
            values = column.chunk(0).to_numpy(zero_copy_only=False)
            target[j] = np.where(np.isfinite(values), values, 0)  # the check that every encoder makes

    return {"decode_parquet": parquet, "decode_duckdb": duckdb, "encode": data.nbytes / best_of(encode)}


def _read_parquet(path: str) -> None:
    for _ in pq.ParquetFile(path).iter_batches(65_536, use_threads=False):
        pass


def _read_duckdb(path: str) -> None:
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": 1})
    try:
        reader = connection.sql(f"SELECT * FROM read_parquet('{path}')").to_arrow_reader(65_536)
        for _ in reader:
            pass
        reader.close()
    finally:
        connection.close()


def _disk() -> dict[str, float]:
    """The disk of the cache directory: written into the system's cache, read back from there and from the device."""
    folder = current_options().cache_directory
    size, unit = 4 * UNIT_BYTES, UNIT_BYTES
    buffer = allocate(unit)
    buffer[:] = 1
    path = folder / f"probe-{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with open(path, "wb", buffering=0) as handle:
            for _ in range(size // unit):
                handle.write(buffer)
            written = time.perf_counter() - started
            os.fsync(handle.fileno())
        warm = best_of(lambda: _read_file(path, buffer, direct=False), 0.05)
        cold = best_of(lambda: _read_file(path, buffer, direct=True), 0.0, least=1)
    except OSError:  # a folder that cannot be written: no cache will be either
        return {}
    finally:
        with suppress(OSError):
            path.unlink()
    return {"disk_write": size / written, "copy": size / warm, "disk_read": size / cold}


def _read_file(path: Path, buffer: NDArray[Any], *, direct: bool) -> None:
    flags = os.O_RDONLY
    if direct and hasattr(os, "O_DIRECT"):
        flags |= os.O_DIRECT
    handle = os.open(path, flags)
    try:
        while os.readv(handle, [memoryview(buffer)]):
            pass
    finally:
        os.close(handle)


def _fused() -> dict[str, float]:
    """The fused kernel of the logistic gradient, where numba can compile it."""
    try:
        from braidwater.planner.fused_probe import fused_flops
    except ImportError:
        return {}
    return fused_flops()
