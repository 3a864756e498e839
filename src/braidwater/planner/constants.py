"""What the planner knows of the machine: measured once, kept beside the block caches, found again by what the machine is."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from braidwater.options import current_options

# what reads and writes the constants is imported there: many a process wants the reference machine's only

VERSION = 5  # raised when a constant changes its meaning: what older versions stored is then measured anew


@dataclass(frozen=True)
class Machine:
    """The constants of the cost formulas. Rates are for one core and in units a second, unless the name says otherwise.

    `memory_rate` is bytes read from memory by one core, `memory_rate_all` by all at once. `gemm_float32`, `gemm_float64`
    are floating point operations of a matrix product, `torch_float32` those of torch. `fused_flops` are operations of the
    fused kernels on blocks that come from memory; `blas_bytes` and `torch_bytes` are block bytes that pass through the
    temporaries of the numpy and torch forms. `decode_*` and `encode` are bytes of decoded columns, `copy` bytes of a block
    fetched from the system's file cache, `disk_*` bytes of the device, for all cores together. `collective_latency`
    (seconds) and `collective_byte` (seconds a byte) are of an all-reduce between two processes here, `shared_*` of one
    through memory that they share, `gather_byte` and `scatter_byte` of an all-gather and a reduce-scatter, `send_*` of a message
    from one to the other. `background_wait` is how much longer an exchange takes whose threads want a core while all cores train,
    `meeting` how long two processes wait for the slower one that meet after a second of work; it grows with the root of that.
    `contention` is how much longer a step on 256 rows takes when two processes train,
    `contention_small` one on 16; `half_speed` how many times faster than in 32 bits a matrix product is in 16; `step_call`
    seconds of Python and dispatch of a small net's step; `start` seconds to start a session's first gang, `compile` to load
    the fused kernels.
    """

    name: str = "reference"
    cores: int = 2
    memory_bytes: int = 23_000_000_000
    memory_rate: float = 30e9
    memory_rate_all: float = 42e9
    gemm_float32: float = 115e9
    gemm_float64: float = 57e9
    torch_float32: float = 95e9
    fused_flops: float = 12.8e9
    blas_bytes: float = 6e9
    torch_bytes: float = 8e9
    decode_parquet: float = 1.0e9
    decode_duckdb: float = 0.55e9
    decode_arrow: float = 12e9
    decode_csv: float = 0.1e9
    decode_postgres: float = 0.1e9
    encode: float = 0.8e9
    disk_read: float = 1.0e9
    disk_write: float = 1.8e9
    copy: float = 25e9
    collective_latency: float = 0.6e-3
    collective_byte: float = 0.7e-9
    shared_latency: float = 0.05e-3
    shared_byte: float = 0.22e-9
    gather_byte: float = 0.6e-9
    scatter_byte: float = 0.9e-9
    send_latency: float = 0.1e-3
    send_byte: float = 0.4e-9
    background_wait: float = 4e-3
    meeting: float = 7e-3
    contention: float = 1.25
    contention_small: float = 1.4
    half_speed: float = 3.0
    step_call: float = 0.35e-3
    start: float = 3.0
    compile: float = 0.4
    measured: str = ""  # the day of the calibration; empty for constants that were never measured here
    talked: bool = False  # whether talking between processes was measured too

    def gemm(self, dtype: str = "float64") -> float:
        return self.gemm_float32 if dtype == "float32" else self.gemm_float64

    def decode(self, reader: str) -> float:
        """Decoded bytes a second and core, for a reader of `READERS`."""
        rate: float = getattr(self, f"decode_{reader}")
        return rate

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any]) -> Machine:
        known = {field.name for field in fields(Machine)}
        return Machine(**{name: value for name, value in document.items() if name in known})


READERS = ("parquet", "duckdb", "arrow", "csv", "postgres")

REFERENCE = Machine()
"""Two Zen 5 cores, 23 GB of memory and a virtual disk: what plans are made with until a machine is calibrated."""


def machine(talking: bool = False) -> Machine:
    """The constants of this machine: those stored, else measured now (about two seconds) and stored.

    With `talking`, what processes need to talk too (five to ten seconds more, where it is not stored).
    """
    found = stored_machine()
    if found is None or (talking and not found.talked):
        from braidwater.planner.calibrate import calibrate

        found = calibrate(collectives=talking)
    return found


def stored_machine() -> Machine | None:
    """The constants of this machine when they were measured before, by any session of this user."""
    return _read(machine_path())


def store_machine(constants: Machine) -> None:
    """Keep the constants for later sessions. Where the folder cannot be written, this session keeps them."""
    import json
    from uuid import uuid4

    path = machine_path()
    temporary = path.with_name(f"{path.name}.{uuid4().hex[:8]}.new")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(constants.to_json(), indent=1))
        os.replace(temporary, path)
    _read.cache_clear()
    if _read(path) is None:
        _unstored[path] = constants
        _read.cache_clear()


def machine_path() -> Path:
    """Where the constants lie: the name holds what would make them wrong (processor, cores, memory, version)."""
    import hashlib

    identity = f"{VERSION}|{processor()}|{current_options().workers}|{memory_bytes() >> 28}"
    return current_options().cache_directory / f"machine-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.json"


def memory_bytes() -> int:
    """Memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def available_memory() -> int:
    """Memory that can be had now without pushing anything out; all of it where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, memory_bytes())
    return memory_bytes()


@lru_cache(maxsize=1)
def processor() -> str:
    """The processor's name as the system gives it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    import platform

    return platform.processor() or platform.machine()


_unstored: dict[Path, Machine] = {}


@lru_cache(maxsize=8)
def _read(path: Path) -> Machine | None:
    import json

    try:
        return Machine.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # none yet, or damaged: it is measured anew
        return _unstored.get(path)
