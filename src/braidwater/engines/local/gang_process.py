"""A process of a gang, seen from where it was started: what it was told, what it says, how it ended."""

from __future__ import annotations

import queue
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import cloudpickle

from braidwater.engines.local.fork_server import Process, Start, WorkerProcess
from braidwater.errors import WorkerError

Message = tuple["GangProcess", tuple[Any, ...]]

# what a strategy and an optimizer's first step import
_NEEDED = ("torch", "torch._dynamo", "torch.distributed.tensor", "braidwater.parallel.local_training")
_POLL_SECONDS = 0.25  # a child of the process can hold its line open after its death
_NO_TIME = re.compile(r"timed? ?-?out", re.IGNORECASE)
_NO_MEMORY = re.compile(r"MemoryError|can't allocate memory|out of memory")
_KILLS = Path("/sys/fs/cgroup/memory.events")


@dataclass(frozen=True)
class MemberError:
    """An error of a member: itself, where it could be handed over, its traceback, and its type and words."""

    cause: BaseException | None
    text: str
    words: str


class GangProcess:
    """One member's process. `take` gets what it says, from the queue where its thread leaves it."""

    def __init__(
        self,
        rank: int,
        restarts: int,
        packed: bytes,
        messages: queue.Queue[Message],
        start: Start = WorkerProcess,
    ) -> None:
        self.rank = rank
        self.restarts = restarts
        self.running = True
        self.result: bytes | None = None
        self.error: MemberError | None = None
        self.end = ""  # how it died
        self.phase = "its start"
        self._since = self._heard = time.monotonic()
        self._kernel_kills = _kernel_kills()
        self._process = start("braidwater.engines.local.gang_member:main", preload=_NEEDED)
        self._line = self._process.connection
        self._attending = Thread(target=self._attend, args=(packed, messages), daemon=True, name="braidwater-gang")
        self._attending.start()

    @property
    def silence(self) -> float:
        """Seconds since it was heard."""
        return time.monotonic() - self._heard

    @property
    def seconds(self) -> float:
        """For how long it has been at `phase`."""
        return time.monotonic() - self._since

    @property
    def timed_out(self) -> bool:
        """Whether its error is that it waited in vain."""
        if self.error is None or not isinstance(self.error.cause, RuntimeError | TimeoutError | WorkerError | None):
            return False  # torch's are RuntimeErrors; a name in somebody's code may sound like one
        return _NO_TIME.search(self.error.words) is not None

    @property
    def out_of_memory(self) -> bool:
        return self.error is not None and _NO_MEMORY.search(self.error.words) is not None

    def take(self, message: tuple[Any, ...]) -> bool:
        """Note what it said. Whether it failed by that."""
        kind, *content = message
        self._heard = time.monotonic()
        if kind == "at":
            self._at(*content[0])
        elif kind == "result":
            self.result = content[0]
        elif kind == "error":
            packed, text, words, phase = content
            self._at(*phase)
            self.error = MemberError(None if packed is None else cloudpickle.loads(packed), text, words)
            return True
        elif kind == "ended" and self.running:
            self.running = False
            kills = _kernel_kills()
            self.end = self._process.lost or _how(content[0], None if kills is None else kills != self._kernel_kills)
            return self.result is None and self.error is None
        return False

    def _at(self, phase: str, seconds: float) -> None:
        self.phase, self._since = phase, time.monotonic() - seconds

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Wait for its end, after `kill`."""
        self._process.wait()
        self._attending.join()
        self._line.close()

    def _attend(self, packed: bytes, messages: queue.Queue[Message]) -> None:
        """Tell the process what to run, and queue what it says, to its end."""
        with suppress(EOFError, OSError):
            self._line.send((self.rank, self.restarts))
            self._line.send_bytes(packed)
        _pump(self._line, self._process, lambda message: messages.put((self, message)))
        messages.put((self, ("ended", self._process.wait())))


def _pump(line: Connection, process: Process, put: Callable[[Any], None]) -> None:
    """Hand over what comes, until the process has ended."""
    while True:
        try:
            if line.poll(_POLL_SECONDS):
                put(line.recv())
            elif process.poll() is not None:
                return
        except (EOFError, OSError):
            return


def _how(code: int, by_kernel: bool | None) -> str:
    if code >= 0:
        return f"it left with exit code {code}; its own words, if any, are on stderr"
    name = signal.Signals(-code).name
    if code != -signal.SIGKILL:
        return f"killed by {name}"
    if by_kernel is None:
        return f"killed by {name} (out of memory, or killed by hand)"
    return f"killed by {name} ({'by the kernel: out of memory' if by_kernel else 'not for want of memory'})"


def _kernel_kills() -> int | None:
    """How many processes of this container the kernel has killed for want of memory; None where it does not say."""
    try:
        return int(dict(line.split() for line in _KILLS.read_text().splitlines())["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None
