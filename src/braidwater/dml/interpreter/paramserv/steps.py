"""What a worker does between two visits to the server: the gradients of its batches, by the script's own two functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.interpreter.parfor.turns import printing_into
from braidwater.dml.values import ListValue
from braidwater.errors import DMLError, DMLTypeError

if TYPE_CHECKING:
    from braidwater.dml.builtins.base import Caller
    from braidwater.dml.interpreter.calls import Given
    from braidwater.dml.interpreter.scope import Module
    from braidwater.dml.syntax.nodes import Function


@dataclass(frozen=True)
class Rows:
    """The rows of all workers: `parts` are the numbers (from 0) of each worker's. A batch is copied when it is worked on."""

    features: Any
    labels: Any
    parts: Sequence[Any]
    batch_size: int

    def batches(self, worker: int) -> int:
        return -(-len(self.parts[worker]) // self.batch_size)

    def batch(self, worker: int, place: int) -> tuple[Any, Any]:
        rows = self.parts[worker][place * self.batch_size : (place + 1) * self.batch_size]
        return self.features[rows], self.labels[rows]


@dataclass(frozen=True)
class Request:
    """A worker's next batches, and the model it begins with. `number` counts the requests: random numbers depend on it."""

    number: int
    worker: int
    model: ListValue
    batches: Sequence[int]


@dataclass(frozen=True)
class Pushed:
    """What a worker brings to the server: the sum of its gradients, or the model that it has come to."""

    worker: int
    value: ListValue
    printed: Sequence[str]
    error: DMLError | None = None


@dataclass
class Steps:
    """Calls the script's functions. `whole` asks for models instead of gradients."""

    caller: Caller
    functions: Mapping[str, tuple[Module, Function]]  # update, aggregate
    hyperparams: ListValue
    rows: Rows
    whole: bool
    seed: int

    def run(self, request: Request) -> Pushed:
        """The worker goes on with a model of its own from batch to batch, as the server's function would make it."""
        context, printed, found = self.caller.context, list[str](), list[ListValue]()
        before, context.random = context.random, np.random.default_rng([self.seed, request.number])
        model = request.model
        try:
            with printing_into(context, printed):
                for place in request.batches:
                    features, labels = self.rows.batch(request.worker, place)
                    found.append(self._called("update", model=model, features=features, labels=labels))
                    if self.whole or place != request.batches[-1]:
                        model = self.aggregated(model, found[-1])
                return Pushed(request.worker, model if self.whole else self.combined(found), printed)
        finally:
            context.random = before

    def aggregated(self, model: ListValue, gradients: ListValue) -> ListValue:
        """The next model."""
        return self._called("aggregate", model=model, gradients=gradients)

    def combined(self, lists: Sequence[ListValue], factor: float = 1.0) -> ListValue:
        """The sums of the lists' items, times a factor."""
        items = []
        for same in zip(*(each.items for each in lists), strict=True):
            total = same[0]
            for other in same[1:]:
                total = self.caller.node("+", total, other)
            items.append(self.caller.force(total if factor == 1 else self.caller.node("*", total, factor)))
        return ListValue(items, lists[0].names)

    def _called(self, which: str, **given: Any) -> ListValue:
        module, function = self.functions[which]
        known = {parameter.name for parameter in function.parameters}
        given["hyperparams"] = self.hyperparams
        entries: Given = [entry for entry in given.items() if entry[0] in known]
        result = self.caller.interpreter.calls.function(module, function, entries, self.caller.span)
        if len(result) != 1 or not isinstance(result[0], ListValue):
            raise DMLTypeError(f"{function.name} must have one result, a list.")
        return ListValue([self.caller.force(item) for item in result[0].items], result[0].names)
