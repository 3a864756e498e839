"""Training by a parameter server: workers compute gradients of batches of their rows, the server updates the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.values import ListValue
from braidwater.errors import DMLNameError, DMLShapeError, OptionError

if TYPE_CHECKING:
    from braidwater.dml.interpreter.scope import Module
    from braidwater.dml.syntax.nodes import Function

CHOICES = {
    "mode": ("LOCAL", "REMOTE_SPARK", "TURNS", "THREADS", "PROCESSES"),
    "utype": ("BSP", "ASP", "SSP", "SBP"),
    "freq": ("BATCH", "EPOCH", "NBATCHES"),
    "scheme": ("DISJOINT_CONTIGUOUS", "DISJOINT_ROUND_ROBIN", "DISJOINT_RANDOM", "OVERLAP_RESHUFFLE"),
}


@builtin("paramserv(model: list, features: matrix, labels: matrix, upd: string, agg: string, epochs: int, "
         "val_features: value = none, val_labels: value = none, val: value = none, mode: string = 'LOCAL', "
         "utype: string = 'ASP', freq: string = 'EPOCH', batchsize: int = 64, k: int = 1, "
         "scheme: string = 'DISJOINT_CONTIGUOUS', hyperparams: value = none, nbatches: int = 1, modelAvg: boolean = FALSE, "
         "seed: int = 0, checkpointing: value = none, num_backup_workers: int = none)",
         "The model (a list) after `epochs`: upd(model, hyperparams, features, labels) gives the gradients of a batch, "
         "agg(model, hyperparams, gradients) the next model. Workers visit the server after each BATCH, EPOCH or NBATCHES; "
         "meanwhile they go on with a model of their own. BSP adds the gradients of all k workers before an update; SBP those of "
         "the first k - num_backup_workers (1), what the others bring later is dropped; ASP and SSP update after each worker's. "
         "With modelAvg the workers' models are averaged. The workers run in turns, on threads, in processes or as tasks of the "
         "engine, whichever is estimated to end first; mode TURNS, THREADS, PROCESSES or REMOTE_SPARK (tasks of the engine, "
         "whichever it is) decides instead. BSP gives the same bits in each, ASP and SBP the same numbers every time in turns "
         "alone. k is 1 unless given, not the machine's cores: results do not depend on the machine.")  # fmt: skip
def paramserv(
    caller: Caller, model: ListValue, features: Any, labels: Any, upd: str, agg: str, epochs: int, utype: str, freq: str,
    batchsize: int, k: int, scheme: str, hyperparams: Any, nbatches: int, modelAvg: bool, seed: int, mode: str,
    num_backup_workers: int | None, **unused: Any,
) -> ListValue:  # fmt: skip
    from braidwater.dml.interpreter import paramserv as parallel  # it imports this folder's

    mode, utype, freq, scheme = (each.upper() for each in (mode, utype, freq, scheme))
    _check({"mode": mode, "utype": utype, "freq": freq, "scheme": scheme},
           {"epochs": epochs, "batchsize": batchsize, "k": k, "nbatches": nbatches})  # fmt: skip
    X, y = caller.array(features), caller.array(labels)
    if len(X) != len(y):
        raise DMLShapeError(f"paramserv has {len(X)} rows of features and {len(y)} of labels.")
    if not 1 <= k <= len(X):
        raise OptionError("k", k, f"at most the {len(X)} rows")
    rows = parallel.Rows(X, y, partition(len(X), k, scheme, seed), batchsize)
    k = len(rows.parts)
    backups = min(1, k - 1) if num_backup_workers is None else num_backup_workers
    if not 0 <= backups < k:
        raise OptionError("num_backup_workers", backups, f"0 up to {k - 1}: fewer than the workers")
    every = {"BATCH": 1, "NBATCHES": nbatches, "EPOCH": max(map(rows.batches, range(k)))}[freq]
    functions = {"update": _function(caller, upd), "aggregate": _function(caller, agg)}
    numbers = _computed(caller, hyperparams) if isinstance(hyperparams, ListValue) else ListValue([])
    steps = parallel.Steps(caller, functions, numbers, rows, modelAvg, caller.context.draw_seed())
    update = "ASP" if utype == "SSP" else utype
    if modelAvg and update == "ASP":  # a mean is one of all workers: SystemDS has none without waiting for them
        update = "BSP"
    wanted = parallel.way_of(mode, caller.context)
    wave = 0 if update == "ASP" else k
    with parallel.Crew(steps, parallel.visits_of(rows, every, epochs), wave, wanted) as crew:
        server = parallel.Server(steps, _computed(caller, model), modelAvg)
        found = parallel.train(server, crew, rows, update, epochs, every, backups)
    if caller.context.explain is not None:
        caller.context.explain.note(f"paramserv in line {caller.span.line}, {k} workers, {crew.plan}")
    return found


def _check(chosen: dict[str, str], counts: dict[str, int]) -> None:
    for name, given in chosen.items():
        if given not in CHOICES[name]:
            raise OptionError(name, given, f"one of {', '.join(CHOICES[name])}")
    for name, count in counts.items():
        if count < 1:
            raise OptionError(name, count, "at least 1")


def partition(rows: int, k: int, scheme: str, seed: int) -> list[Any]:
    """The rows (from 0) of each worker; with OVERLAP_RESHUFFLE each has all, in an order of its own.

    As SystemDS has it, each has as many as the first, but for the last, which has what is left; where nothing is left for some,
    there are fewer workers. (SystemDS loses the last row where it would be a worker's only one, or waits for ever.)

    >>> [part.tolist() for part in partition(5, 2, "DISJOINT_ROUND_ROBIN", 0)]
    [[0, 2, 4], [1, 3]]
    >>> [part.tolist() for part in partition(9, 4, "DISJOINT_CONTIGUOUS", 0)]
    [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    """
    generator = np.random.default_rng(seed)
    if scheme == "DISJOINT_ROUND_ROBIN":
        return [np.arange(worker, rows, k) for worker in range(k)]
    if scheme == "OVERLAP_RESHUFFLE":
        return [generator.permutation(rows) for _ in range(k)]
    order = generator.permutation(rows) if scheme == "DISJOINT_RANDOM" else np.arange(rows)
    share = -(-rows // k)
    return [order[begin : begin + share] for begin in range(0, rows, share)]


def _computed(caller: Caller, given: ListValue) -> ListValue:
    return ListValue([caller.force(item) for item in given.items], given.names)


def _function(caller: Caller, name: str) -> tuple[Module, Function]:
    """A function by its name, ``ns::name`` or, as SystemDS has it, ``./file.dml::name``."""
    namespace, _, plain = name.rpartition("::")
    scopes = caller.interpreter.scopes
    for module in (scopes[-1].module, scopes[0].module):
        if namespace.endswith(".dml"):
            for each in (module, *module.imports.values()):
                if each.file == Path(namespace).name and plain in each.functions:
                    return each, each.functions[plain]
        elif found := module.find(name):
            return found
    raise DMLNameError(f"There is no function {name!r} for paramserv.", hint="Name it as it is called: ns::gradients.")
