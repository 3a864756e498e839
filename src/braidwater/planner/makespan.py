"""How long many models take on workers that each hold a part of the rows, when models hop from worker to worker.

That is an open shop (Gonzalez and Sahni 1976): every model visits every worker once an epoch, in any order; a worker has one
model at a time, and a model is on one worker at a time. Making the shortest schedule is NP-hard from three workers on; the rule
here is at most a factor of two above it, and within a few percent where there are more models than workers.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


@dataclass(frozen=True)
class HopTime:
    """A model's stay on a worker, from `begin` to `end` (seconds)."""

    model: int
    epoch: int
    worker: int
    begin: float
    end: float


@dataclass(frozen=True)
class Makespan:
    """A schedule: `seconds` until the last model is done, `busy` the share of all workers' time in which they train."""

    seconds: float
    busy: float
    hops: tuple[HopTime, ...] = field(repr=False, default=())


def least_makespan(times: Times, epochs: int | Sequence[int] = 1) -> float:
    """What no schedule goes below: the longest model's own time, or the heaviest worker's.

    `times` ``(models, workers)`` are seconds of an epoch, `epochs` are those of all models, or of each.

    >>> least_makespan(np.array([[1.0, 1.0], [4.0, 4.0], [1.0, 1.0]]))
    8.0
    """
    if not times.size:
        return 0.0
    total = times * _each(epochs, len(times))[:, None]
    return float(max(total.sum(axis=1).max(), total.sum(axis=0).max()))


def longest_first(candidates: Mapping[int, float], order: Mapping[int, float]) -> int:
    """Which of the models that a free worker could take up it takes: the one with most left to do; of equals by `order`.

    Models with much to do are what a schedule ends with, unless they are begun early (list scheduling, Graham 1966).
    """
    return max(candidates, key=lambda model: (candidates[model], -order.get(model, 0.0), -model))


def simulate_hops(times: Times, epochs: int | Sequence[int] = 1, seed: int = 0, workers: int | None = None) -> Makespan:
    """The schedule that `longest_first` makes of `times` ``(models, partitions)``: seconds of each model on each an epoch.

    Worker w owns the partitions w, w + `workers`, ...; by default there are as many of either. None waits for others between two
    of its models: one that is free takes a model that is on no other worker and has not seen all that it owns in its epoch.

    >>> simulate_hops(np.full((4, 2), 1.0), epochs=3).busy
    1.0
    """
    models, partitions = times.shape
    workers = workers or partitions
    random = np.random.default_rng(seed)
    visited: list[set[int]] = [set() for _ in range(models)]
    epoch = [0] * models
    most = _each(epochs, models)
    left = times.sum(axis=1) * most
    idle, free = set(range(models)), set(range(workers))
    under_way: list[tuple[float, int, int]] = []
    hops: list[HopTime] = []
    now = 0.0
    while True:
        for worker in sorted(free):
            order: dict[int, float] = dict(enumerate(random.permutation(models).tolist()))
            own = set(range(worker, partitions, workers))
            ready = {m: float(left[m]) for m in idle if epoch[m] < most[m] and own - visited[m]}
            if ready:
                model = longest_first(ready, order)
                partition = int(random.choice(sorted(own - visited[model]))) if len(own) > 1 else worker
                end = now + float(times[model, partition])
                hops.append(HopTime(model, epoch[model], worker, now, end))
                heapq.heappush(under_way, (end, model, partition))
                idle.discard(model)
                free.discard(worker)
        if not under_way:
            break
        now, model, partition = heapq.heappop(under_way)
        left[model] -= times[model, partition]
        visited[model].add(partition)
        if len(visited[model]) == partitions:
            visited[model], epoch[model] = set(), epoch[model] + 1
        idle.add(model)
        free.add(partition % workers)
    spent = float((times.sum(axis=1) * most).sum())
    return Makespan(now, spent / (now * workers) if now else 1.0, tuple(hops))


def _each(epochs: int | Sequence[int], models: int) -> Times:
    return np.broadcast_to(np.asarray(epochs, np.float64), (models,))


def makespan_of_tasks(seconds: Iterable[float], workers: int) -> float:
    """When whole models are dealt to workers, the longest first: seconds until the last one is done (Graham 1969).

    >>> makespan_of_tasks([3.0, 3.0, 2.0, 2.0, 2.0], 2)
    7.0
    """
    loads = [0.0] * workers
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(loads, loads[0] + one)
    return max(loads)
