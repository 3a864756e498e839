"""What a task of Spark's does for a worker process: start it, carry its messages to the driver and back, say how it ended.

The process is the same program as on one machine (`engines/local`). It is not Spark's own Python worker: that one is used
again by others, so it must keep no threads, no process group and no memory of a training, and nobody could tell how it died.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from braidwater.engines.address import HOST
from braidwater.engines.local.fork_server import WorkerProcess
from braidwater.engines.spark.line import Line, call

_LOOK_SECONDS = 0.25  # a child of the process can hold its connection open after its death


@dataclass(frozen=True)
class Host:
    """Called in a task of Spark's with the number of the task; `tickets` says which process that is."""

    host: str
    port: int
    key: bytes
    tickets: tuple[str, ...]
    function: str
    preload: tuple[str, ...]

    def __call__(self, number: int) -> Iterator[bytes]:
        line = call(self.host, self.port, self.key, self.tickets[number])
        process = WorkerProcess(self.function, preload=self.preload, environment=_address())
        try:
            _carry(line, process)
        finally:
            process.kill()
            process.wait()
            line.close()
        return iter(())


def _address() -> dict[str, str]:
    """Where Spark was told which address of this machine others use, the gang is told too."""
    told = os.environ.get(HOST) or os.environ.get("SPARK_LOCAL_IP")
    return {HOST: told} if told else {}


def _carry(line: Line, process: WorkerProcess) -> None:
    """Until the process has ended, or nobody at the driver wants it any more."""
    inner: Connection = process.connection
    while True:
        ready: list[Any] = wait([line.fileno(), inner], _LOOK_SECONDS)
        try:
            if line.fileno() in ready:
                inner.send_bytes(line.receive()[1])
        except BrokenPipeError:  # it has ended, and is about to be found so
            pass
        except (EOFError, OSError):
            return
        try:
            if inner in ready:
                line.send("m", inner.recv_bytes())
                continue
        except (EOFError, ConnectionResetError):
            pass
        else:
            if process.poll() is None:
                continue
        line.send("e", str(process.wait()).encode())
        return
