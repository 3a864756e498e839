"""The passes of many trainings, made together: one reading of the rows serves whatever any of them asks for next."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from braidwater.aggregates import Aggregate, Iteration, Several
from braidwater.encoding.design import Design
from braidwater.engines.local.threads import one_blas_thread
from braidwater.model_selection.fused.lens import Lens
from braidwater.model_selection.fused.stacks import Asked, stacked
from braidwater.model_selection.side_by_side import Trained, next_of


@dataclass(frozen=True)
class Fused(Iteration[dict[int, Trained]]):
    """Run iterations over the same rows in lockstep: those that ask for the same thing at different points are one aggregate.

    Each decides by itself, as if it were alone. One that is done drops out, one that fails ends with its error, and the others
    go on: the number of passes is that of the longest, not the sum. `lenses` say which columns of `common` each of them has.
    """

    iterations: Mapping[int, Iteration[Any]]
    lenses: Mapping[int, Lens]
    common: Design

    def passes(self) -> Generator[Aggregate[Any, Any], Any, dict[int, Trained]]:
        running = {number: iteration.passes() for number, iteration in self.iterations.items()}
        found: dict[int, Trained] = {}
        results: dict[int, Any] = dict.fromkeys(running)
        while results:
            with one_blas_thread():  # the matrices are small: more threads would spin
                asked = {n: wish for n in results if (wish := next_of(running, n, results[n], found)) is not None}
            results = (yield from self._pass(asked)) if asked else {}
        return found

    def _pass(self, asked: dict[int, Aggregate[Any, Any]]) -> Generator[Aggregate[Any, Any], Any, dict[int, Any]]:
        wishes = [Asked(aggregate, self.lenses[number]) for number, aggregate in asked.items()]
        stacks, places = stacked(wishes, self.common)
        merged = [stack.merged() for stack in stacks]
        results = [(yield merged[0])] if len(merged) == 1 else (yield Several(merged))
        parts = [stack.parts(result) for stack, result in zip(stacks, results, strict=True)]
        return {number: parts[at][place] for number, (at, place) in zip(asked, places, strict=True)}
