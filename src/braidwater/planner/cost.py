"""What training costs before it is paid for: seconds, memory and bytes of the passes of an aggregate.

The constants come from a `Machine`, the figures of the model from its `Work`.
A pass takes the longest of three things that overlap: the arithmetic of its workers, the memory bus,
the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from braidwater.blocks.base import UNIT_BYTES
from braidwater.planner.base import Cache, Kernel, Work
from braidwater.planner.constants import Machine

if TYPE_CHECKING:
    from braidwater.tables.base import TableStatistics

BLOCK_SECONDS = 60e-6  # Python's share of a block: taking it up, its state, its events
PASS_SECONDS = 1e-3  # starting threads, the decision between two passes
CACHED_SHARE = 0.6  # of the free memory: a larger file is read past the system's cache (see `DiskStore`)
MODEL_BYTES = 36  # in and out of temporaries for a row and model: predictor, loss, residual
_READER_BYTES = {"parquet": 100_000_000, "duckdb": 200_000_000, "csv": 200_000_000, "arrow": 0, "postgres": 60_000_000}


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds, the peak of memory, and bytes read (of table or cache), moved between workers, and written."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory: int = 0
    bytes_read: int = 0
    bytes_moved: int = 0
    bytes_written: int = 0

    def __add__(self, other: Cost) -> Cost:
        """One after the other: times and bytes add up, the larger peak counts."""
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.memory, other.memory),
            self.bytes_read + other.bytes_read,
            self.bytes_moved + other.bytes_moved,
            self.bytes_written + other.bytes_written,
        )

    def times(self, count: int) -> Cost:
        """`count` of it, one after the other.

        >>> Cost(seconds=0.5, memory=100, bytes_read=7).times(3)
        Cost(seconds=1.5, cpu_seconds=0.0, memory=100, bytes_read=21, bytes_moved=0, bytes_written=0)
        """
        return Cost(
            self.seconds * count,
            self.cpu_seconds * count,
            self.memory if count else 0,
            self.bytes_read * count,
            self.bytes_moved * count,
            self.bytes_written * count,
        )


@dataclass(frozen=True)
class Setting:
    """One way to do the work: what a plan chooses. `options` are those of the strategy that are not its defaults."""

    strategy: str
    workers: int
    cache: Cache
    kernel: Kernel
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Job:
    """The work, the table it runs over and the machine it runs on. `room` is memory that the system can still give (bytes)."""

    statistics: TableStatistics
    work: Work
    machine: Machine
    reader: str
    memory: int
    room: int

    @property
    def rows(self) -> int:
        return self.statistics.rows

    @property
    def block_bytes(self) -> int:
        return self.rows * self.work.row_bytes

    @property
    def unit_rows(self) -> int:
        return max(UNIT_BYTES // max(self.work.row_bytes, 1), 1)

    @property
    def units(self) -> int:
        return max(ceil(self.rows / self.unit_rows), 1)

    @property
    def decoded_row(self) -> int:
        """Bytes of a row as Arrow hands it over; a category's code is four bytes there."""
        return max(self.work.row_bytes, 4 * len(self.work.read_columns))

    @property
    def is_cold(self) -> bool:
        """Whether the blocks outgrow the system's file cache, so that every pass reads the device."""
        return self.block_bytes > CACHED_SHARE * self.room


def compute_seconds(job: Job, kernel: Kernel) -> float:
    """CPU seconds of the arithmetic of one pass over all rows."""
    work, machine = job.work, job.machine
    flops, size = work.flops_per_row, work.row_bytes
    passing = size + MODEL_BYTES * work.models
    match kernel:
        case "fused":
            row = flops / machine.fused_flops
        case "blas":
            row = flops / machine.gemm_float64 + passing / machine.blas_bytes
        case "torch":
            row = flops / machine.torch_float32 + passing / machine.torch_bytes
    states = 3 * work.state_bytes * job.units / machine.memory_rate  # every unit's state is made, filled and merged
    return job.rows * row + states + job.units * BLOCK_SECONDS


def first_pass(job: Job, setting: Setting, *, compute: bool = True) -> Cost:
    """The pass that reads the table: decode, encode, compute, and keep the blocks where they are kept."""
    machine = job.machine
    decoded = job.rows * job.decoded_row
    cpu = decoded / machine.decode(job.reader) + job.block_bytes / machine.encode
    cpu += compute_seconds(job, setting.kernel) if compute else job.units * BLOCK_SECONDS
    written = job.block_bytes if setting.cache == "disk" else 0
    cpu += written / machine.disk_write
    if setting.cache == "memory":
        cpu += job.block_bytes / machine.memory_rate
    read = min(job.statistics.bytes, decoded)
    device = 0.0 if job.reader == "arrow" else read / machine.disk_read if read > CACHED_SHARE * job.room else 0.0
    if job.is_cold:
        device += written / machine.disk_write
    seconds = _overlapped(job, setting.workers, cpu, decoded + job.block_bytes, device)
    return Cost(seconds, cpu, sum(memory_parts(job, setting, first=True, compute=compute).values()), read, 0, written)


def later_pass(job: Job, setting: Setting, *, compute: bool = True) -> Cost:
    """A pass over the kept blocks, or over the table again where none are kept."""
    if setting.cache == "none":
        return first_pass(job, setting, compute=compute)
    machine = job.machine
    cpu = compute_seconds(job, setting.kernel) if compute else job.units * BLOCK_SECONDS
    device = 0.0
    if setting.cache == "disk":
        cpu += job.block_bytes / machine.copy
        device = job.block_bytes / machine.disk_read if job.is_cold else 0.0
    seconds = _overlapped(job, setting.workers, cpu, job.block_bytes, device)
    return Cost(seconds, cpu, sum(memory_parts(job, setting, first=False).values()), job.block_bytes)


def _overlapped(job: Job, workers: int, cpu: float, memory_bytes: int, device_seconds: float) -> float:
    busy = min(workers, job.machine.cores, job.units)
    return PASS_SECONDS + max(cpu / busy, memory_bytes / job.machine.memory_rate_all, device_seconds)


def memory_parts(job: Job, setting: Setting, *, first: bool, compute: bool = True) -> dict[str, int]:
    """The peak of a pass by what takes it (bytes), over and above the interpreter and its libraries."""
    work = job.work
    rows = min(job.unit_rows, job.rows)
    held = setting.workers * rows * (work.row_bytes + (2 * job.decoded_row if first else 0))
    kept = job.block_bytes if setting.cache == "memory" else 0
    if setting.cache == "memory" and not first:
        held = 0  # a kept block is used where it lies
    reads = first or setting.cache == "none"
    return {
        "blocks": held,
        "kept blocks": kept,
        "states": (2 * setting.workers + 1) * work.state_bytes * compute,
        "working memory": setting.workers * work.working_bytes * compute,
        "reader": min(_READER_BYTES[job.reader], job.memory // 3, 4 * job.statistics.bytes) if reads else 0,
    }
