"""A scan that goes round and round, and that anybody may join at any block.

Trials that begin at different times still share the reading: one that joins in the middle sees the blocks from there to the end,
then those from the beginning to where it joined, as in the shared scans of databases (Zukowski, Héman, Nes and Boncz 2007,
"Cooperative Scans").
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from threading import Lock
from typing import Any

from braidwater.aggregates import Aggregate, Iteration
from braidwater.blocks.base import Block, allocate
from braidwater.blocks.store import BlockStore
from braidwater.engines.local.threads import one_blas_thread
from braidwater.errors import BraidwaterError, EmptyTableError, UnsupportedError, WorkerError


@dataclass
class Ticket:
    """A place in a scan. `result` is there once `done` is true; `error` where the trial failed. `passes` counts its rounds."""

    number: int
    done: bool = False
    result: Any = None
    error: BraidwaterError | None = None
    passes: int = 0


@dataclass
class _Rider:
    ticket: Ticket
    rounds: Generator[Aggregate[Any, Any], Any, Any]
    aggregate: Aggregate[Any, Any]
    state: Any
    left: int


class CircularScan:
    """Reads the blocks of a store in circles, and folds each into the states of all who ride along.

    `join` takes an `Iteration` (or one `Aggregate`) and gives a `Ticket`. A rider begins with the next block that is read and
    ends its pass when it has seen every block once; where it asks for another pass, that begins at the block where it stands. So
    many trainings cost one reading a round, whenever each of them begins. A rider that fails is let down, the others go on.

    `step` reads one block, `run` reads until nobody is left. Any thread may join while another runs. States are folded in the
    order in which a rider sees the blocks: results are those of a pass of its own, beyond rounding.

    >>> from braidwater.aggregates import Count
    >>> import numpy as np
    >>> from braidwater.testing.strategies import uneven_store
    >>> scan = CircularScan(uneven_store({"x": np.arange(10.0)}, units=(6, 4)))
    >>> early = scan.join(Count())
    >>> scan.step()
    >>> late = scan.join(Count())
    >>> scan.run()
    >>> early.result, late.result, scan.blocks_read
    (10, 10, 3)
    """

    def __init__(self, store: BlockStore) -> None:
        if not store.units:
            raise EmptyTableError("There are no blocks to scan.")
        self._store = store
        self._next = 0
        self._riders: list[_Rider] = []
        self._changed = Lock()
        self._buffer = allocate(store.buffer_bytes) if store.buffer_bytes else None
        self._joined = 0
        self.blocks_read = 0

    @property
    def riders(self) -> int:
        """How many ride along."""
        return len(self._riders)

    def join(self, work: Iteration[Any] | Aggregate[Any, Any]) -> Ticket:
        """Ride along from the next block on."""
        with self._changed:
            ticket = Ticket(self._joined)
            self._joined += 1
            rounds = work.passes() if isinstance(work, Iteration) else _one_pass(work)
            self._board(ticket, rounds, None)
        return ticket

    def step(self) -> None:
        """Read the next block for all who are there now; nothing where nobody is."""
        with self._changed:
            riders = list(self._riders)
        if not riders:
            return
        block = self._store.read(self._store.units[self._next].number, self._buffer)
        self.blocks_read += 1
        with one_blas_thread():
            for rider in riders:
                self._attempt(rider, block)
        self._next = (self._next + 1) % len(self._store.units)

    def run(self) -> None:
        """Read until nobody rides along."""
        while self._riders:
            self.step()

    def _fold(self, rider: _Rider, block: Block) -> None:
        rider.state = rider.aggregate.transition(rider.state, block)
        rider.left -= 1
        if rider.left:
            return
        with self._changed:
            self._riders.remove(rider)
            rider.ticket.passes += 1
            self._board(rider.ticket, rider.rounds, rider.aggregate.final(rider.state))

    def _board(self, ticket: Ticket, rounds: Generator[Aggregate[Any, Any], Any, Any], result: Any) -> None:
        """The next round of a trial, which is sent the result of its last; its end where there is none."""
        try:
            aggregate = rounds.send(result)
        except StopIteration as stop:
            ticket.result, ticket.done = stop.value, True
            return
        if not aggregate.exact:
            raise UnsupportedError(
                f"{type(aggregate).__name__} depends on the order of the rows; a scan that is joined in the middle gives it "
                "another one. Train it by itself: fit(table)."
            )
        self._riders.append(_Rider(ticket, rounds, aggregate, aggregate.initialize(), len(self._store.units)))

    def _attempt(self, rider: _Rider, block: Block) -> None:
        try:
            self._fold(rider, block)
        except Exception as error:
            with self._changed:
                if rider in self._riders:
                    self._riders.remove(rider)
                told = WorkerError(f"{type(error).__name__}: {error}")
                rider.ticket.error = error if isinstance(error, BraidwaterError) else told
                rider.ticket.done = True


def _one_pass(aggregate: Aggregate[Any, Any]) -> Generator[Aggregate[Any, Any], Any, Any]:
    return (yield aggregate)
