"""DuckDB without a file, which queries of files run in: started once a process, for starting it takes 25 ms of CPU."""

from __future__ import annotations

import atexit
import os
from functools import lru_cache
from threading import Lock
from typing import Any

import duckdb

from braidwater.options import current_options

_starting = Lock()


def open_memory() -> Any:
    """A connection of its own that keeps to the options in force; whoever asked for it closes it."""
    options = current_options()
    with _starting:
        return _database(options.memory, options.workers).cursor()


# bounds and threads are those of a database: the options of the session, and of a `with` block inside
@lru_cache(maxsize=2)
def _database(memory: int, workers: int) -> Any:
    # a third of the bound: readers hold decoded batches, and the blocks made of them, beside DuckDB's own buffers
    config: dict[str, Any] = {"memory_limit": f"{max(memory // 3 // 10**6, 64)}MB", "threads": workers}
    return duckdb.connect(":memory:", config=config)


def _forget() -> None:
    """No database goes into a fork: its threads would not, and letting go of it there aborts the child."""
    _starting.acquire()
    _database.cache_clear()


atexit.register(_database.cache_clear)  # while the interpreter is whole
os.register_at_fork(before=_forget, after_in_parent=_starting.release, after_in_child=_starting.release)
