"""A pass as a job of Spark's, seen from the driver: events as they happen, states merged in the order of the blocks."""

from __future__ import annotations

import json
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cloudpickle

from braidwater.aggregates.base import Aggregate
from braidwater.engines.spark.fold import Begins, Call, Folded, Kept, Key, Pass, Rows
from braidwater.engines.spark.line import Line, Switchboard
from braidwater.engines.spark.session import Session, new_tag
from braidwater.engines.spark.shards import Shard, shares
from braidwater.errors import BadSignatureError, WorkerError, WorkerLostError
from braidwater.events import BlockDone, WorkerLost, emit

_RETRIES = 3  # times that a job is begun again when Spark gave it up: what earlier jobs found is kept
_JOIN_SECONDS = 10.0


@dataclass
class Found:
    """What a pass found: the merged state, the rows of every block, and the rows that were left out."""

    state: Any
    blocks: dict[tuple[int, int], int] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(self.blocks.values())


def run_pass(
    session: Session,
    shards: Sequence[Shard],
    rows: Rows,
    aggregate: Aggregate[Any, Any],
    workers: int,
    begins: Begins | None = None,
) -> Found:
    """Fold all shards. One job, or several where the states of all blocks would not fit into a quarter of the memory option.

    An exact aggregate has one state a block, merged in the order of the blocks on the driver: the result is that of the local
    engine, bit for bit. Any other has one state a worker.
    """
    found = Found(aggregate.initialize())
    for wave in _waves(shards, rows, aggregate, workers):
        states: dict[Key, Folded] = {}
        work = partial(Pass, shares=tuple(wave), rows=rows, aggregate=aggregate, begins=begins)
        for one in _job(session, work, len(wave)):
            if isinstance(one, Kept):
                found.dropped[one.shard] = one.dropped
            else:
                states[one.key] = one  # again, where Spark began a task again
        for key in sorted(states):
            found.state = aggregate.merge(found.state, states[key].state)
            found.blocks[key] = states[key].rows
    return found


def _waves(
    shards: Sequence[Shard], rows: Rows, aggregate: Aggregate[Any, Any], workers: int
) -> Iterator[list[tuple[Shard, ...]]]:
    """Shares for the workers of each job, in the order of the table."""
    step = len(shards)
    if aggregate.exact:
        state = len(cloudpickle.dumps(aggregate.initialize()))
        unit = rows.encoder.block_schema.unit_rows if rows.encoder is not None else 65_536
        blocks = max(sum(shard.rows for shard in shards) / unit, 1)
        step = max(int(len(shards) * min(rows.options.memory / 4 / (state * blocks), 1.0)), workers)
    for begin in range(0, len(shards), step):
        yield shares(shards[begin : begin + step], workers)


def _job(session: Session, work: Callable[[Call], Pass], count: int) -> Iterator[Folded | Kept]:
    """What the tasks found. A job that Spark gave up is begun again: a lost worker's blocks are made anew."""
    for attempt in range(_RETRIES + 1):
        try:
            yield from _attempt(session, work, count)
        except WorkerLostError as error:
            again = attempt < _RETRIES
            emit(WorkerLost(worker=0, reason=str(error), restart=again))
            if not again:
                raise
        else:
            return


def _attempt(session: Session, work: Callable[[Call], Pass], count: int) -> Iterator[Folded | Kept]:
    with Calls(session, count) as calls:
        tag = new_tag("pass")
        job = work(calls.call)
        calls.start(lambda: session.run(job, count, tag=tag), tag)
        while True:
            kind, content = calls.next()
            if kind == "b":
                emit(BlockDone(**json.loads(content)))
            elif kind == "s":
                yield cloudpickle.loads(content[1])
            elif kind == "e":
                calls.thank(content[0])
            elif kind == "f":
                raise_packed(content)
            elif kind == "done":
                if isinstance(content, BaseException):
                    raise WorkerLostError(str(content)) from content
                return


class Calls:
    """A job and the lines of its tasks: ``next()`` gives what any of them says, and at the end ("done", its rows or error)."""

    def __init__(self, session: Session, count: int) -> None:
        self._session = session
        self._board = Switchboard(session.host)
        self.tickets = tuple(uuid.uuid4().hex for _ in range(count))
        self.call = Call(self._board.host, self._board.port, self._board.key, self.tickets)
        self.lines: dict[int, Line] = {}
        self._said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._tag = ""
        for number in range(count):
            self._expect(number)

    def _expect(self, number: int) -> None:
        def taken(line: Line, host: str) -> None:
            self._expect(number)  # Spark may have to begin the task again
            self.lines[number] = line
            self._said.put(("call", number))
            thread = threading.current_thread()
            self._threads.append(thread)
            with suppress(EOFError, OSError, BadSignatureError):
                while True:
                    kind, content = line.receive()
                    self._said.put((kind, content if kind in "bf" else (number, content)))
            line.hang_up()  # nobody hears it any more
            self._said.put(("gone", number))

        self._board.expect(self.tickets[number], taken)

    def start(self, run: Any, tag: str) -> None:
        """Run the job on a thread of its own."""

        def work() -> None:
            try:
                self._said.put(("done", run()))
            except BaseException as error:
                self._said.put(("done", error))

        self._tag = tag
        self._job = threading.Thread(target=work, daemon=True, name=f"braidwater-{tag}")
        self._job.start()

    def thank(self, number: int) -> None:
        """Say to a task that all it said was heard; its job cannot end before."""
        with suppress(OSError):
            self.lines[number].send("k")

    def next(self, timeout: float | None = None) -> tuple[str, Any]:
        """The next thing said; ``("silence", None)`` after `timeout` seconds without one."""
        try:
            return self._said.get(timeout=timeout)
        except queue.Empty:
            return "silence", None

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what still runs: no task and no thread outlives the pass."""
        if self._tag and self._job.is_alive():
            self._session.cancel(self._tag)
        self._board.close()
        for line in self.lines.values():
            line.hang_up()
        for thread in (*self._threads, *([self._job] if self._tag else [])):
            thread.join(_JOIN_SECONDS)
        for line in self.lines.values():
            line.close()


def raise_packed(packed: bytes) -> None:
    """Raise the error of a worker, with its traceback there as the cause."""
    error, text = cloudpickle.loads(packed)
    if error is None:
        raise WorkerError(text)
    raise error from WorkerError(f"In a worker of Spark's:\n{text}")
