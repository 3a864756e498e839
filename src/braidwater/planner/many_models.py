"""Many nets over one table: whether models hop over parted rows, are dealt to workers that see all rows, or take turns.

The three ways of Nakandala, Zhang and Kumar 2020 ("Cerebro"), table 1: model hopper, task parallelism, data parallelism.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from braidwater.blocks.mini_batches import WINDOW_BYTES
from braidwater.errors import BudgetError, OptionError
from braidwater.options import format_bytes
from braidwater.planner.cost import Cost, Job, Setting, first_pass
from braidwater.planner.gang_cost import gang_cost, net_of, writing
from braidwater.planner.makespan import Makespan, least_makespan, makespan_of_tasks, simulate_hops
from braidwater.planner.this_machine import ThisMachine
from braidwater.planner.tree import format_seconds

Placement = Literal["hopper", "tasks", "data"]

HOP_SECONDS = 0.02  # a task handed over, a module made, a small checkpoint read and written
_TOLD: dict[Placement, str] = {
    "hopper": "models hop over parted rows",
    "tasks": "a model a worker, which reads all rows",
    "data": "one model after the other on all workers",
}


@dataclass(frozen=True)
class Placing:
    """One way to train all models: seconds in all, and for each worker the bytes of rows that it has to fetch and hold within
    reach, and its memory. `moved` are bytes that go between workers. `refused` says why it cannot be.
    """

    name: Placement
    seconds: float
    worker_reads: int
    worker_memory: int
    moved: int
    refused: str = ""


@dataclass(frozen=True)
class ManyModelsPlan:
    """Where many models are trained, and what the other ways would cost. `str()` is a table for people."""

    models: int
    workers: int
    chosen: Placing
    ways: tuple[Placing, ...]
    hops: Makespan
    least: float

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def plan_models(jobs: Sequence[Job], workers: int, wish: Placement | Literal["auto"] = "auto") -> ManyModelsPlan:
    """The cheapest way to train the works of `jobs`, all over one table, on `workers` processes of this machine.

    Among ways of equal time (to 2 %) the one whose workers read least. `wish` is a way by name.
    """
    if wish not in ("auto", *_TOLD):
        raise OptionError("placement", wish, f"one of auto, {', '.join(_TOLD)}")
    if not jobs or workers < 1:
        raise OptionError("models, workers", (len(jobs), workers), "at least one of each")
    times = np.array([[_epoch_seconds(job, workers) / workers + _hop_seconds(job)] * workers for job in jobs])
    epochs = [job.work.passes for job in jobs]
    hops = simulate_hops(times, epochs)
    ways = tuple(sorted(_ways(jobs, workers, hops), key=lambda way: (bool(way.refused), way.seconds)))
    open_ones = [way for way in ways if not way.refused and wish in ("auto", way.name)]
    if not open_ones:
        raise BudgetError(f"{len(jobs)} models do not fit: {ways[0].refused}. Raise memory, or take fewer workers.")
    chosen = min(
        (way for way in open_ones if way.seconds <= 1.02 * open_ones[0].seconds), key=lambda way: way.worker_reads
    )
    return ManyModelsPlan(len(jobs), workers, chosen, ways, hops, least_makespan(times, epochs))


def _ways(jobs: Sequence[Job], workers: int, hops: Makespan) -> Iterator[Placing]:
    job = max(jobs, key=lambda one: one.work.state_bytes)
    whole = job.block_bytes
    memory = max(_worker_memory(one) for one in jobs)
    common = _common(job, workers)
    refused = "" if workers * memory <= job.memory else (
        f"{workers} workers need {format_bytes(workers * memory)}, {format_bytes(job.memory)} may be used"
    )  # fmt: skip
    carried = sum(2 * _state(one) * workers * one.work.passes for one in jobs)
    yield Placing("hopper", common + hops.seconds, -(-whole // workers), memory, carried, refused)
    totals = [_epoch_seconds(one, workers) * one.work.passes for one in jobs]
    yield Placing("tasks", common + makespan_of_tasks(totals, workers), whole, memory, 0, refused)
    if workers > 1:
        costs = [gang_cost(one, Setting("all_reduce", workers, "disk", "torch")) for one in jobs]
        turns = sum((cost.start + cost.compute + cost.exchange for cost in costs), Cost())
        blocks = costs[0].blocks.seconds
        yield Placing("data", blocks + turns.seconds, whole, memory, turns.bytes_moved, refused)


def _common(job: Job, workers: int) -> float:
    """Writing the blocks, and starting the processes."""
    blocks = first_pass(job, writing(job, Setting("single", workers, "disk", "torch")), compute=False)
    return blocks.seconds + job.machine.start


def _epoch_seconds(job: Job, workers: int) -> float:
    """An epoch over all rows on one worker's share of the cores, while the others train too."""
    net = net_of(job)
    step = net.seconds(net.step_rows) + net.update_seconds
    return net.epoch_steps * step * ThisMachine(job.machine).contention(workers, net.step_rows)


def _hop_seconds(job: Job) -> float:
    return HOP_SECONDS + _state(job) * (1 / job.machine.disk_write + 1 / job.machine.copy)


def _state(job: Job) -> int:
    """Bytes of a checkpoint: weights and what the optimiser keeps."""
    return (1 + job.work.moments) * job.work.state_bytes


def _worker_memory(job: Job) -> int:
    """Weights, gradients, moments and activations of one model, and windows of rows."""
    work = job.work
    return (2 + work.moments) * work.state_bytes + work.working_bytes + 2 * min(WINDOW_BYTES, job.block_bytes)


def _lines(plan: ManyModelsPlan) -> Iterator[str]:
    hops = plan.hops
    yield f"{plan.models} models on {plan.workers} workers: {_TOLD[plan.chosen.name]}"
    yield f"{'':42}{'time':>12}{'a worker reads':>16}{'its memory':>12}{'moved':>10}"
    for way in plan.ways:
        mark = "▸ " if way is plan.chosen else "  "
        sizes = [format_bytes(size) if size else "–" for size in (way.worker_reads, way.worker_memory, way.moved)]
        figures = f"{format_seconds(way.seconds):>12}{sizes[0]:>16}{sizes[1]:>12}{sizes[2]:>10}"
        yield f"{mark + _TOLD[way.name]:<42}{figures}{'   ' + way.refused if way.refused else ''}"
    yield (
        f"hops take {format_seconds(hops.seconds)}, {hops.seconds / plan.least:.2f} times the least that any schedule takes; "
        f"workers are busy {hops.busy:.0%} of it"
    )
