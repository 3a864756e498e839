"""Choosing how to do a piece of work: every way is priced, the cheapest that fits is taken."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from braidwater.errors import BudgetError, OptionError, UnsupportedError
from braidwater.options import current_options, format_bytes, parse_bytes
from braidwater.planner import constants
from braidwater.planner.alternatives import Candidate, choices_of, offers_of, price
from braidwater.planner.base import Cache, Kernel, Work
from braidwater.planner.constants import REFERENCE, Machine, available_memory, stored_machine
from braidwater.planner.cost import Job, Setting
from braidwater.planner.in_place import in_place
from braidwater.planner.steps import step_tree
from braidwater.planner.strategies import cost_of
from braidwater.planner.tree import Chosen, Plan, format_seconds

if TYPE_CHECKING:
    from braidwater.engines.base import Engine
    from braidwater.tables.base import Table, TableStatistics

WORTH_CALIBRATING = 10.0  # seconds of work from which on the two seconds of measuring the machine are small
WORTH_TALKING = 1000.0  # and the ten seconds of starting two processes to see how they talk


def plan(
    statistics: TableStatistics,
    work: Work,
    *,
    table_name: str,
    workers: int | None = None,
    strategy: str = "auto",
    options: Mapping[str, Any] | None = None,
    cache: str = "auto",
    kernel: str = "auto",
    memory: int | str | None = None,
    reader: str = "duckdb",
    machine: Machine | None = None,
    disk_room: int | None = None,
) -> Plan:
    """Choose strategy, workers, cache and kernel for `work` over a table, and say what it will cost.

    What is given is kept (``workers=1``, ``cache="none"``); what is left out is chosen: the cheapest in wall time among
    the ways that fit into `memory` (bytes; by default the option) and the disk. `options` are those of the strategy that is
    named. A strategy that learns something else than one worker would is taken by name only. `reader` says how the table is read
    (``parquet``, ``duckdb``, ``arrow``, ``csv``). `machine` are the constants of the formulas: by default those stored
    for this machine; where there are none they are measured (two seconds) when the work will take more than ten. For nets
    that take a quarter of an hour, talking between processes is measured too (ten seconds).
    `disk_room` is what a cache file may take (bytes), by default the quota or the free disk.

    Raises `BudgetError` with figures when no way fits, `OptionError` and `UnsupportedError` for impossible wishes. Nothing
    runs and no row is read.
    """
    limit = current_options().memory if memory is None else parse_bytes(memory, "memory")
    known = machine or stored_machine() or REFERENCE
    room = known.memory_bytes if machine is not None else available_memory()
    job = Job(statistics, work, known, reader, limit, room)
    settings = _settings(work, workers, strategy, cache, kernel, known)
    settings = [replace(setting, options=tuple((options or {}).items())) for setting in settings]
    disk = _disk_room() if disk_room is None else disk_room
    candidates = [price(job, setting, disk) for setting in settings]
    best = _cheapest(candidates, strategy)
    if best is None:
        reasons = {c.gang.step.refused for c in candidates if c.gang is not None}
        if len(reasons) == 1 and reasons != {""}:
            raise UnsupportedError(f"{work.name} cannot be trained with strategy={strategy!r}: {reasons.pop()}.")
        raise _refusal(job, table_name, candidates, disk)
    if machine is None and (found := _better_known(known, best)) is not None:
        return plan(
            statistics, work, table_name=table_name, workers=workers, strategy=strategy, options=options, cache=cache,
            kernel=kernel, memory=limit, reader=reader, machine=found, disk_room=disk,
        )  # fmt: skip
    return Plan(
        name=work.name,
        table=table_name,
        rows=statistics.rows,
        table_bytes=statistics.bytes,
        chosen=Chosen(**vars(best.setting)),
        root=step_tree(job, best),
        choices=choices_of(job, best, candidates, disk),
        offers=[] if best.gang is None else offers_of(best, candidates),
        memory_limit=limit,
        memory_parts=best.memory_parts,
        machine=known,
    )


def _better_known(known: Machine, best: Candidate) -> Machine | None:
    """The machine's constants measured anew, where the work is long enough for that."""
    if best.gang is not None and best.cost.seconds > WORTH_TALKING and not known.talked:
        return constants.machine(talking=True)
    return constants.machine() if not known.measured and best.cost.seconds > WORTH_CALIBRATING else None


def plan_table(table: Table, work: Work, *, engine: Engine | None = None, **wishes: object) -> Plan:
    """`plan` for a table: its statistics, name and way of reading come from it. An `engine` says how it runs where rows lie."""
    statistics = table.statistics([])
    made = plan(statistics, work, table_name=table.name, reader=table.reader, **wishes)  # type: ignore[arg-type]
    return made if engine is None else in_place(made, engine, table, work)


def _settings(
    work: Work, workers: int | None, strategy: str, cache: str, kernel: str, constants: Machine
) -> list[Setting]:
    """Every way to do the work that agrees with what was asked for."""
    if strategy not in ("auto", *work.strategies):
        known = ", ".join(("auto", *work.strategies))
        raise UnsupportedError(f"{work.name} cannot be trained with strategy={strategy!r}; it can with {known}.")
    if cache not in ("auto", *get_args(Cache)):
        raise OptionError("cache", cache, "one of auto, none, memory, disk")
    if kernel not in ("auto", *get_args(Kernel)):
        raise OptionError("kernel", kernel, "one of auto, fused, blas, torch")
    if workers is not None and workers < 1:
        raise OptionError("workers", workers, "at least 1")
    if work.shape == "gang" and cache == "none":
        raise UnsupportedError(
            f"{work.name} draws mini-batches at random from kept blocks, so cache='none' is not possible; "
            "cache='disk' keeps memory small."
        )
    strategies = _by_itself(work) if strategy == "auto" else (strategy,)
    found = []
    for name in strategies:
        for count in _worker_counts(work, name, workers, constants):
            for kept in _caches(work, cache):
                for form in _kernels(work, kernel):
                    found.append(Setting(name, count, kept, form))
    if not found:
        raise UnsupportedError(f"strategy={strategy!r} runs on one worker; workers={workers} needs another strategy.")
    return found


def _by_itself(work: Work) -> list[str]:
    """The strategies that can be chosen without a word of the user."""
    return [name for name in work.strategies if work.shape != "gang" or not cost_of(name).laid_out]


def _worker_counts(work: Work, strategy: str, workers: int | None, constants: Machine) -> Sequence[int]:
    if strategy == "single":
        return (1,) if workers in (None, 1) else ()
    if workers is not None:
        return (workers,)
    cores = min(constants.cores, max(current_options().workers, 1))
    powers = [1 << k for k in range(cores.bit_length()) if 1 << k < cores]
    counts = [*powers, cores]
    if work.shape == "gang" and "single" in work.strategies:
        counts = [count for count in counts if count > 1]  # one worker is what "single" is
    return counts


def _caches(work: Work, cache: str) -> Sequence[Cache]:
    if cache != "auto":
        return (cache,)  # type: ignore[return-value]
    if work.shape == "gang":
        return ("memory", "disk")
    return ("none",) if work.passes <= 1 else ("memory", "disk", "none")


def _kernels(work: Work, kernel: str) -> Sequence[Kernel]:
    if kernel != "auto":
        return (kernel,)  # type: ignore[return-value]
    return (work.kernel,)  # the model's own choice, by rows alone: results shall not depend on how fast a machine is


def _cheapest(candidates: Sequence[Candidate], strategy: str) -> Candidate | None:
    """The fastest that fits; among equals (to 2 %) the one that takes the least CPU."""
    open_ones = [c for c in candidates if not c.refused]
    if strategy == "auto" and any(c.exact for c in candidates):
        open_ones = [c for c in open_ones if c.exact]
    if not open_ones:
        return None
    fastest = min(c.cost.seconds for c in open_ones)
    return min(
        (c for c in open_ones if c.cost.seconds <= 1.02 * fastest), key=lambda c: (c.cost.cpu_seconds, c.cost.seconds)
    )


def _refusal(job: Job, table_name: str, candidates: Sequence[Candidate], disk: int) -> BudgetError:
    # what the disk alone forbids comes first: room there is easier to find than memory
    possible = [c for c in candidates if c.gang is None or not c.gang.step.refused]
    least = min(possible, key=lambda c: (c.cost.memory > job.memory, c.needs_disk > disk, c.cost.memory))
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in least.memory_parts.items() if size)
    told = f"{job.work.name} over {table_name!r} ({job.rows:,} rows) does not fit: "
    if least.needs_disk > disk and least.cost.memory <= job.memory:
        other = "." if job.work.shape == "gang" else ", or give cache='none' to read the table in every pass."
        return BudgetError(
            f"{told}its blocks take {format_bytes(least.needs_disk)} on disk, where {format_bytes(disk)} may be used. "
            f"Raise cache_quota, set cache_directory to a larger disk{other}"
        )
    setting = least.setting
    others = [replace(setting, workers=count) for count in range(setting.workers - 1, 0, -1)]
    others.append(replace(setting, cache="disk"))
    fitting = [other for other in others if not price(job, other, disk).refused]
    advice = [f"memory={format_bytes(_rounded_up(least.cost.memory)).replace(' ', '')!r}"]
    advice += [f"workers={other.workers}" for other in fitting if other.workers < setting.workers][:1]
    advice += [f"cache={other.cache!r}" for other in fitting if other.cache != setting.cache]
    return BudgetError(
        f"{told}it needs {format_bytes(least.cost.memory)} with {least.setting.workers} "
        f"worker{'s' if least.setting.workers > 1 else ''} ({parts}), and memory is {format_bytes(job.memory)}. "
        f"Give {' or '.join(advice)}. About {format_seconds(least.cost.seconds)} would be needed then."
    )


def _rounded_up(size: int) -> int:
    """Two figures, so that what is advised is enough."""
    step: int = 10 ** max(len(str(size)) - 2, 0)
    return (size // step + 1) * step


def _disk_room() -> int:
    """What a new cache file may take: older caches give way to it, so the quota counts, and the free disk."""
    options = current_options()
    folder = there = options.cache_directory
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    if free >= options.cache_quota:
        return options.cache_quota
    kept: int = sum(file.stat().st_size for file in (folder / "blocks").glob("*.blocks"))
    return min(options.cache_quota, free + kept)
