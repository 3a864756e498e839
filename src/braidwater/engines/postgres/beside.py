"""What runs inside the server for a task: a session starts a worker process beside itself, and carries its messages.

The process is the same program as on the client's machine (`engines/local`). It is not the session itself: the server answers
the death of a session by ending all others and recovering from its log. It ends with the session.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from braidwater.engines.local.fork_server import WorkerProcess
from braidwater.options import Options

_LOOK_SECONDS = 0.05  # between two looks whether the statement was cancelled, or the process has ended
_running: list[WorkerProcess] = []


def start(function: str, preload: Sequence[str], given: Options, workers: int) -> None:
    """Start a process that runs `function` ("module:name") under the options of the client, one of `workers` on this machine.

    Its caches lie where the client's do, where this user may write there too.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    folder = given.cache_directory if os.access(given.cache_directory, os.W_OK) else Options().cache_directory
    own = replace(given, workers=max(cores // workers, 1), cache_directory=folder)
    _running[:] = [WorkerProcess(function, preload=preload)]
    _running[0].connection.send(own)


def talk(said: bytes | None, patience: float) -> tuple[list[bytes], int | None]:
    """Pass on what the client `said`, and wait for what the process says: its messages, and its exit code once it has ended.

    Gives nothing after `patience` seconds: a statement that runs for hours would keep VACUUM from its work.
    """
    import plpy

    process = _running[0]
    if said is not None:
        with suppress(OSError):
            process.connection.send_bytes(said)
    until = time.monotonic() + patience
    found: list[bytes] = []
    while True:
        try:
            while process.connection.poll(0 if found else _LOOK_SECONDS):
                found.append(process.connection.recv_bytes())
        except (EOFError, OSError):
            return found, process.wait(5)
        if found or time.monotonic() >= until:
            return found, None
        plpy.execute("SELECT 1")  # where a cancelled statement ends


def end() -> int:
    """End the process. Its exit code."""
    process = _running.pop()
    process.kill()
    process.connection.close()
    return process.wait(10)
