"""The turns of a parallel loop in processes of the local engine, which read the script anew and are sent its variables.

Large matrices go through files that the processes map, so that they are copied once, whatever the number of processes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.interpreter.lazy import settled
from braidwater.dml.interpreter.liveness import Liveness, bodies, names_in
from braidwater.dml.interpreter.parfor.turns import Parallel, Turn, run_turn, without_lazy
from braidwater.dml.interpreter.scope import Loader, Module, Scope
from braidwater.dml.runtime.workers import blas
from braidwater.dml.syntax import parse
from braidwater.dml.syntax.nodes import For, Function, Statement
from braidwater.dml.values import is_matrix
from braidwater.options import current_options, options

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter

MAPPED = 1 << 20  # bytes from which a matrix is handed over in a file


@dataclass(frozen=True)
class Share:
    """What a process is told: the script and where its loop begins, the turns to run, the variables."""

    text: str
    file: str
    directory: Path
    library: tuple[Path, ...]
    begins: int
    at_end: tuple[str, ...]
    arguments: Mapping[str, Any]
    variables: Mapping[str, Any]
    files: Mapping[str, Path]
    context: Mapping[str, Any]
    parallel: Mapping[str, Any]
    places: Sequence[int]


def run_in_processes(
    interpreter: Interpreter, parallel: Parallel, places: Sequence[int], scope: Scope, workers: int
) -> Iterator[Turn]:
    """The turns at `places`, in their order. Every process takes each `workers`-th turn, until one has an error."""
    from braidwater.engines.base import Task
    from braidwater.engines.local import LocalEngine

    interpreter.settle()
    folder = current_options().cache_directory / "parfor"
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as at, options(workers=workers):
        variables, files = _handed_over(parallel, scope, Path(at))
        shares = [
            _share(interpreter, parallel, scope, variables, files, places[k::workers], workers) for k in range(workers)
        ]
        tasks = (Task(f"parfor, worker {k + 1}", run_share, (share,)) for k, share in enumerate(shares))
        found: list[Turn] = []
        for outcome in LocalEngine().tasks(tasks):
            if outcome.error is not None:
                raise outcome.error
            found += outcome.value
    yield from sorted(found, key=lambda turn: turn.place)


def processes_run() -> bool:
    """Whether the program that processes are forks of has been started."""
    from braidwater.engines.local import fork_server

    return fork_server.running()


def names_read(loop: For) -> list[str]:
    """The variables that the turns may read, or change cells of."""
    return sorted(names_in(loop.body))


def size_of(variables: Mapping[str, Any]) -> float:
    """Bytes to be handed over."""
    held = (settled(value) for value in variables.values())
    return float(
        sum(getattr(value, "nbytes", 0) or getattr(getattr(value, "data", None), "nbytes", 0) for value in held)
    )


def run_share(share: Share) -> list[Turn]:
    """In a process: run its turns, one after the other, until one has an error."""
    from braidwater.dml.interpreter.interpreter import Interpreter

    loader, module = opened(share.text, share.file, share.directory, share.library)
    loop, function = _loop_at(module, share.begins)
    statements = module.script.statements if function is None else function.body
    variables = dict(share.variables) | {
        name: np.asarray(np.load(path, mmap_mode="r")) for name, path in share.files.items()
    }
    scope = Scope(module, Liveness(statements, share.at_end), variables)
    context = Context(**share.context)
    interpreter = Interpreter(context, share.arguments, loader)
    interpreter.scopes.append(scope)
    parallel = Parallel(loop, **share.parallel)
    done: list[Turn] = []
    try:
        with blas.held():
            for place in share.places:
                done.append(run_turn(interpreter, parallel, place, scope))
                if done[-1].error is not None:
                    break
    finally:
        context.close()
    return done


def opened(text: str, file: str, directory: Path, library: tuple[Path, ...]) -> tuple[Loader, Module]:
    """In a process: a script, read anew with all that it imports."""
    from braidwater.dml.interpreter.interpreter import STACK

    sys.setrecursionlimit(max(sys.getrecursionlimit(), STACK))
    module = Module(file, parse(text, file), directory=directory)
    loader = Loader(library)
    loader.connect(module, Path())
    return loader, module


def _handed_over(parallel: Parallel, scope: Scope, folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """What the turns read: small values as they are, large matrices as files."""
    small: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for name in names_read(parallel.loop):
        if name in scope.variables:
            value = without_lazy(scope.variables[name])
            if isinstance(value, np.ndarray) and is_matrix(value) and value.nbytes >= MAPPED:
                files[name] = folder / f"{len(files)}.npy"
                np.save(files[name], value)
            else:
                small[name] = value
    return small, files


def _share(
    interpreter: Interpreter,
    parallel: Parallel,
    scope: Scope,
    variables: dict[str, Any],
    files: dict[str, Path],
    places: Sequence[int],
    workers: int,
) -> Share:
    context, source = interpreter.context, parallel.loop.span.source
    kept = {"strict": context.strict, "plain": context.plain, "directory": context.directory, "threads": 1,
            "memory": max(context.memory // workers, 1)}  # fmt: skip
    told = {"turns": parallel.turns, "cells": parallel.cells, "sums": parallel.sums, "kept": parallel.kept,
            "seed": parallel.seed}  # fmt: skip
    return Share(source.text, source.file, scope.module.directory, interpreter.loader.library, parallel.loop.span.start,
                 tuple(scope.liveness.at_end), dict(interpreter.arguments), variables, files, kept, told, places)  # fmt: skip


def _loop_at(module: Module, begins: int) -> tuple[For, Function | None]:
    """The loop that begins at a place of the script, and the function that it is in."""
    for function in (None, *module.functions.values()):
        waiting: list[Statement] = list(module.script.statements if function is None else function.body)
        while waiting:
            statement = waiting.pop()
            if isinstance(statement, For) and statement.span.start == begins:
                return statement, function
            for body in bodies(statement):
                waiting.extend(body)
    raise LookupError(f"no loop begins at character {begins} of {module.file}")
