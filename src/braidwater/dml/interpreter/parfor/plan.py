"""How the turns of a parallel loop are run: one after the other, on threads, in processes, or as tasks of an engine, as is
estimated to end first.

What a turn costs is measured on the first ones. Threads share the interpreter of Python, so only the time in large operators
counts for them; processes have to be started, and be sent what the turns read. `benchmarks/dml_parfor.py` measures the constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from braidwater.dml.interpreter.parfor.measure import Measured

Way = Literal["in turns", "on threads", "in processes", "as tasks"]
MODES: dict[str, Way] = {
    "TURNS": "in turns",
    "THREADS": "on threads",
    "PROCESSES": "in processes",
    "REMOTE_SPARK": "as tasks",
    "REMOTE_SPARK_DP": "as tasks",
}

CONTENDED = 1.5  # times as long as alone takes what threads compute in turns: they hand the interpreter to each other
WORTH = 0.05  # seconds of all turns below which nobody else is asked
CLEARLY = 0.85  # of the estimate in turns: turns are run at the same time for a gain that the estimate is sure of
THREADS = 0.0002  # seconds until threads work
SENT = 2e-10  # seconds of a byte that processes read: it goes through a file that they map, once for all
FAR = 1.5e-8  # seconds of a byte that is sent to each process that sees no file of this machine


@dataclass(frozen=True)
class Costs:
    """Seconds until processes work for the first time, and later; of a request to one and its answer, of a byte in these."""

    first: float
    again: float
    message: float
    byte: float


# at first a program is started that imports what they need
PROCESSES = Costs(first=0.9, again=0.1, message=0.0008, byte=1.5e-9)

TASKS = Costs(first=5.0, again=0.3, message=0.0025, byte=6e-9)  # PostgreSQL 2.7 and 0.13 s, Spark 8 and 0.4 s


@dataclass(frozen=True)
class Work:
    """What is left: so many turns, of which `one` takes so long, and the bytes that they read.

    Of a parameter server: `wave` turns have to end before others begin, `told` bytes are what a worker is told of a turn and what
    it answers, `alone` are the seconds of a turn's share in the server's updates, which nobody else does.
    """

    turns: int
    one: Measured
    reads: float
    wave: int = 0
    told: float | None = None
    alone: float = 0.0


@dataclass(frozen=True)
class Workers:
    """Who may run turns: so many threads or processes `here`, so many `tasks` of an engine called `name`.

    `warm` says that processes have worked here before, `tasks_warm` that tasks have; `maps` that these see files of this machine.
    """

    here: int
    warm: bool
    tasks: int = 0
    name: str = ""
    tasks_warm: bool = False
    maps: bool = True

    @property
    def some(self) -> bool:
        """Whether there is anybody but the one who asks."""
        return self.here > 1 or self.tasks > 0


@dataclass(frozen=True)
class ParforPlan:
    """What was chosen, and the estimated seconds of each way; `reason` says why there was no choice."""

    way: Way
    workers: int = 1
    estimates: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    engine: str = ""

    def __str__(self) -> str:
        told = ", ".join(f"{way} {seconds:.3g} s" for way, seconds in self.estimates.items())
        workers = f" ({self.workers})" if self.workers > 1 else ""
        engine = f" of {self.engine}" if self.way == "as tasks" else ""
        return f"{self.way}{engine}{workers}: {self.reason or 'estimated ' + told}"


def choose(work: Work, workers: Workers, wanted: Way | None) -> ParforPlan:
    """The way for the turns that are left; `wanted` is the script's own choice."""
    estimates = estimated(work, workers)
    quickest: Any = min(estimates, key=lambda each: estimates[each] * (CLEARLY if each == "in turns" else 1.0))
    way = wanted or (quickest if estimates["in turns"] > WORTH else "in turns")
    at_once = {"in turns": 1, "as tasks": workers.tasks}.get(way, workers.here)
    reason = "the script asks for it" if wanted else ""
    return ParforPlan(way, min(at_once, work.turns), estimates, reason, workers.name)


def estimated(work: Work, workers: Workers) -> dict[str, float]:
    """The seconds of each way that there is."""
    one, turns = work.one, work.turns
    wave = work.wave or turns
    alone = turns * work.alone

    def rounds(at_once: int, each: float) -> float:
        return turns / wave * -(-wave // at_once) * each + alone

    def apart(costs: Costs, warm: bool, at_once: int) -> float:
        told = 0.0 if work.told is None else turns * (costs.message + costs.byte * work.told)
        return (costs.again if warm else costs.first) + one.planning + told + rounds(at_once, one.cpu)

    found = {"in turns": turns * min(one.wall, one.cpu) + alone}  # where others use the machine, what this takes alone
    if workers.here > 1:
        locked = (1 - one.large) * CONTENDED * workers.here
        found["on threads"] = THREADS + rounds(workers.here, one.cpu * (one.large + locked))
        found["in processes"] = apart(PROCESSES, workers.warm, workers.here) + work.reads * SENT
    if workers.tasks:
        sent = SENT if workers.maps else FAR * min(workers.tasks, turns)
        found["as tasks"] = apart(TASKS, workers.tasks_warm, workers.tasks) + work.reads * sent
    return found
