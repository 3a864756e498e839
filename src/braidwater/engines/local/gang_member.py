"""What a process of a gang does: report to the one who started it, join the process group, run the member.

The process is a program of its own (see `gang`), so the script that started the gang needs no ``if __name__`` guard.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
from threadpoolctl import threadpool_limits

from braidwater.blocks.source import BlockSource
from braidwater.engines.address import LOCAL, interface_of, own_address
from braidwater.engines.base import Member, OnLoss
from braidwater.engines.phase import enter, phase
from braidwater.events import Event, as_record, listen
from braidwater.options import Options, options

BEAT_SECONDS = 0.5  # between two words of a process on what it is at
START_SECONDS = 120.0  # at least so long the first process waits for the last one to start


@dataclass(frozen=True)
class Assignment:
    """What a process is told when it starts: all that `Member` holds, and where the others meet."""

    member: Any
    size: int
    source: BlockSource | None
    options: Options
    threads: int
    timeout: float
    on_loss: OnLoss
    port: int
    host: str = LOCAL


def main(line: int) -> None:
    """Run one member and leave the process. `line` is the file descriptor of the connection to who started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is decided on by the one who started the gang
    connection = Connection(line)
    talk = _Line(connection)
    threading.Thread(target=_beat, args=(talk,), daemon=True).start()
    try:
        rank, restarts = connection.recv()
        packed = connection.recv_bytes()
    except (OSError, EOFError):
        os._exit(1)  # nobody waits for this process any more
    threading.Thread(target=_leave_with_parent, args=(connection,), daemon=True).start()
    try:
        talk.send("result", cloudpickle.dumps(_run(cloudpickle.loads(packed), rank, restarts, talk)))
    except BaseException as error:
        words = f"{type(error).__name__}: {error}"
        talk.send("error", _packed(error), "".join(traceback.format_exception(error)), words, phase())
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


def _beat(line: _Line) -> None:
    """Say what this process is at, again and again."""
    while True:
        line.send("at", phase())
        time.sleep(BEAT_SECONDS)


def _leave_with_parent(connection: Connection) -> None:
    """Wait for the other end to close, and leave: no process outlives the one who started it."""
    with suppress(OSError, EOFError):
        connection.recv_bytes()
    os._exit(1)


def _run(assignment: Assignment, rank: int, restarts: int, line: _Line) -> Any:
    host = own_address(assignment.host, assignment.port)
    # read by gloo and OpenMP when they are loaded, so before torch is; gloo would take the address that the name of this
    # machine stands for, which on Debian is 127.0.1.1
    if interface := interface_of(host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ.setdefault("OMP_NUM_THREADS", str(assignment.threads))
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    torch.set_num_threads(assignment.threads)

    def emit(event: Event) -> None:
        line.send("event", as_record(event))

    enter("the meeting of all workers")
    patience = timedelta(seconds=max(assignment.timeout, START_SECONDS))
    store = TCPStore(assignment.host, assignment.port, timeout=patience)
    together = assignment.on_loss == "restart"
    if together:
        # start-up takes what it takes; `timeout` is for those who are there
        store.set(f"here/{rank}", "")
        store.wait([f"here/{other}" for other in range(assignment.size)])
        dist.init_process_group(
            "gloo",
            store=PrefixStore("gang", store),
            rank=rank,
            world_size=assignment.size,
            timeout=timedelta(seconds=assignment.timeout),
        )
    enter("the beginning of its work")
    member = Member(rank, assignment.size, emit, restarts, assignment.source, PrefixStore("member", store), host)
    with options(**asdict(assignment.options)), listen(emit), threadpool_limits(assignment.threads, user_api="blas"):
        value = assignment.member(member)
    enter("the end of its work")
    if together:
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
