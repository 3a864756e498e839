"""Options that hold for a whole session: memory, workers, where caches live.

Each one can be given in Python, as an environment variable, or on the command line with the same name::

    import braidwater as bw

    with bw.options(memory="512MB", workers=2):
        ...
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from braidwater.errors import OptionError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What holds for every table, engine and planner made in a session.

    `memory` and `cache_quota` are bytes. `memory` bounds what braidwater itself holds at a time (blocks, readers, states,
    DuckDB's buffers), over and above what the interpreter and the libraries need to be loaded (about 200 MB; 450 MB with
    torch). `workers` is the number of threads or processes of the local engine.
    """

    memory: int = field(default_factory=lambda: parse_bytes(os.environ.get("BRAIDWATER_MEMORY", "1GB"), "memory"))
    workers: int = field(default_factory=lambda: int(os.environ.get("BRAIDWATER_WORKERS", "0")) or _cores())
    cache_directory: Path = field(
        default_factory=lambda: _default_directory("BRAIDWATER_CACHE", "XDG_CACHE_HOME", ".cache")
    )
    cache_quota: int = field(
        default_factory=lambda: parse_bytes(os.environ.get("BRAIDWATER_CACHE_QUOTA", "50GB"), "cache_quota")
    )

    def __post_init__(self) -> None:
        if self.memory < 32 * 10**6:
            raise OptionError("memory", self.memory, "at least 32MB: a worker needs room for a few blocks of 8 MB")
        if self.workers < 1:
            raise OptionError("workers", self.workers, "at least 1")


_current: ContextVar[Options | None] = ContextVar("braidwater_options", default=None)
_session: Options | None = None


def current_options() -> Options:
    """The options in force here: of the innermost `options(...)`, else of the session."""
    global _session
    found = _current.get()
    if found is None:
        _session = _session or Options()
        found = _session
    return found


@contextmanager
def options(**changes: Any) -> Iterator[Options]:
    """Change options inside a `with` block.

    >>> with options(memory="512MB", workers=1) as inside:
    ...     inside.memory, current_options().workers
    (512000000, 1)
    """
    known = set(Options.__dataclass_fields__)
    for name in changes:
        if name not in known:
            raise OptionError("option", name, f"one of {', '.join(sorted(known))}")
    for name in ("memory", "cache_quota"):
        if name in changes:
            changes[name] = parse_bytes(changes[name], name)
    if "cache_directory" in changes:
        changes["cache_directory"] = Path(changes["cache_directory"])
    token = _current.set(replace(current_options(), **changes))
    try:
        yield current_options()
    finally:
        _current.reset(token)


def parse_bytes(text: str | int, name: str = "size") -> int:
    """Bytes from a number or a text such as ``512MB``, ``1.5GiB``.

    >>> parse_bytes("1.5GB"), parse_bytes("2 MiB"), parse_bytes(10)
    (1500000000, 2097152, 10)
    """
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise OptionError(name, text, "a number of bytes such as 512MB or 2GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def format_bytes(count: float) -> str:
    """Bytes as a person reads them.

    >>> format_bytes(2_480_000_000), format_bytes(950)
    ('2.5 GB', '950 B')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_directory(variable: str, xdg: str, fallback: str) -> Path:
    if variable in os.environ:
        return Path(os.environ[variable])
    return Path(os.environ.get(xdg, Path.home() / fallback)) / "braidwater"
