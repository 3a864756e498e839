"""A gang: processes that live at the same time, each with its share, and talk to each other inside the pass.

Each process is told what to run over a connection of its own, and sends back what it is at, its events, its result or its
error. The thread that called `run_gang` pumps these messages, so listeners hear events where the work was started, and Ctrl-C
arrives where it should.
"""

from __future__ import annotations

import copy
import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import cloudpickle

from braidwater.blocks.source import BlockSource
from braidwater.engines.address import LOCAL
from braidwater.engines.base import TIMEOUT, Member, OnLoss
from braidwater.engines.local.fork_server import Start, WorkerProcess
from braidwater.engines.local.gang_member import START_SECONDS, Assignment
from braidwater.engines.local.gang_process import GangProcess, Message
from braidwater.errors import OptionError, WorkerError, WorkerLostError
from braidwater.events import WorkerLost, emit, from_record
from braidwater.options import current_options

Result = TypeVar("Result")

_LOOK_SECONDS = 0.5  # between two looks for processes that say nothing
_BLAME_SECONDS = 1.0  # a death this long after an error of another member is its cause: a lost peer is an error too
_LEAST_SILENCE = 10.0  # seconds: a process that is only slow to start, or short of processor time, is not given up


def run_gang(
    member: Callable[[Member], Result],
    workers: int,
    *,
    source: BlockSource | None = None,
    max_restarts: int = 0,
    on_loss: OnLoss = "restart",
    timeout: float = TIMEOUT,
    start: Start = WorkerProcess,
    host: str = LOCAL,
    threads: int | None = None,
    available: Callable[[int], int] | None = None,
) -> list[Result]:
    """Run `member` on `workers` processes (see `Engine.gang`); results in order of rank.

    `member` may be any function, a local one or a lambda too: it is handed over by value where it cannot be imported. Each
    process computes on its share of the cores. `source.store` can be read in every member; its table stays here.

    An error of a member ends the others and arrives as `WorkerError` with the member's rank, its traceback, and the error
    itself as ``__cause__``. When a process dies, all are started again while `max_restarts` lasts (the member finds its own
    last checkpoint), else `WorkerLostError` is raised; with ``on_loss="continue"`` only the dead one is started again, and the
    others go on. `start` places the processes, `host` is this machine as they see it, `threads` are those of each, where it
    is another machine than this one; `available` says how many of so many workers can be started again, where places may
    have been lost with workers. Leaving by any error, Ctrl-C included, leaves no process behind; processes also leave by
    themselves when this one is gone. The first start takes 3 s, a later one 0.1 s (see `fork_server`).
    """
    if workers < 1:
        raise OptionError("workers", workers, "at least 1")
    if max_restarts < 0:
        raise OptionError("max_restarts", max_restarts, "0 or more")
    if on_loss not in ("restart", "continue"):
        raise OptionError("on_loss", on_loss, "restart or continue")
    if not timeout > 0:
        raise OptionError("timeout", timeout, "a number of seconds above 0")
    for restarts in range(max_restarts + 1):
        if restarts and available is not None:
            workers = available(workers)
        store = _meeting_place(timeout, host)
        assignment = Assignment(
            member,
            workers,
            _without_table(source),
            current_options(),
            threads or _threads(workers),
            timeout,
            on_loss,
            store.port,
            host,
        )
        again = max_restarts if on_loss == "continue" else 0
        with _Gang(workers, cloudpickle.dumps(assignment), restarts, again, on_loss, timeout, start) as gang:
            loss = gang.run()
        if loss is None:
            return gang.ordered_results()
        if on_loss == "continue":
            break
        emit(WorkerLost(worker=loss.rank, reason=loss.reason, restart=restarts < max_restarts))
    assert loss is not None
    tried = f" It was started anew {max_restarts} times." if max_restarts else ""
    raise WorkerLostError(loss.text(workers) + tried) from loss.error


def _meeting_place(timeout: float, host: str) -> Any:
    """The store by which members find each other. It lies here, so that no member's death takes it away."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # port 0: it takes a free one, and no two gangs race for it
    patience = timedelta(seconds=max(timeout, START_SECONDS))
    return TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=patience)


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


@dataclass(frozen=True)
class _Loss:
    """A member that died or did not come, and the error of another one that told of it."""

    rank: int
    reason: str
    error: BaseException | None = None
    missing: str = ""

    def text(self, workers: int) -> str:
        return self.missing or f"Worker {self.rank} of {workers} died: {self.reason}."


class _Gang:
    """One start of a gang, and the messages of its members."""

    def __init__(
        self,
        workers: int,
        packed: bytes,
        restarts: int,
        again: int,
        on_loss: OnLoss,
        timeout: float,
        start: Start,
    ) -> None:
        self.workers = workers
        self._packed = packed
        self._restarts = restarts
        self._again = again  # how many that died may be started again, alone
        self._on_loss = on_loss
        self._timeout = timeout
        self._place = start
        self._messages: queue.Queue[Message] = queue.Queue()
        self._members: dict[int, GangProcess] = {}

    def __enter__(self) -> _Gang:
        for rank in range(self.workers):
            self._start(rank, self._restarts)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what still runs."""
        for process in self._members.values():
            process.kill()
        for process in self._members.values():
            process.close()

    def _start(self, rank: int, restarts: int) -> None:
        self._members[rank] = GangProcess(rank, restarts, self._packed, self._messages, self._place)

    def ordered_results(self) -> list[Any]:
        found = [self._members[rank].result for rank in range(self.workers)]
        return [None if result is None else cloudpickle.loads(result) for result in found]

    def run(self) -> _Loss | None:
        """Pump messages until all have ended, or one that the others cannot do without. Errors of members are raised."""
        while any(process.running for process in self._members.values()):
            failed = self._next()
            if failed is None:
                continue
            if self._on_loss == "restart":
                return self._verdict(failed)
            self._go_on_without(failed)
        results = [process for process in self._members.values() if process.result is not None]
        if results:
            return None
        return _Loss(0, self._members[0].end)

    def _next(self) -> GangProcess | None:
        """Take the next message, or look for silence. The process that failed by it."""
        try:
            process, message = self._messages.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return self._silent()
        if message[0] == "event":
            emit(from_record(message[1]))
        elif process.take(message):
            return process
        return None

    def _silent(self) -> GangProcess | None:
        """One that lives and says nothing is as good as dead, and nobody else will notice."""
        bound = max(self._timeout, _LEAST_SILENCE)
        for process in self._members.values():
            if process.running and process.silence > bound:
                process.end = f"it has said nothing for {process.silence:.0f} s, since it was at {process.phase}"
                process.kill()
                process.running = False
                return process
        return None

    def _go_on_without(self, lost: GangProcess) -> None:
        if lost.error is not None:
            raise self._failure(lost)
        again = self._again > 0
        self._again -= again
        emit(WorkerLost(worker=lost.rank, reason=lost.end, restart=again))
        lost.kill()
        if again:
            lost.close()
            self._start(lost.rank, lost.restarts + 1)

    def _verdict(self, first: GangProcess) -> _Loss:
        """Whose fault it is that the gang ended. A death counts more than the errors of those who lost their peer by it."""
        deadline = time.monotonic() + _BLAME_SECONDS
        failed = [first]
        while all(process.error is not None for process in failed) and time.monotonic() < deadline:
            if not any(process.running for process in self._members.values()):
                break
            found = self._next()
            failed += [] if found is None else [found]
        for process in failed:
            if process.error is None:
                return _Loss(process.rank, process.end)
        if first.timed_out:
            return self._missing(first)
        raise self._failure(first)

    def _failure(self, failed: GangProcess) -> WorkerError:
        """The error of a member, as it arrives where the gang was started."""
        assert failed.error is not None
        how = "ran out of memory" if failed.out_of_memory else "failed"
        error = WorkerError(f"Worker {failed.rank} of {self.workers} {how}.\n{failed.error.text}")
        error.__cause__ = failed.error.cause
        return error

    def _missing(self, waited: GangProcess) -> _Loss:
        """Who did not come to where another waited until its time was over."""
        others = [process for process in self._members.values() if process is not waited and process.error is None]
        absent = [
            process for process in others if process.phase != waited.phase or process.silence > _LEAST_SILENCE / 4
        ]
        found = (absent or others or [waited])[0]
        word = f"; it has said nothing for {found.silence:.0f} s" if found.silence > _LEAST_SILENCE / 4 else ""
        same = f"the exchange that worker {waited.rank} waited in"
        text = (
            f"Worker {found.rank} of {self.workers} did not come to {waited.phase if found.phase != waited.phase else same} "
            f"within {self._timeout:g} s: it has been at {found.phase} for {found.seconds:.0f} s{word}. Worker {waited.rank} "
            f"was there for {waited.seconds:.0f} s. Look at what holds it up, or give it more time (timeout=<seconds>)."
        )
        assert waited.error is not None
        return _Loss(found.rank, f"it did not come to {waited.phase} in time", waited.error.cause, text)
