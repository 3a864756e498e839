"""The turns of a parallel loop on threads: each thread has an interpreter and a scope of its own, matrices are shared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

from braidwater.dml.interpreter.parfor.turns import Parallel, Turn, run_turn
from braidwater.dml.interpreter.scope import Scope

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter


def run_on_threads(
    interpreter: Interpreter, parallel: Parallel, places: Sequence[int], scope: Scope, workers: int
) -> Iterator[Turn]:
    """The turns at `places`, in their order, until one has an error."""
    interpreter.settle()
    waiting, failed, lock = iter(places), [False], Lock()

    def work() -> list[Turn]:
        own, inside = share_of(interpreter, workers), scope_like(scope)
        own.scopes.append(inside)
        done: list[Turn] = []
        try:
            while True:
                with lock:  # turns begin in their order: whatever comes before a turn with an error was begun
                    place = None if failed[0] else next(waiting, None)
                if place is None:
                    return done
                done.append(run_turn(own, parallel, place, inside))
                failed[0] = failed[0] or done[-1].error is not None
        finally:
            own.context.close()

    with ThreadPoolExecutor(workers, thread_name_prefix="braidwater-parfor") as threads:
        found = [thread.result() for thread in [threads.submit(copy_context().run, work) for _ in range(workers)]]
    yield from sorted((turn for turns in found for turn in turns), key=lambda turn: turn.place)


def share_of(interpreter: Interpreter, workers: int) -> Interpreter:
    """An interpreter for one of `workers`: a thread and a part of the memory. What it is called for has a scope of its own."""
    context = interpreter.context
    share = replace(
        context,
        memory=max(context.memory // workers, 1),
        threads=1,
        engine=None,
        pool=None,
        statistics=None,
        explain=None,
        opened=[],
    )
    made = type(interpreter)(share, interpreter.arguments, interpreter.loader)
    main = interpreter.scopes[0]
    made.scopes.append(Scope(main.module, main.liveness))  # the script's functions may be called by their names
    return made


def scope_like(scope: Scope) -> Scope:
    """A scope with the same variables, which may be assigned to."""
    return Scope(scope.module, scope.liveness, dict(scope.variables), scope.outputs, scope.live)
