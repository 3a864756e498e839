"""What a worker sees of its machine."""

from __future__ import annotations

import os
import platform
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from braidwater.engines.local.engine import LocalEngine
from braidwater.errors import OptionError
from braidwater.tables.base import Table


def segments(place: Any = None, workers: int | None = None) -> list[dict[str, Any]]:
    """What each worker sees that would train on `place`: a table, an address such as ``postgresql://…``, or None, this machine.

    Of each: `host`, `process` and `user` (their numbers), `processor`, `cores`, `memory` (bytes), `gpus`, `cuda` (the names
    of the GPUs that torch can use), and the versions `python`, `braidwater` and `torch` (None where it is not there).
    `workers` is their number (by default the option). In a PostgreSQL server they are sessions, and braidwater has to be
    installed there.

    >>> [sorted(one)[:3] for one in segments(workers=1)]
    [['braidwater', 'cores', 'cuda']]
    """
    address = place.address if isinstance(place, Table) and hasattr(place, "address") else place
    if isinstance(address, str) and address.startswith(("postgresql://", "postgres://")):
        from braidwater.engines.postgres import PostgresEngine

        with PostgresEngine(address.partition("::")[0], workers) as engine:
            return engine.segments()
    if not (place is None or isinstance(place, (Table, str, Path))):
        raise OptionError("place", type(place).__name__, "a table, an address or None")
    return [facts() for _ in range(LocalEngine(workers).workers)]


def facts() -> dict[str, Any]:
    """What this process sees; `segments` says of what it tells."""
    gpus = sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))
    torch = _version("torch")
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "user": os.getuid(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
        "cuda": _cuda() if gpus and torch else [],
        "python": platform.python_version(),
        "braidwater": sys.modules["braidwater"].__version__,
        "torch": torch,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cuda() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
