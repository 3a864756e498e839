"""What a process of a gang does: report to the one who started it, join the process group, run the member.

The process is a program of its own (see `gang`), so the script that started the gang needs no ``if __name__`` guard.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import cloudpickle

from braidwater.blocks.source import BlockSource
from braidwater.engines.base import Member
from braidwater.events import Event, as_record, listen
from braidwater.options import Options, options

FOLDER_PREFIX = "braidwater-gang-"


@dataclass(frozen=True)
class Assignment:
    """What a process is told when it reports: all that `Member` holds, and how to join the others."""

    member: Any
    source: BlockSource | None
    options: Options
    restarts: int
    threads: int
    timeout: float


def main(address: str, key: bytes) -> None:
    """Run one member and leave the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is decided on by the one who started the gang
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        connection = Client(address, authkey=key)
    except (OSError, EOFError):
        os._exit(1)  # nobody waits for this process any more
    line = _Line(connection)
    line.send("hello", rank, os.getpid())
    try:
        packed = connection.recv_bytes()
    except (OSError, EOFError):
        os._exit(1)
    threading.Thread(target=_leave_with_parent, args=(connection, Path(address).parent), daemon=True).start()
    try:
        value = _run(cloudpickle.loads(packed), rank, size, line)
        line.send("result", rank, cloudpickle.dumps(value))
    except BaseException as error:
        line.send("error", rank, _packed(error), "".join(traceback.format_exception(error)))
        code = 1
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    # not sys.exit: threads of torch that wait for a peer that died would hold the process for minutes
    os._exit(code)


class _Line:
    """The connection to the one who started the gang. Any thread may send."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, *message: object) -> None:
        with self._lock, suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(message)


def _leave_with_parent(connection: Connection, folder: Path) -> None:
    """Wait for the other end to close, and leave: no process outlives the one who started it."""
    try:
        connection.recv_bytes()
    except (OSError, EOFError):
        if folder.name.startswith(FOLDER_PREFIX):  # one that was killed could not clean up
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


def _run(assignment: Assignment, rank: int, size: int, line: _Line) -> Any:
    # read by gloo and OpenMP when they are loaded, so before torch is
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("OMP_NUM_THREADS", str(assignment.threads))
    import torch
    import torch.distributed as dist

    torch.set_num_threads(assignment.threads)

    def emit(event: Event) -> None:
        line.send("event", rank, as_record(event))

    dist.init_process_group("gloo", timeout=timedelta(seconds=assignment.timeout))
    member = Member(rank, size, emit, assignment.restarts, assignment.source)
    with options(**asdict(assignment.options)), listen(emit):
        value = assignment.member(member)
    dist.destroy_process_group()
    return value


def _packed(error: BaseException) -> bytes | None:
    """The error itself where it can be handed over; its text goes with it in any case."""
    try:
        packed: bytes = cloudpickle.dumps(error)
        cloudpickle.loads(packed)
    except Exception:
        return None
    return packed
