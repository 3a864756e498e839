"""The contract of a place where work runs over a table that lies there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import pyarrow as pa

from braidwater.aggregates.base import Aggregate, Iteration
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import BlockStore
from braidwater.engines.address import LOCAL
from braidwater.errors import OptionError, UnsupportedError
from braidwater.events import Event
from braidwater.tables.base import Table

Result = TypeVar("Result")
OnLoss = Literal["restart", "continue"]

TIMEOUT = 600.0  # seconds that a member of a gang waits for the others, unless told otherwise


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
    """A piece of training that depends on no other: ``function(*arguments)``, called in a process of its own. It pickles.

    One that takes longer than `timeout` seconds (of the function's own, without the start of a process and its imports) is
    ended, and its outcome is a `TaskTimeoutError`. One whose worker dies is
    begun anew on another one, at most `retries` times.

    `worker` is the number of the worker that has to do it, where that matters: it still has what an earlier task of its
    left in the process. It must be free; where it has died, a new process takes its number.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    timeout: float | None = None
    retries: int = 0
    worker: int | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise OptionError("timeout", self.timeout, "a number of seconds above 0, or None")
        if self.retries < 0:
            raise OptionError("retries", self.retries, "0 or more")


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with a `value`, or with an `error` that holds the worker's traceback.

    `seconds` are those of its last attempt, `attempts` counts how often it was begun.
    """

    task: Task
    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0
    worker: int = 0
    attempts: int = 1


class RunningTasks(Iterator[Outcome]):
    """Tasks under way: the outcome of each as it completes. Whoever leaves them early should `close` them."""

    @abstractmethod
    def stop(self, name: str) -> None:
        """Stop the running task `name`: in it, the next `emit` of a `Metric` raises `TaskStopped`.

        The task may catch that to clean up and return what it has. One that never emits a metric runs on; give those a
        `Task.timeout`. A name that does not run (any more) is none to stop, and no error.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers. The outcomes of their tasks are lost."""


@dataclass(frozen=True)
class Member:
    """What a member of a gang is told when it starts.

    `rank` counts from 0 to `size` - 1. `emit` sends an event to whoever listens where the gang was started. `restarts`
    counts how often the gang (or, where the others go on, this member) was started anew. Collectives are
    torch.distributed's, its process group (gloo or nccl) is made before the member is called; where a gang goes on without
    members that died there is none. `store` is a torch.distributed.Store of all members, which outlives each of them: there
    they leave the addresses at which they can be found. `host` is the address of this member's machine as the others know it:
    who answers others listens there, and on no other network.
    """

    rank: int
    size: int
    emit: Callable[[Event], None]
    restarts: int = 0
    source: BlockSource | None = None
    store: Any = None
    host: str = LOCAL


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do. The support table of the documentation is computed from these declarations."""

    aggregate: bool = True
    iterate: bool = True
    map_blocks: bool = True
    gang: bool = True
    tasks: bool = True
    notes: dict[str, str] = field(default_factory=dict)  # why one of them is False, and which engine can


@dataclass(frozen=True)
class Way:
    """One of several ways in which an engine can run passes over a table that lies there, for the planner to tell of.

    `seconds` is an estimate, `leaving` the bytes that leave the place; `refused` says why it is not possible, `note` what
    else is worth knowing of it.
    """

    name: str
    seconds: float
    leaving: int
    refused: str = ""
    note: str = ""


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

    def close(self) -> None:
        """Let go of what lives between calls. It may be called again, and then has nothing to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many workers run at a time."""

    def ways(self, table: Table, columns: Sequence[str], *, passes: int, exact: bool = True) -> Sequence[Way]:
        """How passes over `columns` of `table` can run, the one that is taken first; none where there is nothing to choose."""
        return ()

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

    @contextmanager
    def staying(self, source: BlockSource) -> Iterator[None]:
        """Inside it passes over `source` follow each other, and the engine may keep its workers from one to the next."""
        yield

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

    @property
    def files_here(self) -> bool:
        """Whether the workers of tasks see the files of this machine as this process does."""
        return True

    @property
    def shared_directory(self) -> Path | None:
        """A folder that all workers see as this process does, while the engine lives; None where the cache directory is one."""
        return None

    def stays(self, table: Table) -> bool:
        """Whether `place` leaves the rows of `table` where they lie. Not where they lie in files of this machine."""
        return False

    def place(self, source: BlockSource) -> BlockStore:
        """The blocks of `source` where aggregates will fold them again and again: as `materialise`, or, where the rows of
        its table can stay (`stays`), a store that only `aggregate` can read (`BlockStore.here` is False)."""
        return self.materialise(source)

    @abstractmethod
    def map_blocks(
        self, table: Table, function: Callable[[pa.RecordBatch], pa.RecordBatch], schema: pa.Schema, *, name: str
    ) -> Table:
        """A table of `function` applied to the rows of `table`, batch by batch, in their order. Nothing runs until it is read.

        A function with an attribute `reads` (names of columns, or None) needs no others; an engine may leave those out.
        """

    @abstractmethod
    def gang(
        self,
        member: Callable[[Member], Result],
        workers: int,
        *,
        source: BlockSource | None = None,
        max_restarts: int = 0,
        on_loss: OnLoss = "restart",
        timeout: float = TIMEOUT,
    ) -> list[Result]:
        """Run `member` on `workers` processes that live at the same time and can talk; their results in order of rank.

        When one dies the others are stopped; after that all are started again, at most `max_restarts` times (the member
        finds its own last checkpoint), or `WorkerLostError` is raised. With ``on_loss="continue"`` the others go on: there is
        no process group, only `Member.store` to find each other by; at most `max_restarts` of those that died are started
        again, alone, and the result of one that is not is None. Every death is told as a `WorkerLost` event.

        Nobody waits for ever: a member that waits `timeout` seconds for another in a collective, and one that says nothing
        for that long (it was stopped, its machine hangs), end in an error that names who is missing and where.
        """

    @abstractmethod
    def tasks(self, tasks: Iterable[Task | None]) -> RunningTasks:
        """Run independent tasks, and give the outcome of each as it completes. A failed task is an outcome, not an error.

        `tasks` is asked for the next one only when a worker is free and the outcomes so far were taken, so a generator can
        decide late, knowing them. Where it yields None there is nothing to do at the moment: it is asked again after the next
        outcome (and the tasks have ended if none is running).

        What a task emits reaches the listeners here as a `TaskEvent`, inside the call for the next outcome. A task that emits
        a `Metric` waits until they have heard it, so that a `stop` decided there takes effect at that very metric.
        Tasks run under the options in force here, with their share of the workers and the memory.
        """

    def visits(
        self, tasks: Iterable[Task | None], own: BlockStore, whole: Sequence[BlockStore] = (), *, workers: int
    ) -> RunningTasks:
        """Run tasks where the rows of placed stores stay (`place`), each on the worker `Task.worker`, one at a time on each.

        A task is ``function([part, *others], *arguments)``: `part` has the blocks of `own` that its worker holds (one of the
        `runs` for so many `workers`), the others all blocks of `whole`; all are stores that can be read, by one thread. What
        is emitted there is told here when the task has ended, as a `TaskEvent`. A `stop` does not reach it before that.
        """
        raise UnsupportedError(f"Engine {self.name!r} leaves no rows where they lie.")
