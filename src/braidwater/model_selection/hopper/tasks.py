"""Who hops where: stretches of training as tasks that are cut into hops, and put together again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
    """What a worker did: seconds in hops, and bytes that it fetched of its partitions."""

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
    partition: int = 0  # where it is, or was last
    hops: int = 0
    seconds: float = 0.0
    attempts: int = 0
    stopping: bool = False

    def may_visit(self, partition: int) -> bool:
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
    none of those can go to. A worker trains one model at a time, on a partition of its own;
    nobody waits for anybody but for his turn.
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
        self._setup, self._ground = setup, ground
        self._partitions = ground.partitions
        self._in_flight = in_flight
        self._random = np.random.default_rng(seed)
        self._orders = orders or {}
        self._journeys: dict[str, Journey] = {}
        self._free = set(range(ground.workers))
        self._ended = False
        self._running = self._start(engine)

    @staticmethod
    def over(
        stretches: Iterable[Task | None],
        setup: Setup,
        ground: Ground,
        engine: Engine,
        *,
        in_flight: int,
        seed: int = 0,
        orders: dict[int, Orders] | None = None,
    ) -> HopTasks:
        """The same for any ground: worker processes where its blocks are in files, else the workers where its rows stay."""
        from braidwater.model_selection.hopper.visiting import VisitingHops

        kind = HopTasks if ground.store.here else VisitingHops
        return kind(stretches, setup, ground, engine, in_flight=in_flight, seed=seed, orders=orders)

    def _start(self, engine: Engine) -> RunningTasks:
        self._packed = Packed(self._setup), Packed(self._ground)
        return engine.tasks(self._hops())

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
            for worker in self._random.permutation(sorted(self._free)).tolist():
                name = self._choose(worker)
                if name is not None:
                    return self._task(name, worker)
            if not self._free or len(self._journeys) >= self._in_flight or not self._take_on():
                return None

    def _choose(self, worker: int) -> str | None:
        """The model that goes to a free worker: of those that may, the one with most left to do; of equals any."""
        names = list(self._journeys)
        typical = self._typical()
        ready = {
            place: self._journeys[name].left(self._partitions, typical)
            for place, name in enumerate(names)
            if self._goals(name, worker)
        }
        if not ready:
            return None
        return names[longest_first(ready, dict(enumerate(self._random.random(len(names)))))]

    def _goals(self, name: str, worker: int) -> list[int]:
        """The partitions of a worker that a model can go to next."""
        journey = self._journeys[name]
        return [partition for partition in self._ground.owned(worker) if journey.may_visit(partition)]

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

    def _task(self, name: str, worker: int) -> Task:
        journey = self._journeys[name]
        goals = self._goals(name, worker)
        journey.partition = goals[0] if len(goals) == 1 else goals[int(self._random.integers(len(goals)))]
        journey.away = True
        self._free.discard(worker)
        wanted = None if is_over(journey.standing, journey.stretch) else journey.partition
        function, arguments = self._call(journey, Hop(wanted, journey.standing))
        return replace(journey.task, function=function, arguments=arguments, worker=worker)

    def _call(self, journey: Journey, hop: Hop) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What a worker is asked to do for a hop."""
        return run_hop, (*self._packed, journey.stretch, hop)

    def _done(self, journey: Journey, outcome: Outcome) -> HopDone:
        """What came of a hop."""
        done: HopDone = outcome.value
        return done

    def _take(self, outcome: Outcome) -> Outcome | None:
        """Note how a hop ended: the outcome of its stretch, where that has come to its end."""
        name, worker = outcome.task.name, outcome.task.worker
        assert worker is not None
        journey = self._journeys[name]
        self._free.add(worker)
        journey.away = False
        journey.hops += 1
        journey.seconds += outcome.seconds
        journey.attempts = max(journey.attempts, outcome.attempts)
        if outcome.error is not None:
            return self._ended_with(name, replace(outcome, task=journey.task))
        try:
            done = self._done(journey, outcome)
        except Exception as failure:
            return self._ended_with(name, replace(outcome, task=journey.task, value=None, error=failure))
        now, before = time.monotonic(), journey.standing
        number = journey.stretch.number
        self.log.hops.append(HopTime(number, before.epoch, worker, now - outcome.seconds, now))
        self._note(journey, worker, done)
        if done.found is not None:
            return self._ended_with(name, replace(outcome, task=journey.task, value=done.found))
        if journey.stopping:
            error = TaskStopped(f"Stopped after epoch {done.standing.epoch}.")
            return self._ended_with(name, replace(outcome, task=journey.task, value=None, error=error))
        return None

    def _note(self, journey: Journey, worker: int, done: HopDone) -> None:
        journey.standing = done.standing
        self.log.orders[journey.stretch.number] = done.standing.orders
        usage = self.log.workers.setdefault(worker, Usage())
        usage.hops += 1
        usage.seconds += done.seconds
        usage.bytes_read += done.bytes_read

    def _ended_with(self, name: str, outcome: Outcome) -> Outcome:
        journey = self._journeys.pop(name)
        return replace(outcome, seconds=journey.seconds, attempts=journey.attempts)
