"""Many trainings in the same passes, each over its own rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from braidwater.aggregates.base import Aggregate, Iteration
from braidwater.aggregates.gram import Gram
from braidwater.aggregates.gram_stack import GramStack
from braidwater.aggregates.grouped import Grouped
from braidwater.aggregates.grouped_gram import GroupedGram
from braidwater.blocks.base import Array
from braidwater.engines.local.threads import one_blas_thread
from braidwater.errors import BraidwaterError, BraidwaterWarning
from braidwater.estimators.base import TableEstimator, Training


@dataclass(frozen=True)
class Trained:
    """How one of many trainings ended: with its `result`, or with the `error` that stopped it; `warnings` said meanwhile."""

    result: Any = None
    error: Exception | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SideBySide(Iteration[dict[int, Trained]]):
    """Run iterations in lockstep, one reading of the rows serving the next pass of all that are not done.

    Training k reads the rows whose code in the block column `column` has k among its `members`. Each one decides by itself, as
    if it were alone: those that are done drop out, one that fails ends with its error, and the others go on.
    """

    iterations: Mapping[int, Iteration[Any]]
    column: str
    members: Mapping[int, Sequence[int]]
    bases: Array | None = None

    def passes(self) -> Generator[Aggregate[Any, Any], Any, dict[int, Trained]]:
        running = {number: iteration.passes() for number, iteration in self.iterations.items()}
        found: dict[int, Trained] = {}
        asked: dict[int, Aggregate[Any, Any]] = {}
        results: dict[int, Any] = dict.fromkeys(running)
        while results:
            with one_blas_thread():  # the matrices are small: more threads would spin
                asked = {n: wish for n in results if (wish := next_of(running, n, results[n], found)) is not None}
            results = (yield from self._pass(asked)) if asked else {}
        return found

    def _pass(self, asked: dict[int, Aggregate[Any, Any]]) -> Generator[Aggregate[Any, Any], Any, dict[int, Any]]:
        """One pass for all that were asked for: products of columns in their grouped form, everything else one by one."""
        some = next(iter(asked.values()))
        if (
            isinstance(some, Gram)
            and some.every == 1
            and GroupedGram.fits(some.design)
            and all(_same(some, a) for a in asked.values())
        ):
            stack: GramStack = yield GroupedGram(some.design, self.column, some.columns.classes, kernel=some.kernel)
            return {number: stack.summed(self._places(stack, number)) for number in asked}
        results: dict[int, Any] = yield Grouped(self.column, asked, self.members, self.bases)
        return results

    def _places(self, stack: GramStack, number: int) -> Array:
        if number not in self._codes_of:
            return np.zeros(0, np.int64)
        codes = self._codes_of[number]
        places = np.searchsorted(stack.codes, codes)
        there = (places < len(stack)) & (stack.codes[np.minimum(places, len(stack) - 1)] == codes)
        return np.asarray(places[there])

    @property
    def _codes_of(self) -> dict[int, Array]:
        found = self.__dict__.get("_codes")
        if found is None:
            lists: dict[int, list[int]] = {}
            for code, numbers in self.members.items():
                for number in numbers:
                    lists.setdefault(number, []).append(code)
            found = {number: np.array(sorted(codes)) for number, codes in lists.items()}
            object.__setattr__(self, "_codes", found)
        return cast("dict[int, Array]", found)


def next_of(
    running: dict[int, Generator[Aggregate[Any, Any], Any, Any]], number: int, result: Any, found: dict[int, Trained]
) -> Aggregate[Any, Any] | None:
    """What a training asks for next; None when it is done, and then `found` has it."""
    try:
        return running[number].send(result)
    except StopIteration as stop:
        found[number] = Trained(stop.value)
    except (BraidwaterError, np.linalg.LinAlgError) as error:
        found[number] = Trained(error=error)
    return None


def _same(one: Gram, other: Aggregate[Any, Any]) -> bool:
    return (
        isinstance(other, Gram)
        and other.design.names is one.design.names
        and (other.columns.classes, other.kernel, other.every) == (one.columns.classes, one.kernel, one.every)
    )


class _Stopped(Exception):  # noqa: N818 - how `fit` is left before a row was read
    def __init__(self, iteration: Iteration[Any]) -> None:
        self.iteration = iteration


def iteration_of(model: TableEstimator, training: Training) -> Iteration[Any]:
    """The passes that ``model.fit`` would make for `training`; nothing is read."""

    def stop(iteration: Iteration[Any]) -> Any:
        raise _Stopped(iteration)

    try:
        _fit(model, replace(training, run=stop))
    except _Stopped as stopped:
        return stopped.iteration
    raise AssertionError(f"{type(model).__name__}.fit ended without a pass")


def finish(model: TableEstimator, training: Training, result: Any) -> Trained:
    """`model` fitted by the result of its passes, as ``fit`` would have left it, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BraidwaterWarning)
        _fit(model, replace(training, run=lambda iteration: result))
    return Trained(model, warnings=tuple(str(w.message) for w in caught))


def _fit(model: Any, training: Training) -> None:
    fit: Callable[[Training], Any] = model.fit
    fit(training)
