"""A gang: processes that live at the same time, each with its share, and talk to each other inside the pass.

torch's elastic launcher starts and watches the processes. Each of them reports over a socket that only this user can open,
is told what to run, and sends back its events, its result or its error. The thread that called `run_gang` pumps these
messages, so listeners hear events where the work was started, and Ctrl-C arrives where it should.
"""

from __future__ import annotations

import copy
import logging
import os
import queue
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from uuid import uuid4

import cloudpickle

from braidwater.blocks.source import BlockSource
from braidwater.engines.base import Member
from braidwater.engines.local.gang_member import FOLDER_PREFIX, Assignment
from braidwater.errors import OptionError, WorkerError, WorkerLostError
from braidwater.events import WorkerLost, emit, from_record
from braidwater.options import current_options

Result = TypeVar("Result")

TIMEOUT = 600.0  # seconds that a collective waits for the others
_BLAME_SECONDS = 5.0  # a death this long after an error of another member is its cause, or happened with it

_BOOT = """\
import sys
sys.path[:] = {path!r}
from braidwater.engines.local.gang_member import main
main({address!r}, {key!r})
"""


def run_gang(
    member: Callable[[Member], Result],
    workers: int,
    *,
    source: BlockSource | None = None,
    max_restarts: int = 0,
    timeout: float = TIMEOUT,
) -> list[Result]:
    """Run `member` on `workers` processes that form a torch.distributed process group (gloo); results in order of rank.

    `member` may be any function, a local one or a lambda too: it is handed over by value where it cannot be imported. Each
    process computes on its share of the cores. `source.store` can be read in every member; its table stays here.
    `timeout` (seconds) bounds the wait of every collective.

    An error of a member ends the others and arrives as `WorkerError` with the member's rank, its traceback, and the error
    itself as ``__cause__``. When a process dies, all are started again while `max_restarts` lasts (the member finds its own
    last checkpoint), else `WorkerLostError` is raised. Leaving by any error, Ctrl-C included, leaves no process behind;
    processes also leave by themselves when this one is gone. Starting costs 2-3 s of CPU a process: importing torch.
    """
    if workers < 1:
        raise OptionError("workers", workers, "at least 1")
    if max_restarts < 0:
        raise OptionError("max_restarts", max_restarts, "0 or more")
    for restarts in range(max_restarts + 1):
        assignment = Assignment(member, _without_table(source), current_options(), restarts, _threads(workers), timeout)
        with _Gang(workers, cloudpickle.dumps(assignment)) as gang:
            lost = gang.wait()
        if lost is None:
            return gang.ordered_results()
        rank, reason = lost
        emit(WorkerLost(worker=rank, reason=reason, restart=restarts < max_restarts))
    tried = f" It was started anew {max_restarts} times." if max_restarts else ""
    raise WorkerLostError(f"Worker {rank} of {workers} died: {reason}.{tried}")


def _without_table(source: BlockSource | None) -> BlockSource | None:
    """What members get of a source: its store. A table can hold a connection that no other process may use."""
    if source is None:
        return None
    shared = copy.copy(source)
    shared.table = None  # type: ignore[assignment]
    return shared


def _threads(workers: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // workers, 1)


class _Gang:
    """One start of a gang: the launcher's thread, and the messages of the members."""

    def __init__(self, workers: int, packed: bytes) -> None:
        self.workers = workers
        self._packed = packed
        self._messages: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self._connections: list[Connection] = []
        self._readers: list[Thread] = []
        self._processes: dict[int, int] = {}  # rank: process id
        self._results: dict[int, bytes] = {}
        self._errors: dict[int, tuple[float, bytes | None, str]] = {}
        self._gone: dict[int, float] = {}
        self._exit_codes: dict[int, int] = {}
        self._closing = False

    def __enter__(self) -> _Gang:
        self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))  # 0700: nobody else reads the key
        key = secrets.token_bytes(32)
        self._listener = Listener(str(self._folder / "line") if hasattr(socket, "AF_UNIX") else None, authkey=key)
        boot = self._folder / "boot.py"
        path = [os.path.abspath(entry) for entry in sys.path]
        boot.write_text(_BOOT.format(path=path, address=self._listener.address, key=key), encoding="utf-8")
        self._accepting = Thread(target=self._accept, daemon=True, name="braidwater-gang-accept")
        self._launching = Thread(target=self._launch, args=(boot,), daemon=True, name="braidwater-gang-launch")
        self._accepting.start()
        self._launching.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what still runs: processes see their line close; those that do not look are killed."""
        self._closing = True
        with suppress(OSError), socket.socket(socket.AF_UNIX) as knock:
            knock.connect(self._listener.address)  # wakes `accept`
        self._listener.close()
        for connection in self._connections:
            connection.close()
        for rank, process in self._processes.items():
            if rank not in self._gone:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self._launching.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self) -> tuple[int, str] | None:
        """Pump messages until all have ended. The rank and end of a member that died; errors of members are raised."""
        while (message := self._messages.get())[0] != "ended":
            self._take(*message)
        for reader in self._readers:
            reader.join()  # every process has ended, so every line ends
        while not self._messages.empty():
            self._take(*self._messages.get())
        return self._verdict(message[1])

    def ordered_results(self) -> list[Any]:
        return [cloudpickle.loads(self._results[rank]) for rank in range(self.workers)]

    def _take(self, kind: str, rank: int, *content: Any) -> None:
        if kind == "event":
            emit(from_record(content[0]))
        elif kind == "result":
            self._results[rank] = content[0]
        elif kind == "error":
            self._errors[rank] = (time.monotonic(), *content)
        elif kind == "gone":
            self._gone[rank] = time.monotonic()

    def _verdict(self, launcher_error: BaseException | None) -> tuple[int, str] | None:
        if len(self._results) == self.workers:
            return None
        lost = self._first_death()
        if lost is not None:
            return lost
        if self._errors:
            rank, (_, packed, text) = min(self._errors.items(), key=lambda item: item[1][0])
            cause = None if packed is None else cloudpickle.loads(packed)
            raise WorkerError(f"Worker {rank} of {self.workers} failed.\n{text}") from cause
        if not self._exit_codes:
            raise WorkerError(f"The gang could not be started: {launcher_error}") from launcher_error
        rank, code = min(self._exit_codes.items())
        return rank, f"{_how(code)} before it could report; its own words are on stderr"

    def _first_death(self) -> tuple[int, str] | None:
        """The member whose death ended the gang, unless an error of another one did."""
        silent = set(self._gone) - set(self._errors) - set(self._results)
        first_error = min((error[0] for error in self._errors.values()), default=float("inf"))
        for rank in sorted(silent, key=self._gone.__getitem__):
            code = self._exit_codes.get(rank, 0)
            # SIGTERM is also how the launcher ends the others once one has failed
            first = not self._errors and self._gone[rank] == min(self._gone.values())
            if first or (code not in (0, -signal.SIGTERM) and self._gone[rank] < first_error + _BLAME_SECONDS):
                return rank, _how(code)
        return None

    def _accept(self) -> None:
        """Let processes report until the gang is closed."""
        while True:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError, AuthenticationError):
                if self._closing:
                    return
                continue
            self._connections.append(connection)
            reader = Thread(target=self._read, args=(connection,), daemon=True, name="braidwater-gang-read")
            self._readers.append(reader)
            reader.start()

    def _read(self, connection: Connection) -> None:
        """Queue what one process says, to its end."""
        rank = -1
        try:
            _, rank, process = connection.recv()
            self._processes[rank] = process
            connection.send_bytes(self._packed)
            while True:
                self._messages.put(connection.recv())
        except (EOFError, OSError):
            if rank >= 0:
                self._messages.put(("gone", rank))

    def _launch(self, boot: Path) -> None:
        """Run torch's elastic launcher to its end. It restarts nothing: who died, and what to do, is decided here."""
        error: BaseException | None = None
        try:
            from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
            from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
            from torch.distributed.launcher.api import LaunchConfig, elastic_launch

            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=self.workers,
                run_id=f"braidwater-{uuid4().hex}",
                rdzv_backend="c10d",
                rdzv_endpoint="127.0.0.1:0",  # port 0: the store takes a free one, and no two gangs race for it
                rdzv_configs={"is_host": True},
                local_addr="127.0.0.1",
                max_restarts=0,
                monitor_interval=0.05,
                logs_specs=DefaultLogsSpecs(log_dir=str(self._folder)),
            )
            try:
                with _quiet_launcher():
                    elastic_launch(config, sys.executable)(str(boot))
            except ChildFailedError as failed:
                error = failed
                self._exit_codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
        except BaseException as other:
            error = other
        self._messages.put(("ended", error))


def _how(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory, or killed by hand)" if code == -signal.SIGKILL else "")
    return f"it left with exit code {code}"


@contextmanager
def _quiet_launcher() -> Iterator[None]:
    """The launcher logs what is reported here as errors and events, at length and on stderr."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(("torch.distributed", "torchelastic"))]
    before = [(logger, logger.level) for logger in map(logging.getLogger, names)]
    for logger, _ in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
