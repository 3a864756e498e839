"""The conformance suite of an engine: ``check(make)`` for each of `ENGINE_CHECKS`, where ``make(workers)`` makes an engine.

A shape of work that an engine declares it cannot do (`Engine.capabilities`) must be refused with `UnsupportedError`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from braidwater.aggregates.base import Aggregate, Iteration
from braidwater.blocks.base import Array, Block, BlockColumn, BlockSchema
from braidwater.blocks.source import BlockSource, CacheChoice
from braidwater.engines.base import Engine, Member, Task
from braidwater.engines.phase import enter
from braidwater.errors import TaskStopped, TaskTimeoutError, UnsupportedError, WorkerError, WorkerLostError
from braidwater.events import (
    BlockDone,
    Event,
    Metric,
    PassFinished,
    PassStarted,
    TaskEvent,
    WorkerLost,
    emit,
    listen,
)
from braidwater.options import current_options, options
from braidwater.tables import table

Make = Callable[[int], Engine]
ROWS = 300_000


class WideRows:
    """An encoder whose rows are so wide that few fit into a block: many blocks of few rows."""

    columns = ("number", "value")
    key = "wide rows"

    def __init__(self, width: int = 256) -> None:
        schema = [
            BlockColumn("number", "float64"),
            BlockColumn("value", "float64"),
            BlockColumn("wide", "uint8", (width,)),
        ]
        self.block_schema = BlockSchema.ordered(schema)
        self._width = width

    def encode(self, batch: pa.RecordBatch) -> dict[str, Array]:
        number = batch.column(0).to_numpy().astype(np.float64)
        wide = np.zeros((len(number), self._width), np.uint8)
        return {"number": number, "value": batch.column(1).to_numpy(), "wide": wide}


class Totals(Aggregate[Array, Array]):
    """Rows, sum and sum of squares: what every pass must get right."""

    what = "totals"

    def initialize(self) -> Array:
        return np.zeros(4)

    def transition(self, state: Array, block: Block) -> Array:
        state += [block.rows, block["number"].sum(), block["value"].sum(), np.square(block["value"]).sum()]
        return state

    def merge(self, state: Array, other: Array) -> Array:
        return state + other

    def final(self, state: Array) -> Array:
        return state


class Last(Totals):
    """Not exact: how many rows one state has seen, at most."""

    exact = False

    def merge(self, state: Array, other: Array) -> Array:
        return np.maximum(state, other)


class Failing(Totals):
    """Fails at a row in the middle."""

    def transition(self, state: Array, block: Block) -> Array:
        if (block["number"] == ROWS // 2).any():
            raise ZeroDivisionError("the row in the middle")
        return super().transition(state, block)


class ThreePasses(Iteration[list[float]]):
    """Three passes, the last of which only happens because of what the first two found."""

    def passes(self) -> Generator[Aggregate[Any, Any], Any, list[float]]:
        found: list[float] = []
        while len(found) < 3 or sum(found) < 3 * ROWS:
            totals = yield Totals()
            found.append(float(totals[0]))
        return found


def source(cache: CacheChoice = "memory", rows: int = ROWS, passes: int = 3) -> BlockSource:
    """Rows that count from 0, in about ten blocks."""
    random = np.random.default_rng(7)
    data = pa.table({"number": np.arange(rows, dtype=np.float64), "value": random.normal(size=rows)})
    return BlockSource(table(data, name="numbers"), WideRows(), passes=passes, cache=cache)


def check_every_row_is_seen_once(make: Make) -> None:
    """In the first pass and in later ones, wherever the blocks are kept."""
    for cache in ("none", "memory", "disk"):
        with source(cache) as rows:
            engine = make(2)
            for _ in range(3):
                found = engine.aggregate(rows, Totals())
                assert found[0] == ROWS
                assert found[1] == ROWS * (ROWS - 1) / 2


def check_the_result_does_not_depend_on_the_workers(make: Make) -> None:
    """Not even in the last digit, nor on where the blocks are kept."""
    seen = set()
    for workers in (1, 2, 5):
        for cache in ("none", "memory", "disk"):
            with source(cache) as rows:
                engine = make(workers)
                seen |= {engine.aggregate(rows, Totals()).tobytes() for _ in range(2)}
    assert len(seen) == 1


def check_more_workers_than_blocks(make: Make) -> None:
    """Workers without a block do no harm; nor does a table of one row, nor one without rows."""
    for count in (1, 10, 0):
        with source(rows=count) as rows:
            for _ in range(2):
                assert make(7).aggregate(rows, Totals())[0] == count


def check_an_inexact_aggregate_has_one_state_a_worker(make: Make) -> None:
    """Where the result depends on the cut, every worker folds a share of the blocks in their order."""
    for cache in ("none", "memory"):
        for workers, least, most in ((1, ROWS, ROWS), (2, ROWS / 2, ROWS * 0.75)):
            with source(cache) as rows:
                for _ in range(2):  # from the table, and from the kept blocks
                    assert least <= make(workers).aggregate(rows, Last())[0] <= most


def check_an_iteration_decides_between_its_passes(make: Make) -> None:
    """The results of a pass reach the decision about the next one."""
    with source() as rows:
        assert make(2).iterate(rows, ThreePasses()) == [ROWS] * 3


def check_an_error_names_the_block_and_keeps_its_traceback(make: Make) -> None:
    """The user learns what failed, and at which rows."""
    for cache in ("none", "memory"):
        with source(cache) as rows:
            with pytest.raises(WorkerError, match=r"ZeroDivisionError: the row in the middle .*block") as caught:
                make(2).aggregate(rows, Failing())
            assert caught.value.__cause__ is not None or "Traceback" in str(caught.value)
            assert make(2).aggregate(rows, Totals())[0] == ROWS


def check_stopping_in_the_middle_leaves_no_worker(make: Make) -> None:
    """Ctrl-C ends the pass, its threads and its processes."""
    before = threading.active_count()

    def stop(event: Event) -> None:
        if isinstance(event, BlockDone):
            raise KeyboardInterrupt

    with source("disk") as rows:
        with pytest.raises(KeyboardInterrupt), listen(stop):
            make(3).aggregate(rows, Totals())
        assert threading.active_count() <= before
        assert not multiprocessing.active_children()
        assert make(2).aggregate(rows, Totals())[0] == ROWS


def check_passes_and_blocks_are_announced(make: Make) -> None:
    """Whoever listens learns of every pass, its rows and where they came from."""
    events: list[Event] = []
    with source() as rows, listen(events.append):
        make(2).aggregate(rows, Totals())
        make(2).aggregate(rows, Totals())
    started = [event for event in events if isinstance(event, PassStarted)]
    assert [event.number for event in started] == [1, 2]
    assert started[0].origin == "table+write"
    assert started[1].origin == "memory"
    assert [event.rows for event in events if isinstance(event, PassFinished)] == [ROWS, ROWS]
    assert sum(event.rows for event in events if isinstance(event, BlockDone)) == 2 * ROWS


def check_mapped_rows_keep_their_order(make: Make) -> None:
    """A computed table has the rows of the other, in their order, and computes nothing until it is read."""
    calls: list[int] = []

    def double(batch: pa.RecordBatch) -> pa.RecordBatch:
        calls.append(batch.num_rows)
        return pa.record_batch({"number": batch.column(0), "double": pa.array(batch.column(0).to_numpy() * 2)})

    rows = table(pa.table({"number": np.arange(200_000, dtype=np.float64)}), name="numbers")
    schema = pa.schema({"number": pa.float64(), "double": pa.float64()})
    mapped = make(3).map_blocks(rows, double, schema, name="doubled")
    assert not calls
    found = mapped.to_arrow()
    assert sum(calls) == 200_000
    assert np.array_equal(found.column("double").to_numpy(), np.arange(200_000) * 2.0)


def check_tasks_end_in_outcomes(make: Make) -> None:
    """Each task has one, in any order: a value, an error with its traceback, or the loss of its worker."""
    engine = make(2)
    tasks = [Task(f"task {n}", _work, (n,)) for n in range(5)]
    outcomes = {outcome.task.name: outcome for outcome in engine.tasks(tasks)}
    assert len(outcomes) == 5
    assert [outcomes[f"task {n}"].value for n in (0, 1, 4)] == [0, 1, 16]
    assert isinstance(outcomes["task 2"].error, WorkerError)
    assert "in _work" in str(outcomes["task 2"].error)
    assert isinstance(outcomes["task 3"].error, WorkerLostError)


def check_tasks_talk_and_can_be_stopped(make: Make) -> None:
    """Events arrive with their task's name, nested ones whole; a stop takes effect at the very metric it was decided at."""
    running = make(2).tasks(
        [Task("long", _count, (10_000,)), Task("short", _count, (3,)), Task("deaf", _count, (9, True))]
    )
    heard: dict[str, list[float]] = {"long": [], "short": [], "deaf": []}

    def follow(event: Event) -> None:
        if isinstance(event, TaskEvent) and isinstance(event.told, Metric):
            heard[event.task].append(event.told.value)
            if event.task != "short" and event.told.value == 4:
                running.stop(event.task)
            running.stop("nobody")

    with listen(follow):
        outcomes = {outcome.task.name: outcome for outcome in running}
    assert outcomes["short"].value == 3
    assert heard["short"] == [0, 1, 2]
    assert heard["long"] == heard["deaf"] == [0, 1, 2, 3, 4]
    assert isinstance(outcomes["long"].error, TaskStopped)
    assert outcomes["deaf"].value == "cleaned up after 4"


def check_tasks_are_asked_for_late(make: Make) -> None:
    """A generator of tasks knows every outcome that was taken, may have nothing to do for a while, and goes on until it ends."""
    taken: list[Any] = []

    def decide() -> Generator[Task | None, None, None]:
        yield Task("first", _count, (1,))
        while not taken:
            yield None
        for number in range(3):
            yield Task(f"after {len(taken)}", _count, (number,))

    for outcome in make(2).tasks(decide()):
        assert outcome.error is None
        taken.append(outcome.task.name)
    assert taken[:2] == ["first", "after 1"]
    assert len(taken) == 4
    assert list(make(2).tasks(iter([None]))) == []


def check_a_task_that_hangs_or_dies_is_begun_anew_or_ended(make: Make) -> None:
    """Time out: the process is ended, the others and later tasks are none the worse. Death: begun anew as often as allowed."""
    events: list[Event] = []
    with tempfile.TemporaryDirectory() as folder, listen(events.append):
        tasks = [
            Task("hangs", time.sleep, (600,), timeout=0.5, retries=3),
            Task("dies once", _die_at_first_call, (f"{folder}/once",), retries=1),
            Task("dies", _kill_own_process),
            Task("works", _count, (2,), timeout=60),
        ]
        outcomes = {outcome.task.name: outcome for outcome in make(2).tasks(tasks)}
    assert isinstance(outcomes["hangs"].error, TaskTimeoutError)
    assert outcomes["hangs"].seconds < 30
    assert (outcomes["dies once"].value, outcomes["dies once"].attempts) == ("alive", 2)
    assert isinstance(outcomes["dies"].error, WorkerLostError)
    assert outcomes["works"].value == 2
    assert sorted(event.restart for event in events if isinstance(event, WorkerLost)) == [False, True]


def check_tasks_share_the_machine_and_leave_nothing_behind(make: Make) -> None:
    """Each runs with its share of what is in force here; leaving early, by an error or a generator that fails, ends all."""
    with options(memory="640MB", workers=2):
        (outcome,) = make(2).tasks([Task("told", _session)])
    assert outcome.value[0] == 320_000_000
    running = make(2).tasks([Task("told", _session), Task("hangs", time.sleep, (600,))])
    process = next(running).value[1]
    running.close()
    assert not _alive(process)

    def fails() -> Generator[Task, None, None]:
        yield Task("told", _session)
        raise ZeroDivisionError("the generator")

    with pytest.raises(ZeroDivisionError, match="the generator"):
        list(make(1).tasks(fails()))


def check_a_gang_shares_the_blocks_and_talks(make: Make) -> None:
    """Results come in the order of ranks, events arrive where the gang was started, collectives work."""
    engine = make(2)
    if not engine.capabilities.gang:
        with pytest.raises(UnsupportedError):
            engine.gang(lambda member: None, 2)
        return
    events: list[Event] = []
    with source("disk") as rows, listen(events.append):
        found = engine.gang(_sum_of_a_share, 2, source=rows)
    assert [rank for rank, _, _ in found] == [0, 1]
    assert sum(own for _, own, _ in found) == ROWS * (ROWS - 1) / 2
    assert {total for _, _, total in found} == {ROWS * (ROWS - 1) / 2}
    assert sorted(event.value for event in events if isinstance(event, Metric)) == [0.0, 1.0]


def check_a_dead_member_ends_the_gang_and_not_in_a_hang(make: Make) -> None:
    """One that is killed is named; after a restart the gang may succeed; an error keeps its traceback and its rank."""
    engine = make(2)
    if not engine.capabilities.gang:
        return
    with pytest.raises(WorkerLostError, match=r"Worker 1 .*SIGKILL"):
        engine.gang(_die_at_first, 2)
    assert engine.gang(_die_at_first, 2, max_restarts=1) == [1, 1]
    with pytest.raises(WorkerError, match=r"(?s)1.*_fail_at_one.*the second member"):
        engine.gang(_fail_at_one, 2)


def check_a_gang_can_go_on_without_those_that_died(make: Make) -> None:
    """Then their results are None, unless they may be started again, alone; the others find each other by the store."""
    engine = make(2)
    if not engine.capabilities.gang:
        return
    events: list[Event] = []
    with listen(events.append):
        found = engine.gang(_die_in_turn, 3, max_restarts=1, on_loss="continue")
    assert found == ["heard 1 after 1", "1 after 1", None]
    lost = [event for event in events if isinstance(event, WorkerLost)]
    assert [(event.worker, event.restart) for event in lost] == [(1, True), (2, False)]
    with pytest.raises(WorkerLostError, match="Worker 0 of 1 died"):
        engine.gang(_die, 1, on_loss="continue")
    with pytest.raises(WorkerError, match="the second member"):
        engine.gang(_fail_in_company, 2, on_loss="continue")


def check_a_member_that_does_not_come_is_named(make: Make) -> None:
    """A wait in a collective ends after `timeout`, in an error that says who was missing and what it was at."""
    engine = make(2)
    if not engine.capabilities.gang:
        return
    expected = (
        r"Worker 1 of 2 did not come to step 18 within 2 s: it has been at the rows of step 18.*Worker 0 was there"
    )
    with pytest.raises(WorkerLostError, match=expected):
        engine.gang(_sleep_over_rows, 2, timeout=2.0)


def _sum_of_a_share(member: Member) -> tuple[int, float, float]:
    import torch
    import torch.distributed as distributed

    assert member.source is not None
    store = member.source.store
    assert store is not None
    own = sum(float(store.read(unit.number)["number"].sum()) for unit in store.units[member.rank :: member.size])
    member.emit(Metric(name="rank", value=float(member.rank), step=1))
    total = torch.tensor([own], dtype=torch.float64)
    distributed.all_reduce(total)
    return member.rank, own, float(total)


def _die_at_first(member: Member) -> int:
    import torch.distributed as distributed

    if member.rank == 1 and member.restarts == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()
    return member.restarts


def _die_in_turn(member: Member) -> str:
    """Member 1 dies, and its second life leaves a word; member 2 dies when it has heard that."""
    if member.rank == 1 and member.restarts == 0:
        _die(member)
    if member.rank == 1:
        member.store.set("word", f"{member.rank} after {member.restarts}")
        return f"{member.rank} after {member.restarts}"
    word = member.store.get("word").decode()
    if member.rank == 2:
        _die(member)
    return f"heard {word}"


def _die(member: Member) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail_in_company(member: Member) -> None:
    if member.rank == 1:
        raise ZeroDivisionError("the second member")
    member.store.get("a word that nobody says")


def _sleep_over_rows(member: Member) -> None:
    import torch.distributed as distributed

    if member.rank == 1:
        enter("the rows of step", 18)
        time.sleep(60)
    enter("step", 18)
    distributed.barrier()


def _fail_at_one(member: Member) -> None:
    import torch.distributed as distributed

    if member.rank == 1:
        raise ZeroDivisionError("the second member")
    distributed.barrier()


def _count(until: int, catch: bool = False) -> int | str:
    for number in range(until):
        try:
            emit(Metric(name="number", value=float(number), step=number))
        except TaskStopped:
            if not catch:
                raise
            return f"cleaned up after {number}"
    return until


def _die_at_first_call(path: str) -> str:
    if not os.path.exists(path):
        with open(path, "w"):
            os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def _kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _session() -> tuple[int, int]:
    return current_options().memory, os.getpid()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _work(number: int) -> int:
    if number == 2:
        raise ValueError("two")
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


ENGINE_CHECKS = (
    check_every_row_is_seen_once,
    check_the_result_does_not_depend_on_the_workers,
    check_more_workers_than_blocks,
    check_an_inexact_aggregate_has_one_state_a_worker,
    check_an_iteration_decides_between_its_passes,
    check_an_error_names_the_block_and_keeps_its_traceback,
    check_stopping_in_the_middle_leaves_no_worker,
    check_passes_and_blocks_are_announced,
    check_mapped_rows_keep_their_order,
    check_tasks_end_in_outcomes,
    check_tasks_talk_and_can_be_stopped,
    check_tasks_are_asked_for_late,
    check_a_task_that_hangs_or_dies_is_begun_anew_or_ended,
    check_tasks_share_the_machine_and_leave_nothing_behind,
    check_a_gang_shares_the_blocks_and_talks,
    check_a_dead_member_ends_the_gang_and_not_in_a_hang,
    check_a_gang_can_go_on_without_those_that_died,
    check_a_member_that_does_not_come_is_named,
)
