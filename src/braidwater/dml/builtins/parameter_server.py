"""Training by a parameter server: workers compute gradients of batches of their rows, the server updates the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.values import ListValue
from braidwater.errors import DMLNameError, DMLShapeError, DMLTypeError, OptionError

if TYPE_CHECKING:
    from braidwater.dml.interpreter.scope import Module
    from braidwater.dml.syntax.nodes import Function

CHOICES = {
    "mode": ("LOCAL", "REMOTE_SPARK"),
    "utype": ("BSP", "ASP", "SSP", "SBP"),
    "freq": ("BATCH", "EPOCH", "NBATCHES"),
    "scheme": ("DISJOINT_CONTIGUOUS", "DISJOINT_ROUND_ROBIN", "DISJOINT_RANDOM", "OVERLAP_RESHUFFLE"),
}


@builtin("paramserv(model: list, features: matrix, labels: matrix, upd: string, agg: string, epochs: int, "
         "val_features: value = none, val_labels: value = none, val: value = none, mode: string = 'LOCAL', "
         "utype: string = 'BSP', freq: string = 'BATCH', batchsize: int = 64, k: int = 1, "
         "scheme: string = 'DISJOINT_CONTIGUOUS', hyperparams: value = none, nbatches: int = 1, modelAvg: boolean = FALSE, "
         "seed: int = 0, checkpointing: value = none, num_backup_workers: int = 0)",
         "The model (a list) after `epochs`: upd(model, hyperparams, features, labels) gives the gradients of a batch, "
         "agg(model, hyperparams, gradients) the next model. BSP adds the gradients of k workers before an update; ASP and "
         "SSP update after each worker's. With modelAvg the workers' models are averaged. Workers take turns in one process, "
         "in the order 1 to k, so that the numbers are the same every time.")  # fmt: skip
def paramserv(
    caller: Caller, model: ListValue, features: Any, labels: Any, upd: str, agg: str, epochs: int, utype: str, freq: str,
    batchsize: int, k: int, scheme: str, hyperparams: Any, nbatches: int, modelAvg: bool, seed: int, mode: str, **unused: Any
) -> ListValue:  # fmt: skip
    for name, given in {"mode": mode, "utype": utype, "freq": freq, "scheme": scheme}.items():
        if given.upper() not in CHOICES[name]:
            raise OptionError(name, given, f"one of {', '.join(CHOICES[name])}")
    for name, count in {"epochs": epochs, "batchsize": batchsize, "k": k, "nbatches": nbatches}.items():
        if count < 1:
            raise OptionError(name, count, "at least 1")
    X, y = caller.array(features), caller.array(labels)
    if len(X) != len(y):
        raise DMLShapeError(f"paramserv has {len(X)} rows of features and {len(y)} of labels.")
    if not 1 <= k <= len(X):
        raise OptionError("k", k, f"at most the {len(X)} rows")
    parts = partition(len(X), k, scheme.upper(), seed)
    workers = [_Worker(X[rows], y[rows], batchsize) for rows in parts]
    every = {"BATCH": 1, "NBATCHES": nbatches, "EPOCH": max(worker.batches for worker in workers)}[freq.upper()]
    server = _Server(caller, upd, agg, hyperparams if isinstance(hyperparams, ListValue) else ListValue([]))
    together = utype.upper() == "BSP" or modelAvg
    for _ in range(epochs):
        for batches in _rounds(max(worker.batches for worker in workers), every):
            model = server.round(model, workers, batches, together=together, average=modelAvg)
    return model


def partition(rows: int, k: int, scheme: str, seed: int) -> list[Any]:
    """The rows (from 0) of each worker; with OVERLAP_RESHUFFLE each has all, in an order of its own.

    >>> [part.tolist() for part in partition(5, 2, "DISJOINT_ROUND_ROBIN", 0)]
    [[0, 2, 4], [1, 3]]
    """
    generator = np.random.default_rng(seed)
    if scheme == "DISJOINT_ROUND_ROBIN":
        return [np.arange(worker, rows, k) for worker in range(k)]
    if scheme == "OVERLAP_RESHUFFLE":
        return [generator.permutation(rows) for _ in range(k)]
    order = generator.permutation(rows) if scheme == "DISJOINT_RANDOM" else np.arange(rows)
    return np.array_split(order, k)


def _rounds(batches: int, every: int) -> Iterator[range]:
    """The batches between two visits to the server."""
    for first in range(0, batches, every):
        yield range(first, min(first + every, batches))


@dataclass
class _Worker:
    features: Any
    labels: Any
    batch_size: int

    @property
    def batches(self) -> int:
        return -(-len(self.features) // self.batch_size)

    def batch(self, place: int) -> tuple[Any, Any]:
        rows = slice(place * self.batch_size, (place + 1) * self.batch_size)
        return self.features[rows], self.labels[rows]


@dataclass
class _Server:
    """Calls the script's two functions."""

    caller: Caller
    upd: str
    agg: str
    hyperparams: ListValue

    def round(
        self, model: ListValue, workers: list[_Worker], batches: range, *, together: bool, average: bool
    ) -> ListValue:
        """Each worker's batches, and the model after them."""
        pushed = []
        for worker in workers:
            mine = [place for place in batches if place < worker.batches]
            if not mine:
                continue
            gradients, local = self._worked(model, worker, mine, whole=average)
            if not together:
                model = self._aggregated(model, gradients)
            pushed.append(local if average else gradients)
        if average:
            return self._combined(pushed, 1 / len(pushed))
        return self._aggregated(model, self._combined(pushed)) if together else model

    def _worked(
        self, model: ListValue, worker: _Worker, batches: list[int], *, whole: bool
    ) -> tuple[ListValue, ListValue]:
        """The sum of a worker's gradients, and its model: it goes on with a model of its own until it visits the server.

        The model lacks the last batch unless the `whole` is asked for.
        """
        found = []
        for place in batches:
            features, labels = worker.batch(place)
            gradients = self._called(self.upd, model=model, features=features, labels=labels)
            found.append(gradients)
            if whole or place != batches[-1]:
                model = self._aggregated(model, gradients)
        return self._combined(found), model

    def _aggregated(self, model: ListValue, gradients: ListValue) -> ListValue:
        return self._called(self.agg, model=model, gradients=gradients)

    def _combined(self, lists: list[ListValue], factor: float = 1.0) -> ListValue:
        """The sums of the lists' items, times a factor."""
        items = []
        for same in zip(*(each.items for each in lists), strict=True):
            total = same[0]
            for other in same[1:]:
                total = self.caller.node("+", total, other)
            items.append(self.caller.force(total if factor == 1 else self.caller.node("*", total, factor)))
        return ListValue(items, lists[0].names)

    def _called(self, name: str, **given: Any) -> ListValue:
        found = self._function(name)
        known = {parameter.name for parameter in found[1].parameters}
        given["hyperparams"] = self.hyperparams
        result = self.caller.interpreter.calls.function(
            *found, [entry for entry in given.items() if entry[0] in known], self.caller.span
        )
        if len(result) != 1 or not isinstance(result[0], ListValue):
            raise DMLTypeError(f"{name} must have one result, a list.")
        items = [self.caller.force(item) for item in result[0].items]
        return ListValue(items, result[0].names)

    def _function(self, name: str) -> tuple[Module, Function]:
        """A function by its name, ``ns::name`` or, as SystemDS has it, ``./file.dml::name``."""
        namespace, _, plain = name.rpartition("::")
        scopes = self.caller.interpreter.scopes
        for module in (scopes[-1].module, scopes[0].module):
            if namespace.endswith(".dml"):
                for each in (module, *module.imports.values()):
                    if each.file == Path(namespace).name and plain in each.functions:
                        return each, each.functions[plain]
            elif found := module.find(name):
                return found
        raise DMLNameError(
            f"There is no function {name!r} for paramserv.", hint="Name it as it is called: ns::gradients."
        )
