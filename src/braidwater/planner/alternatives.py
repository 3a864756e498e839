"""Pricing one way to do the work, and telling why the others were left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from braidwater.options import format_bytes
from braidwater.planner.cost import Cost, Job, Setting, first_pass, later_pass, memory_parts
from braidwater.planner.gang_cost import HANDED_OVER, GangCost, gang_cost, writing
from braidwater.planner.strategies import cost_of
from braidwater.planner.tree import Choice, Offer, Rejected, format_seconds

_ELSE = "learns something else than one worker would: ask for it by name"


@dataclass(frozen=True)
class Candidate:
    """A way to do the work with its price; `refused` says why it cannot run here."""

    setting: Setting
    cost: Cost
    memory_parts: dict[str, int]
    needs_disk: int
    refused: str = ""
    gang: GangCost | None = None

    @property
    def exact(self) -> bool:
        """Whether it learns what one worker would."""
        return self.gang is None or cost_of(self.setting.strategy).is_exact(options_of(self.setting))


def options_of(setting: Setting) -> dict[str, Any]:
    """All options of a setting's strategy."""
    return {**cost_of(setting.strategy).defaults, **dict(setting.options)}


def price(job: Job, setting: Setting, disk: int) -> Candidate:
    """What `setting` costs, and whether it fits into the memory option and `disk` bytes."""
    gang = None
    if job.work.shape == "gang":
        gang = gang_cost(job, setting)
        cost, parts = gang.total, _gang_parts(job, setting, gang)
    else:
        cost, parts = _passes(job, setting), _peak_parts(job, setting)
    needs_disk = job.block_bytes if setting.cache == "disk" else 0
    cost = replace(cost, memory=sum(parts.values()))
    refused = "" if gang is None else gang.step.refused
    return Candidate(setting, cost, parts, needs_disk, refused or _refused(job, setting, cost, needs_disk, disk), gang)


def _passes(job: Job, setting: Setting) -> Cost:
    work = job.work
    cost = first_pass(job, setting) + later_pass(job, setting).times(work.passes - 1)
    if setting.kernel == "fused":
        cost += Cost(job.machine.compile, job.machine.compile)
    if work.shape == "tasks":  # each model is a task of its own; workers take the next one that nobody has
        rounds = -(-work.models // setting.workers)
        one = replace(setting, workers=1)
        each = first_pass(job, one) + later_pass(job, one).times(work.passes - 1)
        cost = replace(each.times(work.models), seconds=each.seconds * rounds)
    return cost


def _peak_parts(job: Job, setting: Setting) -> dict[str, int]:
    first = memory_parts(job, setting, first=True)
    later = memory_parts(job, setting, first=False)
    return max(first, later, key=lambda parts: sum(parts.values()))


def _gang_parts(job: Job, setting: Setting, gang: GangCost) -> dict[str, int]:
    """The larger of two peaks: the pass that writes the blocks is over before the members start."""
    first = memory_parts(job, writing(job, setting), first=True, compute=False)
    return max(first, gang.memory, key=lambda parts: sum(parts.values()))


def _refused(job: Job, setting: Setting, cost: Cost, needs_disk: int, disk: int) -> str:
    if cost.memory > job.memory:
        return f"it needs {format_bytes(cost.memory)} of memory, {format_bytes(job.memory)} may be used"
    if setting.cache == "memory" and job.block_bytes > job.memory // 4:
        return f"the blocks take {format_bytes(job.block_bytes)}, more than a quarter of the memory that may be used"
    if job.work.shape == "gang" and setting.workers > 1 and setting.cache == "memory" and job.block_bytes > HANDED_OVER:
        return "the workers are processes of their own, and share blocks of this size through a file"
    if needs_disk > disk:
        return f"the blocks take {format_bytes(needs_disk)} on disk, {format_bytes(disk)} may be used"
    return ""


def choices_of(job: Job, best: Candidate, candidates: Sequence[Candidate], disk: int) -> list[Choice]:
    """The decisions behind `best`, each with the ways that differ from it in that one thing."""
    setting = best.setting
    choices = [Choice("engine", "local", _why_local(job))]
    reasons: tuple[tuple[str, str], ...] = (
        ("strategy", _why_strategy(job, setting)),
        ("workers", f"of {job.machine.cores} core{'s' if job.machine.cores > 1 else ''}"),
        ("cache", _why_cache(job, setting, disk)),
        ("kernel", _why_kernel(job, setting)),
    )
    for name, why in reasons:
        chosen = str(getattr(setting, name))
        choices.append(Choice(name, chosen, why, tuple(_rejected(best, candidates, name))))
    return choices


def _why_local(job: Job) -> str:
    if job.reader != "postgres":
        return "the rows are read and the model is trained on this machine"
    leaving = format_bytes(job.rows * job.decoded_row)
    return f"{leaving} leave the server for this machine; engine=PostgresEngine(address) trains where they lie"


def _rejected(best: Candidate, candidates: Sequence[Candidate], name: str) -> Iterator[Rejected]:
    seen = {getattr(best.setting, name)}
    same: Callable[[Candidate], int] = lambda c: _differences(c.setting, best.setting)  # noqa: E731
    for other in sorted(
        candidates, key=lambda c: (bool(c.refused) if name == "workers" else 0, same(c), c.cost.seconds)
    ):
        value = getattr(other.setting, name)
        if value in seen or (same(other) > 1 and name not in ("strategy", "workers")):
            continue
        if name == "workers" and best.exact and not other.exact:
            continue  # more workers by learning something else
        seen.add(value)
        if other.refused:
            yield Rejected(str(value), other.refused)
            continue
        yield Rejected(str(value), _compared(best, other, name), other.cost.seconds)


def _differences(one: Setting, other: Setting) -> int:
    return sum(getattr(one, name) != getattr(other, name) for name in ("strategy", "workers", "cache", "kernel"))


def _compared(best: Candidate, other: Candidate, name: str) -> str:
    took = f"{format_seconds(other.cost.seconds)} instead of {format_seconds(best.cost.seconds)}"
    if name == "strategy" and not other.exact:
        return f"{took}, and it {_ELSE}"
    if name == "strategy" and other.setting.workers != best.setting.workers:
        return f"{took} on {other.setting.workers} worker{'s' if other.setting.workers > 1 else ''}"
    if other.cost.seconds <= 1.02 * best.cost.seconds:
        ours, theirs = format_seconds(best.cost.cpu_seconds), format_seconds(other.cost.cpu_seconds)
        return "no faster" if ours == theirs else f"no faster, and it takes {theirs} of CPU instead of {ours}"
    return took


def offers_of(best: Candidate, candidates: Sequence[Candidate]) -> list[Offer]:
    """Each strategy of a net once, in its fastest way that fits: the chosen one first, then by time, what cannot run last."""
    fastest: dict[str, Candidate] = {}
    for candidate in sorted(candidates, key=lambda c: (bool(c.refused), c.cost.seconds)):
        fastest.setdefault(candidate.setting.strategy, candidate)
    fastest[best.setting.strategy] = best
    order = sorted(fastest.values(), key=lambda c: (c is not best, bool(c.refused), c.cost.seconds))
    return [_offer(best, candidate) for candidate in order]


def _offer(best: Candidate, candidate: Candidate) -> Offer:
    setting, step = candidate.setting, candidate.gang.step if candidate.gang is not None else None
    assert step is not None
    cost = cost_of(setting.strategy)
    why = candidate.refused or ("the same result" if candidate.exact else "another result: asked for by name only")
    return Offer(
        name=setting.strategy,
        told=cost.told(options_of(setting)),
        workers=setting.workers,
        chosen=candidate is best,
        exact=candidate.exact,
        why=why,
        seconds=None if candidate.refused else candidate.cost.seconds,
        worker_bytes=sum(step.memory.values()),
        step_bytes=int(step.sent),
    )


def _why_strategy(job: Job, setting: Setting) -> str:
    if setting.strategy == "data":
        return "each worker folds its blocks, the partial states are merged"
    return cost_of(setting.strategy).why


def _why_cache(job: Job, setting: Setting, disk: int) -> str:
    size = format_bytes(job.block_bytes)
    match setting.cache:
        case "none":
            return "the rows are read once" if job.work.passes <= 1 else "the table is read again in every pass"
        case "memory":
            return f"the blocks take {size} of the {format_bytes(job.memory // 4)} that kept blocks may take in memory"
        case "disk":
            kept = (
                "read past the system's cache, at the disk's speed"
                if job.is_cold
                else "the system keeps the file in memory"
            )
            return f"the blocks take {size} of the {format_bytes(disk)} that a cache may take; {kept}"


def _why_kernel(job: Job, setting: Setting) -> str:
    match setting.kernel:
        case "fused":
            return f"compiled, {format_seconds(job.machine.compile)} to load"
        case "blas":
            return "matrix products"
        case "torch":
            return "any differentiable model"
