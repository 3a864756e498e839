"""Trials of a search as riders of a circular scan: whenever a place is free the next one joins at the block that comes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from braidwater.blocks import BlockSource
from braidwater.engines import Engine, Outcome, RunningTasks, Task
from braidwater.engines.local.threads import one_blas_thread
from braidwater.errors import BraidwaterError, TaskStopped, TaskTimeoutError, WorkerError
from braidwater.estimators.base import Training
from braidwater.events import Event, ScanShared, TaskEvent, TrialJoined, emit, intercept
from braidwater.model_selection.fused.circular import CircularScan, Ticket
from braidwater.model_selection.fused.estimators import Scan, opened, over
from braidwater.model_selection.side_by_side import finish, iteration_of
from braidwater.model_selection.trial_run import Setup, Stretch, measured, roles_of, run_stretch
from braidwater.model_selection.variants import variant


@dataclass
class _Member:
    """A trial that rides along: what it is trained on, and its ticket."""

    task: Task
    place: int
    begun: float
    template: Any = None
    training: Training | None = None
    ticket: Ticket | None = None
    ended: BraidwaterError | None = None  # stopped, or too late

    @property
    def is_over(self) -> bool:
        return self.ended is not None or self.ticket is None or self.ticket.done


class CircularTasks(RunningTasks):
    """Trials of estimators as tasks, up to `places` of them on one scan over the blocks of `common`, in this process.

    A place that is free asks for the next trial at once; it joins at the block that is read next, and each of its passes is a
    round from there. Its model is that of a fit alone, to the last bit. One that is stopped or takes longer than its
    `timeout` leaves, and the others ride on. A trial that cannot ride (it reads rows otherwise, or depends on their order) is
    trained by itself while the scan waits.
    """

    def __init__(
        self, trials: Iterable[Task | None], setup: Setup, common: Scan, engine: Engine, places: int, threads: int
    ) -> None:
        self._trials = iter(trials)
        self._setup = setup
        self._common = common
        self._source = BlockSource(setup.rows, common.encoding, passes=2, cache="disk")  # type: ignore[arg-type]
        self._scan = CircularScan(engine.materialise(self._source), threads)
        self._free = list(reversed(range(places)))
        self._members: dict[str, _Member] = {}
        self._idle = False  # there is nothing to do before the next outcome
        self._blocks_alone = 0  # what scans of their own would have read

    def __iter__(self) -> CircularTasks:
        return self

    def __next__(self) -> Outcome:
        with one_blas_thread():
            while True:
                over_now = next((member for member in self._members.values() if member.is_over), None)
                if over_now is not None:
                    self._idle = False
                    return self._outcome(over_now)
                self._fill()
                if not self._members:
                    raise StopIteration
                if not any(member.is_over for member in self._members.values()):
                    self._scan.step()
                    self._let_down_the_late()

    def stop(self, name: str) -> None:
        member = self._members.get(name)
        if member is not None and member.ended is None:
            member.ended = TaskStopped(f"Stopped in pass {_passes(member) + 1}.")

    def close(self) -> None:
        self._scan.close()
        self._source.close()
        emit(ScanShared(blocks_read=self._scan.blocks_read, blocks_alone=self._blocks_alone))

    def _fill(self) -> None:
        """Give free places something to do, as long as there is something."""
        while self._free and not self._idle:
            task = next(self._trials, None)
            if task is None:
                self._idle = True
                return
            member = _Member(task, self._free.pop(), time.perf_counter())
            self._members[task.name] = member
            self._board(member)
            if member.is_over:  # its outcome may change what comes next
                return

    def _board(self, member: _Member) -> None:
        stretch: Stretch = member.task.arguments[-1]
        try:
            with _told_of(member):
                model, roles = variant(self._setup.model, stretch.parameters), roles_of(self._setup, stretch)
                member.template, member.training = opened(model, self._setup.rows, roles, roles["features"], None)  # type: ignore[arg-type]
                if not self._can_ride(member):
                    return
                iteration = iteration_of(copy.copy(member.template), over(member.training, self._common.encoding))
            member.ticket = self._scan.join(iteration, _teller(member))
            ticket = member.ticket
        except Exception as error:
            member.ended = _as_ours(error)
            return
        riders = self._scan.riders
        emit(TrialJoined(number=stretch.number, block=ticket.first, blocks=self._scan.blocks, riders=riders))

    def _can_ride(self, member: _Member) -> bool:
        assert member.training is not None
        assert member.training.encoding is not None
        return getattr(member.template, "solver", None) != "sgd" and not self._common.refuses(member.training.encoding)

    def _let_down_the_late(self) -> None:
        now = time.perf_counter()
        for member in self._members.values():
            limit = member.task.timeout
            if limit is not None and not member.is_over and now > member.begun + limit:
                told = f"Task {member.task.name!r} took longer than its {limit:g} seconds and was ended."
                member.ended = TaskTimeoutError(told)

    def _outcome(self, member: _Member) -> Outcome:
        value: Any = None
        error: BaseException | None = member.ended
        if member.ticket is not None:
            self._scan.leave(member.ticket)
            self._blocks_alone += member.ticket.blocks
            error = error or member.ticket.error
        if error is None:
            try:
                with _told_of(member):
                    value = self._found(member)
            except Exception as failure:
                error = _as_ours(failure)
        del self._members[member.task.name]
        self._free.append(member.place)
        return Outcome(member.task, value, error, time.perf_counter() - member.begun, member.place)

    def _found(self, member: _Member) -> Any:
        """What the model of a trial is worth."""
        stretch: Stretch = member.task.arguments[-1]
        if member.ticket is None:
            return run_stretch(self._setup, stretch)
        assert member.training is not None
        model = finish(member.template, member.training, member.ticket.result).result
        return measured(model, self._setup, stretch)


def _passes(member: _Member) -> int:
    return 0 if member.ticket is None else member.ticket.passes


def _teller(member: _Member) -> Callable[[Event], None]:
    """Tells events of a trial as those of its task, as worker processes do."""
    return lambda event: emit(TaskEvent(task=member.task.name, worker=member.place, told=event, time=event.time))


@contextmanager
def _told_of(member: _Member) -> Iterator[None]:
    heard: list[Event] = []
    try:
        with intercept(heard.append):
            yield
    finally:
        for event in heard:
            _teller(member)(event)


def _as_ours(error: Exception) -> BraidwaterError:
    return error if isinstance(error, BraidwaterError) else WorkerError(f"{type(error).__name__}: {error}")
