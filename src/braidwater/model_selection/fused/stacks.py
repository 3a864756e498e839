"""Aggregates of several models made one: each kind that can be has a stack, which knows how to take a result apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from braidwater.aggregates import (
    Aggregate,
    Both,
    Gram,
    LogisticGradient,
    LogisticHessian,
    LossResult,
    Moments,
    NearestCenters,
)
from braidwater.aggregates.nearest_centers import CentersState
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design
from braidwater.model_selection.fused.lens import Lens

Kind = TypeVar("Kind", bound=Aggregate[Any, Any])


@dataclass(frozen=True)
class Asked(Generic[Kind]):
    """What a model asks for, and its columns among those of the common design."""

    aggregate: Kind
    lens: Lens


class Stack(ABC):
    """What several models ask for, as one aggregate over the `common` design.

    `takes` says whether one more fits, `add` takes it in, `merged` is what a pass computes, and `parts` gives each its own
    result, in the order in which they were added: what a pass of its own would have found, but for rounding.
    """

    def __init__(self, first: Asked[Any], common: Design) -> None:
        self.common = common
        self.asked = [first]

    @abstractmethod
    def takes(self, one: Asked[Any]) -> bool: ...

    def add(self, one: Asked[Any]) -> None:
        self.asked.append(one)

    @abstractmethod
    def merged(self) -> Aggregate[Any, Any]: ...

    @abstractmethod
    def parts(self, result: Any) -> list[Any]: ...


class Alone(Stack):
    """Anything else: computed for itself, in the same pass."""

    def takes(self, one: Asked[Any]) -> bool:
        return False

    def merged(self) -> Aggregate[Any, Any]:
        found: Aggregate[Any, Any] = self.asked[0].aggregate
        return found

    def parts(self, result: Any) -> list[Any]:
        return [result]


class Products(Stack):
    """All products of columns: those of the common design hold everybody's."""

    def takes(self, one: Asked[Any]) -> bool:
        first = self.asked[0].aggregate
        return (
            _alike(first, one.aggregate, "kernel", "every") and first.columns.classes == one.aggregate.columns.classes
        )

    def merged(self) -> Gram:
        first: Gram = self.asked[0].aggregate
        return Gram(self.common, first.columns.classes, kernel=first.kernel, every=first.every)

    def parts(self, result: Any) -> list[Any]:
        return [one.lens.gram(result) for one in self.asked]


class Means(Stack):
    """Moments, likewise."""

    def takes(self, one: Asked[Any]) -> bool:
        first = self.asked[0].aggregate
        return _alike(first, one.aggregate, "kernel") and first.columns.classes == one.aggregate.columns.classes

    def merged(self) -> Moments:
        first: Moments = self.asked[0].aggregate
        return Moments(self.common, first.columns.classes, kernel=first.kernel)

    def parts(self, result: Any) -> list[Any]:
        return [one.lens.moments(result) for one in self.asked]


class Pair(Stack):
    """Two aggregates of each model, stacked each with their like."""

    def takes(self, one: Asked[Any]) -> bool:
        if type(one.aggregate) is not Both:
            return False
        halves = self._halves()
        return all(h is not None and h.takes(asked) for h, asked in zip(halves, _both(one), strict=True))

    def merged(self) -> Aggregate[Any, Any]:
        first, second = self._halves()
        return Both(first.merged(), second.merged())

    def parts(self, result: Any) -> list[Any]:
        found = [half.parts(own) for half, own in zip(self._halves(), result, strict=True)]
        return list(zip(*found, strict=True))

    def _halves(self) -> tuple[Stack, Stack]:
        halves = [stack_of(half, self.common) for half in _both(self.asked[0])]
        for one in self.asked[1:]:
            for half, asked in zip(halves, _both(one), strict=True):
                half.add(asked)
        return halves[0], halves[1]


class Losses(Stack):
    """Logistic losses with gradients, or with Hessians: the points of all models, over columns that all standardise alike."""

    def takes(self, one: Asked[Any]) -> bool:
        first = self.asked[0].aggregate
        return (
            _alike(
                first, one.aggregate, *(("kernel", "precision") if isinstance(first, LogisticGradient) else ("kernel",))
            )
            and first.points.shape[1] == one.aggregate.points.shape[1]
            and _standard(self.common, [*self.asked, one]) is not None
        )

    def merged(self) -> Aggregate[Any, Any]:
        first = self.asked[0].aggregate
        design = _standard(self.common, self.asked)
        assert design is not None
        points = np.concatenate([one.lens.widened(one.aggregate.points) for one in self.asked])
        if isinstance(first, LogisticGradient):
            return LogisticGradient(design, points, kernel=first.kernel, precision=first.precision)
        return LogisticHessian(design, points, kernel=first.kernel)

    def parts(self, result: Any) -> list[Any]:
        found: list[Any] = []
        begin = 0
        for one in self.asked:
            own = slice(begin, begin + len(one.aggregate.points))
            part = replace(result, loss=result.loss[own], wrong=result.wrong[own], gradient=result.gradient[own])
            if isinstance(result, LossResult):
                found.append(one.lens.loss(part))
            else:
                found.append(one.lens.hessian(replace(part, hessian=result.hessian[own])))
            begin = own.stop
        return found


class Centers(Stack):
    """Steps of k-means with as many clusters: the centres of all as runs of one aggregate."""

    def takes(self, one: Asked[Any]) -> bool:
        first: NearestCenters = self.asked[0].aggregate
        other = one.aggregate
        return (
            _alike(first, other, "kernel", "with_sums", "near")
            and not first.labelled
            and not other.labelled
            and first.centers.shape[1:] == other.centers.shape[1:]
            and _equal(first.reference, other.reference)
            and _same_design(first.design, other.design)
        )

    def merged(self) -> NearestCenters:
        first: NearestCenters = self.asked[0].aggregate
        centers = np.concatenate([one.aggregate.centers for one in self.asked])
        spread = np.abs(first.reference) + 1.0 if first.near else np.zeros_like(first.reference)
        return NearestCenters(
            first.design, centers, first.reference, spread, kernel=first.kernel, with_sums=first.with_sums
        )

    def parts(self, result: Any) -> list[Any]:
        found, begin = [], 0
        for one in self.asked:
            own = slice(begin, begin + len(one.aggregate.centers))
            found.append(CentersState(result.weight[own], result.sums[own]))
            begin = own.stop
        return found


_KINDS: dict[type[Aggregate[Any, Any]], type[Stack]] = {
    Gram: Products,
    Moments: Means,
    Both: Pair,
    LogisticGradient: Losses,
    LogisticHessian: Losses,
    NearestCenters: Centers,
}


def stack_of(one: Asked[Any], common: Design) -> Stack:
    """A stack that begins with what one model asks for."""
    return _KINDS.get(type(one.aggregate), Alone)(one, common)


def stacked(asked: Sequence[Asked[Any]], common: Design) -> tuple[list[Stack], list[tuple[int, int]]]:
    """Stacks of all that is asked for, as few as there can be, and for each the place of its stack and its own within that."""
    stacks: list[Stack] = []
    places = []
    for one in asked:
        at = next(
            (n for n, s in enumerate(stacks) if type(s.asked[0].aggregate) is type(one.aggregate) and s.takes(one)),
            None,
        )
        if at is None:
            at = len(stacks)
            stacks.append(stack_of(one, common))
        else:
            stacks[at].add(one)
        places.append((at, len(stacks[at].asked) - 1))
    return stacks, places


def _both(one: Asked[Any]) -> tuple[Asked[Any], Asked[Any]]:
    return Asked(one.aggregate.first, one.lens), Asked(one.aggregate.second, one.lens)


def _alike(one: Any, other: Any, *names: str) -> bool:
    return type(one) is type(other) and all(getattr(one, name) == getattr(other, name) for name in names)


def _same_design(one: Design, other: Design) -> bool:
    return one.names == other.names and _equal(one.center, other.center) and _equal(one.scale, other.scale)


def _standard(common: Design, asked: Sequence[Asked[Any]]) -> Design | None:
    """The common design standardised as all of `asked` want it; None where two want a column otherwise.

    Columns that nobody of them has stay as they are: all weights of theirs are 0.
    """
    center, scale = np.zeros(common.width), np.ones(common.width)
    known = np.zeros(common.width, bool)
    for one in asked:
        design, places = one.aggregate.design, one.lens.places
        if design.center is None or design.scale is None:
            return None
        seen = known[places]
        if not _equal(center[places][seen], design.center[seen]) or not _equal(scale[places][seen], design.scale[seen]):
            return None
        center[places], scale[places], known[places] = design.center, design.scale, True
    return common.standardised(center, scale)


def _equal(one: Array | None, other: Array | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
