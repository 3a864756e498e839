"""How the turns of a parallel loop are run: one after the other, on threads or in processes, as is estimated to end first.

What a turn costs is measured on the first ones. Threads share the interpreter of Python, so only the time in large operators
counts for them; processes have to be started, and be sent what the turns read. `benchmarks/dml_parfor.py` measures the constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from braidwater.dml.runtime.program import Instruction

Way = Literal["in turns", "on threads", "in processes"]
MODES: dict[str, Way] = {"TURNS": "in turns", "THREADS": "on threads", "PROCESSES": "in processes"}

LARGE = 200e-6  # seconds of an operator: what it takes beyond them leaves the interpreter to others
CONTENDED = 1.6  # times as long as alone takes what threads compute in turns: they hand the interpreter to each other
WORTH = 0.05  # seconds of all turns below which nobody else is asked
CLEARLY = 0.85  # of the estimate in turns: turns are run at the same time for a gain that the estimate is sure of
FIRST_PROCESSES = 0.8  # seconds until processes work: a program is started that imports what they need
MORE_PROCESSES = 0.05  # seconds where that program is there
PLANNED_ANEW = 0.1  # seconds in which a process plans what the turns here had planned
SENT = 1.5e-10  # seconds of a byte that processes read: it goes through a file that they map, once for all
THREADS = 0.0002  # seconds until threads work


@dataclass(frozen=True)
class Measured:
    """The last turn that was run here: wall and CPU seconds, the share of it in large operators."""

    wall: float
    cpu: float
    large: float


@dataclass(frozen=True)
class ParforPlan:
    """What was chosen, and the estimated seconds of each way; `reason` says why there was no choice."""

    way: Way
    workers: int = 1
    estimates: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    def __str__(self) -> str:
        told = ", ".join(f"{way} {seconds:.3g} s" for way, seconds in self.estimates.items())
        workers = f" ({self.workers})" if self.workers > 1 else ""
        return f"{self.way}{workers}: {self.reason or 'estimated ' + told}"


def choose(
    turns: int,
    workers: int,
    measured: Measured,
    sent: float,
    processes_run: bool,
    wanted: Way | None,
    told: float = 0.0,
) -> ParforPlan:
    """The way for `turns` further turns.

    `sent` are the bytes that processes are sent at first, `told` the seconds in which one is told of a turn and answers, `wanted`
    is the script's own choice.
    """
    workers = min(workers, turns)
    rounds = -(-turns // workers)
    apart = MORE_PROCESSES if processes_run else FIRST_PROCESSES
    estimates = {
        "in turns": turns * min(measured.wall, measured.cpu),  # where others use the machine, what this takes alone
        "on threads": THREADS + max(rounds, turns * (1 - measured.large) * CONTENDED) * measured.cpu,
        "in processes": apart + PLANNED_ANEW + sent * SENT + turns * told + rounds * measured.cpu,
    }
    quickest: Any = min(estimates, key=lambda each: estimates[each] * (CLEARLY if each == "in turns" else 1.0))
    way = wanted or (quickest if estimates["in turns"] > WORTH else "in turns")
    return ParforPlan(way, 1 if way == "in turns" else workers, estimates, "the script asks for it" if wanted else "")


class Share:
    """Stands where statistics do, and notes the seconds in large operators; passes on to `beside` what it is told."""

    def __init__(self, beside: Any) -> None:
        self.large = 0.0
        self._beside = beside

    def planned(self, spent: float) -> None:
        if self._beside is not None:
            self._beside.planned(spent)

    def note(self, name: str, spent: float) -> None:
        if self._beside is not None:
            self._beside.note(name, spent)

    def ran(self, instruction: Instruction, spent: float) -> None:
        self.large += max(spent - LARGE, 0.0)
        if self._beside is not None:
            self._beside.ran(instruction, spent)
