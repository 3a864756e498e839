"""A scan that goes round and round, and that anybody may join at any block.

Trials that begin at different times still share the reading: one that joins in the middle sees the blocks from there to the end,
then those from the beginning to where it joined, as in the shared scans of databases (Zukowski, Héman, Nes and Boncz 2007,
"Cooperative Scans").
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from threading import Lock
from typing import Any

from braidwater.aggregates import Aggregate, Iteration
from braidwater.blocks.base import Block
from braidwater.blocks.store import BlockStore
from braidwater.engines.local.feed import Piece
from braidwater.engines.local.fold import OrderedFold
from braidwater.engines.local.threads import one_blas_thread
from braidwater.errors import BraidwaterError, EmptyTableError, OptionError, UnsupportedError, WorkerError
from braidwater.events import Event, emit, intercept
from braidwater.model_selection.fused.reading_round import RoundReader

Rounds = Generator[Aggregate[Any, Any], Any, Any]


@dataclass
class Ticket:
    """A place in a scan, which began at the block `first`. `result` is there once `done` is true; `error` where the trial failed.

    `passes` counts its rounds, `blocks` those that it has seen: what a scan of its own would have read.
    """

    number: int
    first: int
    done: bool = False
    result: Any = None
    error: BraidwaterError | None = None
    passes: int = 0
    blocks: int = 0


class CircularScan:
    """Reads the blocks of a store in circles, and folds each into the states of all who ride along.

    `join` takes an `Iteration` (or one `Aggregate`) and gives a `Ticket`. A rider begins with the next block that is read and
    ends its pass when it has seen every block once; where it asks for another pass, that begins at the block where it stands. So
    many trainings cost one reading a round, whenever each of them begins. A rider that fails is let down, the others go on;
    `leave` lets one go before its end.

    Every block has a state of its own, and states are merged in the order of the blocks, wherever a rider began: results are
    those of a pass of its own to the last bit (`LocalEngine` merges in the same order). The states of blocks that come before
    those at the beginning of the table wait, at most as many as there are blocks.

    `step` reads up to `workers` blocks and folds them on as many threads, `run` reads until nobody is left. Any thread may
    join while another runs.

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

    def __init__(self, store: BlockStore, workers: int = 1) -> None:
        if not store.units:
            raise EmptyTableError("There are no blocks to scan.")
        if workers < 1:
            raise OptionError("workers", workers, "at least 1")
        self.blocks = len(store.units)
        self.blocks_read = 0
        self._stride = min(workers, self.blocks)
        self._reader = RoundReader(store, self._stride)
        self._threads = ThreadPoolExecutor(workers, "braidwater-scan") if workers > 1 else None
        self._riders: list[_Rider] = []
        self._changed = Lock()
        self._joined = 0

    @property
    def riders(self) -> int:
        """How many ride along."""
        return len(self._riders)

    @property
    def position(self) -> int:
        """The block that is read next."""
        return self._reader.position

    def join(self, work: Iteration[Any] | Aggregate[Any, Any], tell: Callable[[Event], None] = emit) -> Ticket:
        """Ride along from the next block on. What the work emits between its passes goes to `tell`.

        Raises what goes wrong before its first pass.
        """
        with self._changed:
            ticket = Ticket(self._joined, self.position)
            self._joined += 1
        rider = _Rider(ticket, work.passes() if isinstance(work, Iteration) else _one_pass(work), tell, self.blocks)
        self._go_on(rider)
        if ticket.error is not None:
            raise ticket.error
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Ride no further; the others go on. Nothing where the ride is over."""
        with self._changed:
            for rider in [rider for rider in self._riders if rider.ticket is ticket]:
                self._riders.remove(rider)
                rider.rounds.close()
                ticket.done = True

    def step(self) -> None:
        """Read the next blocks for all who are there now; nothing where nobody is."""
        with self._changed:
            riders = list(self._riders)
        if not riders:
            return
        blocks = self._reader.take(min(self._stride, max(rider.left for rider in riders)))
        self.blocks_read += len(blocks)
        folds = [(rider, block) for place, block in enumerate(blocks) for rider in riders if place < rider.left]
        with one_blas_thread():
            for (rider, block), state in zip(folds, self._folded(folds), strict=True):
                rider.take(block.number, state)
        for rider in riders:
            if rider.error is not None or not rider.left:
                self._round_ended(rider)

    def run(self) -> None:
        """Read until nobody rides along."""
        while self._riders:
            self.step()

    def close(self) -> None:
        """End the threads."""
        self._reader.close()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _folded(self, folds: list[tuple[_Rider, Block]]) -> Iterable[Any]:
        """The state of each block for each rider, or the error that it ended with."""
        if self._threads is None:
            return [rider.fold(block) for rider, block in folds]
        running = [self._threads.submit(copy_context().run, rider.fold, block) for rider, block in folds]
        return [one.result() for one in running]

    def _round_ended(self, rider: _Rider) -> None:
        with self._changed:
            if rider not in self._riders:  # it left meanwhile
                return
            self._riders.remove(rider)
        if rider.error is None:
            rider.ticket.passes += 1
        self._go_on(rider)

    def _go_on(self, rider: _Rider) -> None:
        """The next round of a trial, which is sent the result of its last; its end where there is none."""
        heard: list[Event] = []
        with intercept(heard.append), one_blas_thread():
            goes_on = rider.next_round()
        if goes_on:
            with self._changed:
                self._riders.append(rider)
        for event in heard:
            rider.tell(event)


class _Rider:
    """A trial on its way: the aggregate of its round, the states that it has, how many blocks are `left` of the round."""

    def __init__(self, ticket: Ticket, rounds: Rounds, tell: Callable[[Event], None], blocks: int) -> None:
        self.ticket = ticket
        self.rounds = rounds
        self.tell = tell
        self.left = 0
        self.error: Exception | None = None
        self._blocks = blocks
        self._aggregate: Aggregate[Any, Any] | None = None
        self._fold: OrderedFold | None = None

    def fold(self, block: Block) -> Any:
        """The state of a block. Called by several threads."""
        assert self._aggregate is not None
        try:
            return self._aggregate.transition(self._aggregate.initialize(), block)
        except Exception as error:
            return _Failed(error)

    def take(self, number: int, state: Any) -> None:
        """Merge the state of the block `number` when those of all blocks before it are there."""
        assert self._fold is not None
        self.left -= 1
        self.ticket.blocks += 1
        if isinstance(state, _Failed):
            self.error = self.error or state.error
        elif self.error is None:
            try:
                self._fold.add(Piece((0, number), 0, None, state=state))
            except Exception as error:
                self.error = error

    def next_round(self) -> bool:
        """Whether there is one; where there is none, the ticket says how the ride ended."""
        try:
            if self.error is not None:
                raise self.error
            result = None if self._fold is None else self._aggregate.final(self._fold.state)  # type: ignore[union-attr]
            self._aggregate = self.rounds.send(result)
            _refuse_inexact(self._aggregate)
            self._fold, self.left = OrderedFold(self._aggregate), self._blocks
            return True
        except StopIteration as stop:
            self.ticket.result = stop.value
        except Exception as error:
            self.rounds.close()
            told = WorkerError(f"{type(error).__name__}: {error}")
            self.ticket.error = error if isinstance(error, BraidwaterError) else told
        self.ticket.done = True
        return False


@dataclass(frozen=True)
class _Failed:
    error: Exception


def _refuse_inexact(aggregate: Aggregate[Any, Any]) -> None:
    if not aggregate.exact:
        raise UnsupportedError(
            f"{type(aggregate).__name__} depends on the order of the rows; a scan that is joined in the middle gives it "
            "another one. Train it by itself: fit(table)."
        )


def _one_pass(aggregate: Aggregate[Any, Any]) -> Rounds:
    return (yield aggregate)
