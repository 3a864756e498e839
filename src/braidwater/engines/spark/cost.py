"""What passes cost on Spark, and what they would cost on this machine alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

from braidwater.engines.base import Way
from braidwater.options import format_bytes

# seconds, on two cores of an EPYC with pyspark 4.3: python benchmarks/spark_constants.py
JOB = 0.2  # a job of Python workers that are warm
STAY = 0.12  # the workers of an iteration, until all have called
ROUND = 0.0007  # a pass by workers that stay, beside the work
READ = 1.7e-9  # a worker's core: a byte of numbers from Parquet to a block
KEEP = 4e-9  # ... written to the worker's disk for later passes
MEMORY = 0.17e-9  # ... of kept blocks
EXPORT = 25e-9  # a core: a byte of numbers computed by Spark and written as Parquet
LOCAL_WRITE = 1.7e-9  # a byte of numbers written as Parquet by this process
FEW_PASSES = 3  # below that, workers that stay cost more than a job a pass
SHARD_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Question:
    """What the costs follow from. `bytes` are those of the table where it lies, `written`: as files that workers can open."""

    rows: int
    columns: int
    all_columns: int
    bytes: int
    passes: int
    workers: int
    slots: int
    written: bool
    in_spark: bool

    @property
    def numbers(self) -> int:
        """Bytes of the columns read, as doubles."""
        return 8 * self.rows * max(self.columns, 1)

    @property
    def whole(self) -> int:
        """Bytes of all columns, as doubles."""
        return 8 * self.rows * max(self.all_columns, 1)


def estimates(question: Question) -> list[Way]:
    """Spark's own way first, since it was asked for; then this machine alone, which is often the faster one."""
    embedded = _embedded(question)
    return [_shards(question, embedded), embedded]


def _shards(q: Question, embedded: Way) -> Way:
    keep = KEEP if q.passes > 1 else 0.0
    work = (READ + keep + (q.passes - 1) * MEMORY) * q.numbers / q.workers
    overhead = JOB * q.passes if q.passes < FEW_PASSES else STAY + ROUND * q.passes
    seconds = _writing(q) + work + overhead
    leaving = 0 if q.written or q.in_spark else q.whole
    return Way(f"{q.workers} workers", seconds, leaving, note=_note(q, seconds, embedded))


def _embedded(q: Question) -> Way:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seconds = (READ + (q.passes - 1) * MEMORY) * q.numbers / cores
    if q.in_spark:
        return Way("the embedded engine on this machine", _writing(q) + seconds, q.numbers)
    return Way("the embedded engine on this machine", seconds, 0)


def _writing(q: Question) -> float:
    """Until the rows lie where workers can open them."""
    if q.written:
        return 0.0
    return EXPORT * q.whole / q.workers if q.in_spark else LOCAL_WRITE * q.whole


def _note(q: Question, seconds: float, embedded: Way) -> str:
    jobs = f"{q.passes} jobs" if q.passes > 1 else "1 job"
    if q.passes >= FEW_PASSES:
        jobs = "1 job with a barrier, for all passes" if q.workers > 1 else "1 job for all passes"
    parts = [
        f"Spark: {jobs}, {q.workers} of {q.slots} slots",
        f"about {max(q.numbers // SHARD_BYTES, 1):,} shards and {q.rows // q.workers:,} rows a worker",
    ]
    if q.written:
        parts.append("workers open the files themselves, 0 bytes through the JVM")
    elif q.in_spark:
        parts.append(f"{format_bytes(q.whole)} computed in the JVM and written as Parquet, once")
    else:
        parts.append(f"{format_bytes(q.whole)} written as Parquet by this process, once")
    faster = f". The embedded engine: {seconds / max(embedded.seconds, 1e-3):.0f} times faster here"
    return "; ".join(parts) + (faster if embedded.seconds * 1.5 < seconds else "")
