"""Two trainings in one process that take turns of 25 steps: whatever else runs on the machine slows both alike.

A ratio is that of two neighbouring turns, and the median over the run is what counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from threading import Semaphore, Thread
from typing import Any

TURN_STEPS = 25
WARM_TURNS = 2  # windows, momenta, caches


class Turn:
    """One of two threads that run in turns: `stepped` gives the other its turn after so many steps."""

    def __init__(self) -> None:
        self.mine = Semaphore(0)
        self.other: Turn = self
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.result: Any = None
        self._steps = 0

    def stepped(self) -> None:
        self._steps += 1
        if self._steps % TURN_STEPS == 0:
            self.wall.append(time.perf_counter() - self._began)
            self.cpu.append(time.thread_time() - self._cpu)
            self.other.mine.release()
            self._wait()

    def run(self, train: Callable[[Turn], Any]) -> None:
        self._wait()
        try:
            self.result = train(self)
        finally:
            self.other.mine.release(1_000_000)  # this one is through: the other waits no more

    def _wait(self) -> None:
        self.mine.acquire()
        self._began, self._cpu = time.perf_counter(), time.thread_time()

    @property
    def step_ms(self) -> float:
        """CPU milliseconds of a step of this thread, the median over the turns."""
        return statistics.median(self.cpu) / TURN_STEPS * 1e3


def in_turns(first: Callable[[Turn], Any], second: Callable[[Turn], Any]) -> tuple[Turn, Turn]:
    """Run both to the end. Each calls `turn.stepped()` after each step."""
    one, other = Turn(), Turn()
    one.other, other.other = other, one
    threads = [Thread(target=turn.run, args=(train,)) for turn, train in ((one, first), (other, second))]
    for thread in threads:
        thread.start()
    one.mine.release()
    for thread in threads:
        thread.join()
    return one, other


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over the turns of ours divided by the peer's neighbouring one; a run of few turns has its last one only."""
    pairs = list(zip(ours, theirs, strict=False))
    return statistics.median(a / b for a, b in pairs[min(WARM_TURNS, len(pairs) - 1) :])
