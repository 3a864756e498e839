"""Many trials of estimators over one table: each in a process of its own, in lockstep, or as riders of a scan that goes round.

What is shared is the reading and, in lockstep, the visit to a block; what each trial computes is its own in all three.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from braidwater.errors import OptionError, UnsupportedError
from braidwater.options import format_bytes
from braidwater.planner.cost import BLOCK_SECONDS, PASS_SECONDS, Job, compute_seconds
from braidwater.planner.tree import format_seconds

Sharing = Literal["separate", "lockstep", "circular"]

TASKS_SECONDS = 1.5  # until worker processes have started and imported
TRIAL_SECONDS = 0.03  # of Python: opening a fit, its decisions, its evaluation, its model saved
BUNDLE = 32  # trials that go in lockstep: more gain nothing, and end together
SHARE_OF_MEMORY = 4  # states that wait may take this part of the memory option
_TOLD: dict[Sharing, str] = {
    "separate": "each trial reads the rows in a process of its own",
    "lockstep": "trials are trained by the dozen in the same passes",
    "circular": "trials join a running scan at the current block",
}


@dataclass(frozen=True)
class SharingWay:
    """One way to train all trials: wall seconds, bytes of blocks read by all of them, and bytes that states take at most.

    `refused` says why it cannot be.
    """

    name: Sharing
    seconds: float
    bytes_read: int
    state_bytes: int
    refused: str = ""


@dataclass(frozen=True)
class TrialsPlan:
    """How trials share their passes, and what the other ways would cost. `str()` is a table for people."""

    trials: int | None
    places: int
    blocks: int
    passes: int
    chosen: SharingWay
    ways: tuple[SharingWay, ...]

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def plan_trials(
    job: Job, trials: int | None, places: int, *, refused: dict[Sharing, str], wish: Sharing | Literal["auto"] = "auto"
) -> TrialsPlan:
    """The cheapest way to train `trials` works like that of `job`, `places` of them at a time.

    `refused` are ways that cannot be, with the reason. Where the number of trials is not known, a hundred are priced.
    """
    if wish not in ("auto", *_TOLD):
        raise OptionError("fused", wish, f"one of auto, {', '.join(_TOLD)}")
    count = trials or 100
    ways = [_separate(job, count, places), _lockstep(job, count, places), _circular(job, count, places)]
    ways = [replace(way, refused=refused.get(way.name, way.refused)) for way in ways]
    ways.sort(key=lambda way: (bool(way.refused), way.seconds))
    chosen = next((way for way in ways if wish in ("auto", way.name) and not way.refused), None)
    if chosen is None:
        why = next(way.refused for way in ways if way.name == wish)
        raise UnsupportedError(f"fused={wish!r} is not possible: {why}. fused='auto' takes what is.")
    return TrialsPlan(trials, places, job.units, job.work.passes, chosen, tuple(ways))


def _separate(job: Job, trials: int, places: int) -> SharingWay:
    busy = min(places, trials, job.machine.cores)
    passes = trials * job.work.passes
    cpu = passes * _pass_seconds(job) + trials * TRIAL_SECONDS
    seconds = TASKS_SECONDS + max(cpu / busy, _reading(job, passes))
    return SharingWay("separate", seconds, passes * job.block_bytes, min(places, trials) * job.work.state_bytes)


def _lockstep(job: Job, trials: int, places: int) -> SharingWay:
    size = min(BUNDLE, ceil(trials / places))
    bundles = ceil(trials / size)
    work = job.work
    wide = replace(
        work,
        models=work.models * size,
        flops_per_row=work.flops_per_row * size,
        state_bytes=work.state_bytes * size,
    )
    cpu = work.passes * _pass_seconds(replace(job, work=wide)) + size * TRIAL_SECONDS
    turns = ceil(bundles / min(places, bundles, job.machine.cores))
    passes = bundles * work.passes
    seconds = TASKS_SECONDS + max(turns * cpu, _reading(job, passes))
    return SharingWay("lockstep", seconds, passes * job.block_bytes, min(places, bundles) * wide.state_bytes)


def _circular(job: Job, trials: int, places: int) -> SharingWay:
    """All in this process: Python's share of blocks and trials is one thread's, whatever the number of cores."""
    riders = min(places, trials)
    passes = trials * job.work.passes
    rounds = ceil(passes / riders)
    busy = min(job.machine.cores, riders * job.units)
    python = passes * (job.units * BLOCK_SECONDS + PASS_SECONDS / 10)
    folding = max(passes * compute_seconds(job, job.work.kernel) / busy, python, _reading(job, rounds))
    waiting = riders * job.units * job.work.state_bytes
    room = job.memory // SHARE_OF_MEMORY
    refused = "" if waiting <= room else (
        f"states of blocks that wait for the beginning of the table take {format_bytes(waiting)}, and may take "
        f"{format_bytes(room)}"
    )  # fmt: skip
    seconds = folding + trials * TRIAL_SECONDS
    return SharingWay("circular", seconds, rounds * job.block_bytes, waiting, refused)


def _pass_seconds(job: Job) -> float:
    return PASS_SECONDS + compute_seconds(job, job.work.kernel)


def _reading(job: Job, passes: int) -> float:
    """Seconds that the memory bus or, where the blocks outgrow the file cache, the device takes for so many readings."""
    size = passes * job.block_bytes
    return size / (job.machine.disk_read if job.is_cold else job.machine.memory_rate_all)


def _lines(plan: TrialsPlan) -> Iterator[str]:
    trials = "trials" if plan.trials is None else f"{plan.trials} trials"
    blocks = f"{plan.blocks} block{'s' * (plan.blocks != 1)}"
    yield f"{trials}, {plan.places} at a time, {plan.passes} passes each over {blocks}: {_TOLD[plan.chosen.name]}"
    yield f"{'':54}{'time':>12}{'read':>10}{'states':>10}"
    for way in plan.ways:
        mark = "▸ " if way is plan.chosen else "  "
        figures = (
            f"{format_seconds(way.seconds):>12}{format_bytes(way.bytes_read):>10}{format_bytes(way.state_bytes):>10}"
        )
        yield f"{mark + _TOLD[way.name]:<54}{figures}{'   ' + way.refused if way.refused else ''}"
