"""What turns of a parallel loop take here: the measurements that the plan for the others goes by."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from braidwater.dml.context import Context
from braidwater.dml.runtime.program import Instruction

Result = TypeVar("Result")
LARGE = 200e-6  # seconds of an operator: what it takes beyond them leaves the interpreter to others
TRIED = 0.05  # seconds of turns that are run here before there is a plan, and how many they are at least
SEVERAL = 4
ENOUGH = 0.25  # seconds of turns that are enough, however few they are
PLANNED = 0.0003  # seconds in which a process plans an operator that was planned here before
CLOSELY = 2  # turns, one of each kind


@dataclass(frozen=True)
class Measured:
    """What a turn takes: wall seconds as turns run here, CPU seconds on one thread, and of these the share in large operators;
    the seconds in which a process plans its operators anew."""

    wall: float
    cpu: float
    large: float
    planning: float = 0.0


class Trials:
    """Runs turns here before there is a plan, and measures them: by turns with all threads, as the others will run here, and with
    one thread, as somebody else will run them (those of BLAS may still spin then; that is none of a turn's time).

    The first of each kind is looked at closely: how long each operator takes. That costs time of its own, and much happens once,
    so that how long turns take is told by the others, where there are any.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._shares: list[Share] = []
        self._wall: list[float] = []
        self._cpu: list[float] = []

    def run(self, work: Callable[[], Result]) -> Result:
        """What `work`, a turn, gives."""
        context = self._context
        before = context.threads, context.statistics
        if self.count < CLOSELY:
            context.statistics = share = Share(context.statistics)
            self._shares.append(share)
        clock = time.process_time
        if self.count % 2:
            context.threads, clock = 1, time.thread_time
        wall, cpu = time.perf_counter(), clock()
        try:
            return work()
        finally:
            self._wall.append(time.perf_counter() - wall)
            self._cpu.append(clock() - cpu)
            context.threads, context.statistics = before

    @property
    def count(self) -> int:
        return len(self._wall)

    @property
    def seconds(self) -> float:
        return sum(self._wall)

    @property
    def enough(self) -> bool:
        return self.seconds > (TRIED if self.count >= SEVERAL else ENOUGH)

    @property
    def measured(self) -> Measured:
        """The lower quartile of what turns take: where others use the machine too, many take longer."""
        if not self.count:
            return Measured(0.0, 0.0, 0.0)
        planning = [share.planning for share in self._shares]
        looked_at = self._wall[len(planning) - 1] - planning[-1]
        large = min(self._shares[-1].large / max(looked_at, 1e-6), 1.0)
        anew = max(sum(planning), PLANNED * max(len(share.operators) for share in self._shares))
        return Measured(self._quartile(self._wall, 0), self._quartile(self._cpu, 1), large, anew)

    def _quartile(self, seconds: list[float], kind: int) -> float:
        """Of the turns with all threads (`kind` 0) or with one (1), without what planning took."""
        if len(seconds) >= SEVERAL:
            found = sorted(seconds[CLOSELY + kind :: 2])
            return found[len(found) // 4]
        place = min(kind, len(seconds) - 1)
        return max(seconds[place] - self._shares[place].planning, 1e-6)


class Share:
    """Stands where statistics do, and notes which operators run and the seconds in large ones; passes on to `beside` what it is
    told."""

    def __init__(self, beside: Any) -> None:
        self.large = self.planning = 0.0
        self.operators = set[int]()
        self._beside = beside

    def planned(self, spent: float) -> None:
        self.planning += spent
        if self._beside is not None:
            self._beside.planned(spent)

    def note(self, name: str, spent: float) -> None:
        if self._beside is not None:
            self._beside.note(name, spent)

    def ran(self, instruction: Instruction, spent: float) -> None:
        self.large += max(spent - LARGE, 0.0)
        self.operators.add(id(instruction))
        if self._beside is not None:
            self._beside.ran(instruction, spent)
