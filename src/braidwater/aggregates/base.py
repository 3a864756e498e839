"""The contract of everything that one pass over a table can compute, and of what needs several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any, Generic, TypeVar

State = TypeVar("State")
Result = TypeVar("Result")


class Aggregate(ABC, Generic[State, Result]):
    """Something that one pass over a table can compute.

    An engine calls the four steps; an aggregate never calls an engine::

        state = aggregate.initialize()
        state = aggregate.transition(state, block)   # for each block of rows
        state = aggregate.merge(state, other)        # for each other worker
        result = aggregate.final(state)

    Where `exact` is true, the result may not depend on how the rows are cut into blocks, nor the blocks into workers,
    beyond rounding (sums are exact; an average of trained weights is not). An engine that runs on threads may fold every
    block into a state of its own and merge the states in the order of the blocks, so that not even rounding depends on the
    number of threads. Where `exact` is false, every worker folds its share of the blocks in their order into one state.

    Several threads call `transition` of the same aggregate at a time, each with its own state: an aggregate does not
    change after it was made. It pickles, and so does its state.

    `braidwater.testing.AGGREGATE_CHECKS` checks the laws for every aggregate, empty states included.
    """

    exact: bool = True
    what: str = "aggregate"  # a word or two for plans and progress: "moments", "gradient"
    workers: int | None = None  # where it is not exact: how many may have a state, at most

    @abstractmethod
    def initialize(self) -> State:
        """The state before any row was seen."""

    @abstractmethod
    def transition(self, state: State, block: Any) -> State:
        """Fold the rows of `block` (a `RawBlock` where the source has no encoder) into `state`, in place if it likes."""

    @abstractmethod
    def merge(self, state: State, other: State) -> State:
        """Combine two states. May change `state`, leaves `other` alone; merging an empty state changes nothing."""

    @abstractmethod
    def final(self, state: State) -> Result:
        """What the pass was for. Leaves `state` alone."""

    def part(self, blocks: range) -> Aggregate[State, Result]:
        """The same for the worker that folds these blocks only, without what it does not need: less to send."""
        return self


class Iteration(ABC, Generic[Result]):
    """Many passes, with a decision between them.

    Written as a generator that yields the aggregate of the next pass and is sent its result, so that an algorithm reads
    from top to bottom, and an engine can run the whole loop where it is cheapest::

        def passes(self):
            weights = np.zeros(self.width)
            while True:
                gradient = yield Gradient(weights)
                ...
                if small(gradient):
                    return weights

    An iteration pickles before it is started. The same results sent in the same order give the same decisions.
    """

    @abstractmethod
    def passes(self) -> Generator[Aggregate[Any, Any], Any, Result]:
        """Yield the aggregate of each pass, receive its result, return what the passes were for."""
