"""Workers that stay: one barrier job for all passes of an iteration, each worker with its blocks open.

A Spark job costs as much CPU as several passes over blocks that are there (0.2-0.5 CPU s against 0.1 for 2,000,000 rows of 20
doubles). So an iteration starts one job whose tasks wait for the aggregate of each pass on their lines to the driver, where
the decisions are made. The states of the blocks are merged in the order of the blocks: a worker goes on from the state that
the worker before it ended with, so one state a worker travels, and the result is that of the local engine, bit for bit.
Values in a state that are `Once` go to the driver and not on to the next worker, which only hands their names on; each worker
keeps those that it made.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import cloudpickle

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.source import BlockSource
from braidwater.engines.once import Once, exchange, passing_through
from braidwater.engines.spark.fold import Begins, Call, Folded, Kept, Rows, Shards, packed_error
from braidwater.engines.spark.line import Line
from braidwater.engines.spark.passes import Calls, Found, raise_packed
from braidwater.engines.spark.session import Session, new_tag
from braidwater.engines.spark.shards import Shard, shares
from braidwater.errors import WorkerError, WorkerLostError
from braidwater.events import BlockDone, WorkerLost, emit

_RESTARTS = 3  # times that new workers take the place of lost ones
_START_SECONDS = 60.0  # in which all of them must have called, or the passes run as jobs
_HELD_BYTES = 64 * 2**20  # of states that a worker holds while the one before it is not done


class Residents:
    """The workers of an iteration, until `close` frees their slots."""

    def __init__(self, session: Session, shards: Sequence[Shard], rows: Rows, workers: int) -> None:
        self._shares = shares(shards, workers)
        # what each of them has, by name
        self._known: list[MutableMapping[str, Once[Any]]] = [WeakValueDictionary() for _ in self._shares]
        self._calls = Calls(session, len(self._shares))
        tag = new_tag("residents")
        resident = Resident(self._calls.call, tuple(self._shares), rows)
        count = len(self._shares)
        self._calls.start(lambda: session.run(resident, count, tag=tag, barrier=count > 1), tag)
        try:
            self._await_all()
        except BaseException:
            self.close()
            raise

    def _await_all(self) -> None:
        while len(self._calls.lines) < len(self._shares):
            kind, content = self._calls.next(_START_SECONDS)
            if kind == "silence":
                raise WorkerLostError(
                    f"Of {len(self._shares)} workers {len(self._calls.lines)} began within {_START_SECONDS:g} s: other jobs "
                    "hold slots."
                )
            self._take(kind, content)

    def fold(self, aggregate: Aggregate[Any, Any], begins: Begins | None = None) -> Found:
        """One pass. `WorkerLostError` when a worker was lost; then these are of no more use."""
        lines = self._calls.lines
        for number in range(len(self._shares)):
            request = self._request(number, aggregate, begins)
            with _broken():
                lines[number].send("a", request)
        found = Found(aggregate.initialize())
        ended: dict[int, bytes] = {}
        made: WeakValueDictionary[str, Once[Any]] = WeakValueDictionary()  # by workers, and alive in the state
        for number in range(len(self._shares)):
            with passing_through():
                state = cloudpickle.dumps(found.state)
            with _broken():
                lines[number].send("p", state)
            while number not in ended:
                kind, content = self._calls.next()
                if kind == "p":
                    ended[content[0]] = content[1]
                else:
                    self._take(kind, content)
            with exchange(self._known[number], made):
                one = cloudpickle.loads(ended.pop(number))
            made.update(self._known[number])
            found.state = one.state
            found.blocks.update(one.blocks)
            found.dropped.update(one.dropped)
        return found

    def _request(self, number: int, aggregate: Aggregate[Any, Any], begins: Begins | None) -> bytes:
        """What a worker is told: the names of what it still has to have, and its part of the aggregate."""
        if begins is not None:
            first = [begins[share[0].number][1] for share in self._shares[number : number + 2]]
            aggregate = aggregate.part(range(first[0], first[1] if len(first) > 1 else sys.maxsize))
        known = self._known[number]
        names = json.dumps(list(known)).encode()
        with exchange(known):
            packed: bytes = cloudpickle.dumps((aggregate, begins))
        return names + b"\n" + packed

    def _take(self, kind: str, content: Any) -> None:
        if kind == "b":
            emit(BlockDone(**json.loads(content)))
        elif kind == "f":
            raise_packed(content)
        elif kind == "gone":
            raise WorkerLostError(f"Worker {content} of {len(self._shares)} was lost: its line to the driver broke.")
        elif kind == "done":
            reason = content if isinstance(content, BaseException) else "Spark ended its job"
            raise WorkerLostError(f"The workers of the iteration were lost: {reason}")

    def close(self) -> None:
        """Send the workers home."""
        for line in self._calls.lines.values():
            line.hang_up()
        with suppress(WorkerError):  # they leave by themselves; who does not is stopped
            for _ in range(1000):
                if self._calls.next(2.0)[0] in ("done", "silence"):
                    break
        self._calls.__exit__()


class Stay:
    """Residents for all passes over a source: they start with the first one, and others take their place when they are lost.
    A context manager."""

    def __init__(self, source: BlockSource, start: Callable[[], Residents]) -> None:
        self.source = source
        self._start = start
        self._residents: Residents | None = None
        self._restarts = _RESTARTS

    def fold(self, aggregate: Aggregate[Any, Any], begins: Begins | None = None) -> Found:
        """One pass; what earlier ones found is kept when a worker is lost in it."""
        while True:
            try:
                self._residents = self._residents or self._start()
                return self._residents.fold(aggregate, begins)
            except WorkerLostError as error:
                self.close()
                emit(WorkerLost(worker=0, reason=str(error), restart=self._restarts > 0))
                if not self._restarts:
                    raise
                self._restarts -= 1

    def close(self) -> None:
        """Send the workers home."""
        if self._residents is not None:
            self._residents.close()
        self._residents = None

    def __enter__(self) -> Stay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _broken:  # noqa: N801 - it reads as a word: with _broken()
    """A line that breaks while something is sent is a lost worker."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            raise WorkerLostError(f"A line to a worker broke: {error}") from error


@dataclass(frozen=True)
class Ended:
    """What a worker says at the end of a pass: the state of all blocks up to its last one, and what it read."""

    state: Any
    blocks: dict[tuple[int, int], int]
    dropped: dict[int, int]


@dataclass(frozen=True)
class Resident:
    """Called in a task of Spark's with its number; it stays until the driver hangs up."""

    call: Call
    shares: tuple[tuple[Shard, ...], ...]
    rows: Rows

    def __call__(self, number: int) -> list[bytes]:
        line = self.call.line(number)
        try:
            with Shards(self.shares[number], self.rows) as shards:
                self._stay(number, shards, line)
        except (EOFError, OSError):  # the driver has hung up
            pass
        except Exception as error:
            with suppress(EOFError, OSError):
                line.send("f", packed_error(error))
                line.receive()
        finally:
            line.close()
        return []

    def _stay(self, number: int, shards: Shards, line: Line) -> None:
        known: dict[str, Once[Any]] = {}
        while True:
            kind, packed = line.receive()
            if kind != "a":
                raise WorkerError(f"A resident expected the aggregate of a pass, and got a message {kind!r}.")
            aggregate, begins = _opened(packed, known)
            chain = _Chain(aggregate, line)
            blocks: dict[tuple[int, int], int] = {}
            dropped: dict[int, int] = {}
            for found in shards.fold(chain.aggregate, number, line, begins):
                if isinstance(found, Kept):
                    dropped[found.shard] = found.dropped
                else:
                    blocks[found.key] = found.rows
                    chain.add(found)
            ended = Ended(chain.end(), blocks, dropped)
            with exchange(known):
                packed = cloudpickle.dumps(ended)
            line.send("p", packed)


def _opened(packed: bytes, known: dict[str, Once[Any]]) -> Any:
    """The request of a pass; what the driver does not name any more is let go of."""
    end = packed.index(b"\n")
    for name in set(known) - set(json.loads(packed[:end])):
        del known[name]
    with exchange(known):
        return cloudpickle.loads(memoryview(packed)[end + 1 :])


class _Chain:
    """The states of a worker's blocks, merged in their order onto the one that the worker before it ended with."""

    def __init__(self, aggregate: Aggregate[Any, Any], line: Line) -> None:
        self.aggregate = aggregate
        self._line = line
        self._waiting: list[Any] = []
        self._limit = max(_HELD_BYTES // len(cloudpickle.dumps(aggregate.initialize())), 1)
        self._begun = False
        self._state: Any = None

    def add(self, found: Folded) -> None:
        self._waiting.append(found.state)
        if self._begun or len(self._waiting) >= self._limit:
            self.end()

    def end(self) -> Any:
        """The state so far; waits for the worker before."""
        if not self._begun:
            self._state = cloudpickle.loads(self._line.receive()[1])
            self._begun = True
        for state in self._waiting:
            self._state = self.aggregate.merge(self._state, state)
        self._waiting.clear()
        return self._state
