"""Many optimisers at a time, so that one pass over the data answers all of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from braidwater.blocks.base import Array
from braidwater.estimators.optimisers.base import Evaluation, Optimiser, Optimum


def lockstep(
    optimisers: Mapping[int, Optimiser],
) -> Generator[dict[int, Array], Mapping[int, Evaluation], dict[int, Optimum]]:
    """Run optimisers side by side: yield the points they ask for, be sent the evaluations, return where each stopped.

    Those that are done drop out; the number of rounds is that of the slowest, not the sum.

    >>> def halve(x):
    ...     while True:
    ...         seen = yield x
    ...         if seen.value < 1:
    ...             return Optimum(x, seen.value, seen.gradient, 0, True)
    ...         x = x / 2
    >>> import numpy as np
    >>> both = lockstep({0: halve(np.array([4.0])), 1: halve(np.array([1.0]))})
    >>> points, rounds = next(both), 0
    >>> try:
    ...     while True:
    ...         rounds += 1
    ...         points = both.send({k: Evaluation(abs(float(x[0])), np.sign(x)) for k, x in points.items()})
    ... except StopIteration as stop:
    ...     print(rounds, {k: float(found.point[0]) for k, found in sorted(stop.value.items())})
    4 {0: 0.5, 1: 0.5}
    """
    points: dict[int, Array] = {}
    found: dict[int, Optimum] = {}
    for number, optimiser in optimisers.items():
        try:
            points[number] = next(optimiser)
        except StopIteration as stop:
            found[number] = stop.value
    while points:
        evaluations = yield dict(points)
        for number in list(points):
            try:
                points[number] = optimisers[number].send(evaluations[number])
            except StopIteration as stop:
                found[number] = stop.value
                del points[number]
    return found
