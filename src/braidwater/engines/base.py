"""The contract of a place where work runs over a table that lies there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from braidwater.aggregates.base import Aggregate, Iteration
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import BlockStore
from braidwater.errors import UnsupportedError
from braidwater.events import Event
from braidwater.tables.base import Table

Result = TypeVar("Result")


class Nothing(Aggregate[None, None]):
    """A pass that only makes the blocks."""

    what = "write blocks"

    def initialize(self) -> None:
        return None

    def transition(self, state: None, block: Any) -> None:
        return None

    def merge(self, state: None, other: None) -> None:
        return None

    def final(self, state: None) -> None:
        return None


@dataclass(frozen=True)
class Task:
    """A piece of training that depends on no other: ``function(*arguments)``, called in a process of its own. It pickles."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with a `value`, or with an `error` that holds the worker's traceback."""

    task: Task
    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0
    worker: int = 0


@dataclass(frozen=True)
class Member:
    """What a member of a gang is told when it starts.

    `rank` counts from 0 to `size` - 1. `emit` sends an event to whoever listens where the gang was started. `restarts`
    counts how often the gang was started anew from its last checkpoint. Collectives are torch.distributed's, its process
    group (gloo or nccl) is made before the member is called.
    """

    rank: int
    size: int
    emit: Callable[[Event], None]
    restarts: int = 0
    source: BlockSource | None = None


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do. The support table of the documentation is computed from these declarations."""

    aggregate: bool = True
    iterate: bool = True
    map_blocks: bool = True
    gang: bool = True
    tasks: bool = True
    notes: dict[str, str] = field(default_factory=dict)  # why one of them is False, and which engine can


class Engine(ABC):
    """A place where work runs over a table that lies there.

    The three shapes of work are `aggregate` (and `iterate`, many of them), `gang` and `tasks`. An engine translates
    aggregates: it may run a faster form of one that it recognises, with the same result. What it cannot do it declares in
    `capabilities` and refuses with `UnsupportedError`. `braidwater.testing.ENGINE_CHECKS` is its conformance suite.

    Every call either returns, or raises an error that names the worker and what it was at, or raises KeyboardInterrupt
    when the user stopped it; in each case no worker of it lives on.
    """

    name: str
    capabilities: Capabilities = Capabilities()

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many workers run at a time."""

    @abstractmethod
    def aggregate(self, source: BlockSource, aggregate: Aggregate[Any, Result]) -> Result:
        """One pass."""

    def iterate(self, source: BlockSource, iteration: Iteration[Result]) -> Result:
        """Many passes, the decisions between them included. Here: one `aggregate` a pass, decided in this process."""
        passes = iteration.passes()
        try:
            aggregate = next(passes)
            while True:
                aggregate = passes.send(self.aggregate(source, aggregate))
        except StopIteration as stop:
            result: Result = stop.value
            return result

    def materialise(self, source: BlockSource) -> BlockStore:
        """The blocks of `source` as a store that can be read in any order, made in a pass of its own where there is none yet."""
        if source.store is None:
            source.keep()
            self.aggregate(source, Nothing())
        if source.store is None:
            raise UnsupportedError(
                f"Engine {self.name!r} kept no blocks of table {source.table.name!r}; use LocalEngine."
            )
        return source.store

    @abstractmethod
    def map_blocks(
        self, table: Table, function: Callable[[pa.RecordBatch], pa.RecordBatch], schema: pa.Schema, *, name: str
    ) -> Table:
        """A table of `function` applied to the rows of `table`, batch by batch, in their order. Nothing runs until it is read."""

    @abstractmethod
    def gang(
        self,
        member: Callable[[Member], Result],
        workers: int,
        *,
        source: BlockSource | None = None,
        max_restarts: int = 0,
    ) -> list[Result]:
        """Run `member` on `workers` processes that live at the same time and can talk; their results in order of rank.

        When one dies the others are stopped; after that all are started again, at most `max_restarts` times (the member
        finds its own last checkpoint), or `WorkerLostError` is raised.
        """

    @abstractmethod
    def tasks(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Run independent tasks, and give the outcome of each as it completes. A failed task is an outcome, not an error."""
