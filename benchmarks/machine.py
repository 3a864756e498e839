"""What a figure was measured on: processor, cores, memory, and the versions of those who were compared."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "braidwater", "numpy", "numba", "pyarrow", "duckdb", "scikit-learn", "scipy", "polars", "torch", "dask", "dask-ml", "pyspark",
    "xgboost",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """Processor, cores, gigabytes of memory, system and Python."""
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(int((_line("/proc/meminfo", "MemTotal") or "0").split()[0]) / 1e6, 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def busy_seconds() -> float:
    """CPU seconds of everybody on the machine since it started; 0 where the system does not tell."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except OSError:
        return 0.0
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _line(file: str, name: str) -> str:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
