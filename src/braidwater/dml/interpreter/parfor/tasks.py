"""The turns of a parallel loop as tasks of an engine: processes that read the script anew and are handed its variables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from braidwater.dml.context import Context
from braidwater.dml.interpreter.lazy import settled
from braidwater.dml.interpreter.liveness import Liveness, Names, names_in
from braidwater.dml.interpreter.parfor.handing_over import Home, folder_for, handed_over, taken
from braidwater.dml.interpreter.parfor.plan import MODES, ParforPlan, Way, Workers
from braidwater.dml.interpreter.parfor.turns import Parallel, Turn, run_turn
from braidwater.dml.interpreter.scope import Module, Scope
from braidwater.dml.runtime.workers import blas
from braidwater.dml.syntax.nodes import For
from braidwater.errors import UnsupportedError

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter
    from braidwater.engines import Engine

_ASKED: WeakSet[Engine] = WeakSet()  # the engines whose tasks have run before: the first ones take longer
RETRIES = 2  # times that a task is begun anew whose process was killed: turns give the same wherever they run


@dataclass(frozen=True)
class Share:
    """What a process is told: the script, the loop, its variables, and who of them lives behind it; the turns to run."""

    home: Home
    module: Module
    parallel: Parallel
    variables: Mapping[str, Any]
    after: Names
    places: Sequence[int]


def run_as_tasks(
    interpreter: Interpreter, parallel: Parallel, places: Sequence[int], scope: Scope, workers: int, engine: Engine
) -> Iterator[Turn]:
    """The turns at `places`, in their order. Every process takes each `workers`-th turn, until one has an error."""
    from braidwater.engines import Task

    interpreter.settle()
    with folder_for(engine, "parfor") as folder:
        read = {name: scope.variables[name] for name in names_read(parallel.loop) if name in scope.variables}
        variables = handed_over(read, folder)
        home, after = Home.of(interpreter, workers), scope.liveness.after(parallel.loop)
        shares = [Share(home, scope.module, parallel, variables, after, places[k::workers]) for k in range(workers)]
        running = engine.tasks(
            Task(f"parfor, worker {k + 1}", run_share, (share,), retries=RETRIES) for k, share in enumerate(shares)
        )
        found: list[Turn] = []
        try:
            for outcome in running:
                if outcome.error is not None:
                    raise outcome.error
                found += outcome.value
        finally:
            running.close()
    for turn in sorted(found, key=lambda turn: turn.place):
        turn.added, turn.last = taken(turn.added), taken(turn.last)
        yield turn


def way_of(mode: str, context: Context) -> Way | None:
    """The way that a script asks for. LOCAL and the like leave it to the plan, and so does REMOTE_SPARK without an engine.

    Raises UnsupportedError where it asks for tasks of an engine that runs none.
    """
    way, engine = MODES.get(mode.upper()), context.engine
    if way == "as tasks" and engine is not None and not engine.capabilities.tasks:
        raise UnsupportedError(engine.capabilities.notes.get("tasks") or f"Engine {engine.name!r} runs no tasks.")
    return None if way == "as tasks" and engine is None else way


def workers_for(context: Context, par: int | None = None) -> Workers:
    """Who may run turns, `par` at a time where the script says so."""
    engine, here = context.engine, min(par or context.threads, context.threads)
    fork_server = sys.modules.get("braidwater.engines.local.fork_server")  # not there: nobody has started one
    warm = fork_server is not None and fork_server.running()
    if engine is None or not engine.capabilities.tasks:
        return Workers(here, warm)
    tasks = min(par or engine.workers, engine.workers)
    return Workers(here, warm, tasks, engine.name, engine in _ASKED, engine.files_here)


def engine_of(plan: ParforPlan, context: Context) -> Engine:
    """Whose tasks a plan asks for."""
    from braidwater.engines.local import LocalEngine

    if plan.way != "as tasks" or context.engine is None:
        return LocalEngine(plan.workers)
    _ASKED.add(context.engine)
    context.rest()
    return context.engine


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
    liveness = Liveness([share.parallel.loop], share.after)
    interpreter = share.home.interpreter(share.module, liveness, taken(share.variables))
    done: list[Turn] = []
    try:
        with blas.held():
            for place in share.places:
                done.append(run_turn(interpreter, share.parallel, place, interpreter.scopes[-1]))
                if done[-1].error is not None:
                    break
    finally:
        interpreter.context.close()
    return done
