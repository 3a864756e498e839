"""Runs a ``parfor``: its options, its dependencies, its first turns, the plan for the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from braidwater.dml.interpreter.lazy import settled
from braidwater.dml.interpreter.parfor.dependencies import Touched, check_dependencies, read_behind
from braidwater.dml.interpreter.parfor.measure import Trials
from braidwater.dml.interpreter.parfor.plan import ParforPlan, Way, Work, Workers, choose
from braidwater.dml.interpreter.parfor.tasks import engine_of, names_read, run_as_tasks, size_of, way_of, workers_for
from braidwater.dml.interpreter.parfor.threads import run_on_threads
from braidwater.dml.interpreter.parfor.turns import Parallel, add_up, one_turn, put_into_place
from braidwater.dml.interpreter.scope import Scope
from braidwater.dml.syntax.nodes import For, Name
from braidwater.dml.values import is_matrix, is_streamed
from braidwater.errors import DMLTypeError, DMLValueError

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter

OPTIONS = (
    "check", "par", "mode", "taskpartitioner", "tasksize", "datapartitioner", "resultmerge", "opt", "log", "profile",
)  # fmt: skip


def run_parfor(interpreter: Interpreter, loop: For, turns: Sequence[Any], scope: Scope) -> None:
    """Run the turns of a parallel loop. Results do not depend on how: turns add up, draw and print each by itself.

    Raises DMLValueError where turns may depend on one another, and the error of the first turn that has one.
    """
    options = _options(interpreter, loop, scope)
    touched = Touched(interpreter, loop, turns, scope)
    if options["check"]:
        check_dependencies(touched, loop, turns)
    interpreter.block.flush()
    parallel, reason = _parallel(interpreter, loop, turns, scope, touched)
    workers = workers_for(interpreter.context, options["par"])
    begun = time.perf_counter()
    trials = Trials(interpreter.context)
    plan = ParforPlan("in turns", reason=reason or _too_few(turns, workers))
    if not plan.reason:
        while options["mode"] is None and trials.count < len(turns) and not trials.enough:
            trials.run(partial(_in_scope, interpreter, parallel, trials.count, scope))
        plan = _planned(parallel, trials, workers, scope, options["mode"])
    _run_others(interpreter, parallel, trials.count, plan, scope)
    _note(interpreter, loop, len(turns), plan, time.perf_counter() - begun)


def _options(interpreter: Interpreter, loop: For, scope: Scope) -> dict[str, Any]:
    found: dict[str, Any] = {"check": True, "par": None, "mode": None}
    for option in loop.options:
        if option.name not in OPTIONS:
            near = get_close_matches(option.name or "", OPTIONS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(OPTIONS)}."
            raise DMLTypeError(f"parfor has no option {option.name!r}.", option.span, hint=hint)
        if option.name == "check":
            found["check"] = bool(interpreter.expressions.scalar(option.value, scope))
        elif option.name == "par":
            found["par"] = _workers(interpreter.expressions.scalar(option.value, scope), option)
        elif option.name == "mode":
            text = option.value.name if isinstance(option.value, Name) else getattr(option.value, "value", "")
            found["mode"] = way_of(str(text), interpreter.context)
    return found


def _workers(value: Any, option: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DMLValueError(f"par is {value!r}.", option.span, hint="It is the number of turns at a time: 1 or more.")
    return value


def _parallel(
    interpreter: Interpreter, loop: For, turns: Sequence[Any], scope: Scope, touched: Touched
) -> tuple[Parallel, str]:
    """What the turns leave behind, and why they can only run one after the other ('' where they need not)."""
    cells = frozenset(access.name for access in touched.accesses if access.writes)
    behind = read_behind(scope, loop)
    held = {name: settled(value) for name, value in scope.variables.items()}
    sums = frozenset(name for name in touched.accumulated if _adds_up(held.get(name)))
    kept = frozenset(scope.liveness.after(loop) & touched.assigned)
    parallel = Parallel(loop, turns, cells, sums, kept, interpreter.context.draw_seed())
    carried = touched.assigned & (set(touched.carried) | behind | cells | sums)
    others = [name for name in (*cells, *touched.accumulated) if name not in sums and not is_matrix(held.get(name))]
    streamed = [name for name in names_read(loop) if is_streamed(held.get(name))]
    if carried:
        return parallel, f"{', '.join(sorted(carried))} may be handed from turn to turn"
    if others:
        return parallel, f"{', '.join(sorted(set(others)))} is no matrix or number"
    return parallel, f"{', '.join(streamed)} is read from a table" if streamed else ""


def _adds_up(value: Any) -> bool:
    return isinstance(value, float | int) or is_matrix(value)


def _too_few(turns: Sequence[Any], workers: Workers) -> str:
    if len(turns) < 2:
        return "there is one turn" if turns else "there are no turns"
    return "" if workers.some else "one worker"


def _in_scope(interpreter: Interpreter, parallel: Parallel, place: int, scope: Scope) -> None:
    totals = {name: scope.variables[name] for name in parallel.sums if name in scope.variables}
    random = interpreter.context.random
    try:
        one_turn(interpreter, parallel, place, scope)
    finally:
        interpreter.context.random = random
    added = {name: scope.variables[name] for name in totals if name in scope.variables}
    scope.variables.update(totals)
    add_up(interpreter, added, scope, parallel.loop.span)


def _planned(parallel: Parallel, trials: Trials, workers: Workers, scope: Scope, wanted: Way | None) -> ParforPlan:
    left = len(parallel.turns) - trials.count
    if left < 2:
        return ParforPlan(
            "in turns", reason=f"{trials.count} turns took {trials.seconds:.2g} s; none are left to share"
        )
    reads = size_of({name: scope.variables.get(name) for name in names_read(parallel.loop)})
    return choose(Work(left, trials.measured, reads), workers, wanted)


def _run_others(interpreter: Interpreter, parallel: Parallel, done: int, plan: ParforPlan, scope: Scope) -> None:
    places = range(done, len(parallel.turns))
    if plan.way == "in turns":
        for place in places:
            _in_scope(interpreter, parallel, place, scope)
        return
    if plan.way == "on threads":
        found = run_on_threads(interpreter, parallel, places, scope, plan.workers)
    else:
        found = run_as_tasks(interpreter, parallel, places, scope, plan.workers, engine_of(plan, interpreter.context))
    for turn in found:
        put_into_place(interpreter, turn, scope, parallel.loop.span)
    scope.variables[parallel.loop.variable] = parallel.turns[-1]
    scope.live = scope.liveness.during(parallel.loop)


def _note(interpreter: Interpreter, loop: For, turns: int, plan: ParforPlan, seconds: float) -> None:
    context = interpreter.context
    if context.explain is not None:
        context.explain.note(f"parfor in line {loop.span.line}, {turns} turns, {plan}")
    if context.statistics is not None and plan.workers > 1:
        context.statistics.note(f"parfor in line {loop.span.line}, {plan.workers} {plan.way}", seconds)
