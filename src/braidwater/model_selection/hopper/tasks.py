"""Who hops where: stretches of training as tasks that are cut into hops, and put together again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from braidwater.engines import Engine, Outcome, RunningTasks, Task
from braidwater.errors import BraidwaterError, TaskStopped
from braidwater.model_selection.hopper.ground import Ground
from braidwater.model_selection.hopper.loop import Standing, standing_of
from braidwater.model_selection.hopper.worker import Hop, HopDone, checkpoint_folder, is_over, run_hop
from braidwater.model_selection.trial_run import Packed, Setup, Stretch
from braidwater.planner.makespan import HopTime, longest_first

# the order in which each model saw the partitions, epoch by epoch
Orders = Sequence[Sequence[int]]


@dataclass
class Usage:
    """What a worker did: seconds in hops, and bytes that it fetched of its partition."""

    hops: int = 0
    seconds: float = 0.0
    bytes_read: int = 0


@dataclass
class Journey:
    """A stretch under way. `order` is what is prescribed for it, where anything is; `seconds` are of its hops so far."""

    task: Task
    stretch: Stretch
    standing: Standing
    order: Orders | None = None
    away: bool = False  # on a worker
    hops: int = 0
    seconds: float = 0.0
    attempts: int = 0
    stopping: bool = False

    def may_visit(self, partition: int, partitions: int) -> bool:
        """Whether the model can go there next."""
        standing = self.standing
        if self.away or partition in standing.visited:
            return False
        if self.order is None or standing.epoch >= len(self.order):
            return True
        return self.order[standing.epoch][len(standing.visited)] == partition

    def left(self, partitions: int, typical: float) -> float:
        """Seconds that its hops to come will take, as far as its own and others' hops tell."""
        assert self.stretch.epochs is not None
        hops = (self.stretch.epochs - self.standing.epoch) * partitions - len(self.standing.visited)
        return hops * (self.seconds / self.hops if self.hops else typical)


@dataclass
class Log:
    """What is known at the end: orders by the number of the trial, what each worker did, and all hops (monotonic seconds)."""

    orders: dict[int, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    workers: dict[int, Usage] = field(default_factory=dict)
    hops: list[HopTime] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the beginning of the first hop to the end of the last."""
        return max(hop.end for hop in self.hops) - min(hop.begin for hop in self.hops) if self.hops else 0.0


class HopTasks(RunningTasks):
    """Stretches of training, each an `Outcome` when it has come to its end, made of hops over the partitions of `ground`.

    `stretches` gives tasks whose name is that of the trial, with the `Stretch` as their last argument; None where there is
    none at the moment. At most `in_flight` are under way at a time: one more is asked for when a worker is free that
    none of those can go to. A worker trains one model at a time, on its own partition; nobody waits for anybody but for his turn.
    """

    def __init__(
        self,
        stretches: Iterable[Task | None],
        setup: Setup,
        ground: Ground,
        engine: Engine,
        *,
        in_flight: int,
        seed: int = 0,
        orders: dict[int, Orders] | None = None,
    ) -> None:
        self.log = Log()
        self._stretches = iter(stretches)
        self._setup, self._ground = Packed(setup), Packed(ground)
        self._partitions = ground.partitions
        self._in_flight = in_flight
        self._random = np.random.default_rng(seed)
        self._orders = orders or {}
        self._journeys: dict[str, Journey] = {}
        self._free = set(range(self._partitions))
        self._ended = False
        self._running = engine.tasks(self._hops())

    def __iter__(self) -> HopTasks:
        return self

    def __next__(self) -> Outcome:
        """The next stretch that has ended."""
        while True:
            ended = self._take(next(self._running))
            if ended is not None:
                return ended

    def stop(self, name: str) -> None:
        journey = self._journeys.get(name)
        if journey is not None:
            journey.stopping = True
            self._running.stop(name)

    def close(self) -> None:
        self._running.close()

    def _hops(self) -> Iterator[Task | None]:
        """A hop for a worker that is free; None while all depends on those that are on their way."""
        while True:
            found = self._next_hop()
            if found is None and not self._journeys and self._ended:
                return
            yield found

    def _next_hop(self) -> Task | None:
        while True:
            for partition in self._random.permutation(sorted(self._free)).tolist():
                name = self._choose(partition)
                if name is not None:
                    return self._task(name, partition)
            if not self._free or len(self._journeys) >= self._in_flight or not self._take_on():
                return None

    def _choose(self, partition: int) -> str | None:
        """The model that goes to a free worker: of those that may, the one with most left to do; of equals any."""
        names = list(self._journeys)
        typical = self._typical()
        ready = {
            place: self._journeys[name].left(self._partitions, typical)
            for place, name in enumerate(names)
            if self._journeys[name].may_visit(partition, self._partitions)
        }
        if not ready:
            return None
        return names[longest_first(ready, dict(enumerate(self._random.random(len(names)))))]

    def _typical(self) -> float:
        known = [journey.seconds / journey.hops for journey in self._journeys.values() if journey.hops]
        return sum(known) / len(known) if known else 1.0

    def _take_on(self) -> bool:
        """One more stretch; False where there is none now."""
        if self._ended:
            return False
        try:
            task = next(self._stretches)
        except StopIteration:
            self._ended = True
            return False
        if task is None:
            return False
        stretch: Stretch = task.arguments[-1]
        try:
            standing, _ = standing_of(checkpoint_folder(stretch))
        except BraidwaterError:
            standing = Standing()  # the worker that takes it up will say what is wrong with its checkpoint
        self._journeys[task.name] = Journey(task, stretch, standing, self._orders.get(stretch.number))
        return True

    def _task(self, name: str, partition: int) -> Task:
        journey = self._journeys[name]
        journey.away = True
        self._free.discard(partition)
        wanted = None if is_over(journey.standing, journey.stretch) else partition
        arguments = (self._setup, self._ground, journey.stretch, Hop(wanted, journey.standing))
        return replace(journey.task, function=run_hop, arguments=arguments, worker=partition)

    def _take(self, outcome: Outcome) -> Outcome | None:
        """Note how a hop ended: the outcome of its stretch, where that has come to its end."""
        name, partition = outcome.task.name, outcome.task.worker
        assert partition is not None
        journey = self._journeys[name]
        self._free.add(partition)
        journey.away = False
        journey.hops += 1
        journey.seconds += outcome.seconds
        journey.attempts = max(journey.attempts, outcome.attempts)
        if outcome.error is not None:
            return self._ended_with(name, replace(outcome, task=journey.task))
        done: HopDone = outcome.value
        now, before = time.monotonic(), journey.standing
        number = journey.stretch.number
        self.log.hops.append(HopTime(number, before.epoch, partition, now - outcome.seconds, now))
        self._note(journey, partition, done)
        if done.found is not None:
            return self._ended_with(name, replace(outcome, task=journey.task, value=done.found))
        if journey.stopping:
            error = TaskStopped(f"Stopped after epoch {done.standing.epoch}.")
            return self._ended_with(name, replace(outcome, task=journey.task, value=None, error=error))
        return None

    def _note(self, journey: Journey, partition: int, done: HopDone) -> None:
        journey.standing = done.standing
        self.log.orders[journey.stretch.number] = done.standing.orders
        usage = self.log.workers.setdefault(partition, Usage())
        usage.hops += 1
        usage.seconds += done.seconds
        usage.bytes_read += done.bytes_read

    def _ended_with(self, name: str, outcome: Outcome) -> Outcome:
        journey = self._journeys.pop(name)
        return replace(outcome, seconds=journey.seconds, attempts=journey.attempts)
