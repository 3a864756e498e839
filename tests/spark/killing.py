"""Killing what Spark runs, from inside of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

EXECUTOR = b"CoarseGrainedExecutorBackend"


def kill_executor() -> None:
    """Kill the executor that this process works for."""
    _kill(executor_of(os.getpid()))


def kill_python_worker() -> None:
    """Kill Spark's own Python worker that this process works for, or that it is."""
    process = os.getpid()
    while b"pyspark" not in _command(process):
        process = _parent(process)
    _kill(process)


def executor_of(process: int) -> int:
    while EXECUTOR not in _command(process):
        process = _parent(process)
        if process <= 1:
            raise RuntimeError("this process is none of an executor's")
    return process


def once(folder: str, what: str) -> bool:
    """Whether nobody has asked for this before."""
    try:
        (Path(folder) / what).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    time.sleep(30)  # this process is about to be killed by what dies with it


def _command(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
