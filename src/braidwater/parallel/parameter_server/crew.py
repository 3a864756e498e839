"""The workers of a parameter server: their runs and clocks, for the threads that answer them and the loop over epochs."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass
from threading import Condition
from typing import Any

from braidwater.parallel.parameter_server.clocks import Clocks
from braidwater.parallel.parameter_server.runs import Runs

Given = tuple[int, int, int]  # epoch, first step, end


@dataclass(frozen=True)
class Finished:
    """What a worker says of a run that it has finished: sums over its rows, and what its module keeps beside parameters."""

    loss: float
    weight: float
    buffers: tuple[Any, ...] = ()


class Crew:
    """Workers come and go. One that waits blocks the thread that answers it, and nothing else."""

    def __init__(self, staleness: int | None) -> None:
        self.finished: queue.Queue[tuple[int, range, Finished]] = queue.Queue()
        self.lost = 0
        self._changed = Condition()
        self._clocks = Clocks(staleness)
        self._runs = Runs(0, 1)
        self._epoch = 0
        self._held: dict[int, range] = {}
        self._here: set[int] = set()
        self._came: set[int] = set()
        self._alone_since = time.monotonic()
        self._ended = False

    def open(self, epoch: int, runs: Runs) -> None:
        """Hand out the runs of an epoch."""
        with self._changed:
            self._epoch, self._runs = epoch, runs
            self._changed.notify_all()

    def end(self, workers: int, patience: float) -> None:
        """There are no more runs: workers may go home. One that starts so late that the others did its share is waited for,
        `patience` seconds, else it would find nobody to ask."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._came) >= workers, patience)

    @property
    def alone(self) -> float:
        """For how many seconds no worker has been here."""
        return 0.0 if self._here else time.monotonic() - self._alone_since

    def join(self, worker: int) -> None:
        with self._changed:
            self._here.add(worker)
            self._came.add(worker)
            self._changed.notify_all()

    def leave(self, worker: int) -> None:
        """A worker is gone: its run goes to another, and nobody waits for it."""
        with self._changed:
            self._here.discard(worker)
            self._alone_since = time.monotonic()
            self.lost += not self._ended
            self._clocks.leave(worker)
            self._runs.lose(worker)
            self._held.pop(worker, None)
            self._changed.notify_all()

    def next_run(self, worker: int, finished: Finished | None) -> Given | None:
        """Take note of a finished run, and wait for the next one; None at the end."""
        with self._changed:
            if finished is not None:
                self._runs.finish(worker)
                self.finished.put((worker, self._held.pop(worker), finished))
            self._clocks.leave(worker)
            self._changed.notify_all()
            while (found := self._runs.take(worker)) is None:
                if self._ended:
                    return None
                self._changed.wait()
            self._held[worker] = found
            self._clocks.join(worker)
            return self._epoch, found.start, found.stop

    def tick(self, worker: int) -> None:
        """A worker's push has arrived everywhere: wait until it may go on."""
        with self._changed:
            self._clocks.tick(worker)
            self._changed.notify_all()
            while not self._clocks.may_go_on(worker):
                self._changed.wait()
