"""Computes the values that a script asks for: the plan of its block, made or found again, then its instructions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.hops import Dag, Hop, reachable
from braidwater.dml.plan.signature import signature
from braidwater.dml.runtime.compile import compile_block
from braidwater.dml.runtime.deferred import deferred, expanded, has_deferred, note, to_defer
from braidwater.dml.runtime.pool import pool_of
from braidwater.dml.runtime.program import Program
from braidwater.dml.runtime.workers import blas
from braidwater.dml.values import is_streamed
from braidwater.errors import DMLError

KEPT_PLANS = 512  # by the whole process: a plan holds no matrices, some 10 KB


def evaluate(dag: Dag, roots: Sequence[Hop], context: Context) -> list[Any]:
    """The values of `roots`, as arrays, CSR arrays or Python scalars.

    Takes the leaves out of ``dag.values``: the dag is used up, and a leaf that nobody else holds is freed as soon as it was read
    for the last time (or changed in place). Raises the errors of operators with their place in the script. Cost beside the
    operators': about 2 us each, and a plan (milliseconds) for operators, sizes or formats that were not met before.
    """
    if any(map(is_streamed, dag.values.values())):
        return _over_tables(dag, roots, context)
    return _evaluated(dag, roots, context)


def _over_tables(dag: Dag, roots: Sequence[Hop], context: Context) -> list[Any]:
    """The values of a block that reads tables: what is as long as a table, and too large to hold, is an expression."""
    if has_deferred(dag):
        dag, roots = expanded(dag, roots)
    late, needed = to_defer(dag, reachable(roots), roots, context)
    if not late:
        return _evaluated(dag, roots, context)
    leaves = dict(dag.values)
    now = list(dict.fromkeys([*(root for root in roots if root not in late), *needed]))
    found = dict(zip(now, _evaluated(dag, now, context) if now else (), strict=True))
    expressions = {root: deferred(dag, leaves, root, found) for root in late}
    if context.explain is not None:
        for expression in expressions.values():
            context.explain.note(note(expression))
    return [expressions[root] if root in expressions else found[root] for root in roots]


def _evaluated(dag: Dag, roots: Sequence[Hop], context: Context) -> list[Any]:
    order = reachable(roots)
    key = signature(order, roots, dag.values)
    reuse = pool_of(context).reuse
    if key is not None:
        reduced = reuse.reduced(dag, order, roots, key, lambda part, wanted: computed(part, wanted, context))
        if reduced is not None:
            dag.values.clear()
            return computed(*reduced, context)
    return _planned_and_run(dag, order, roots, key, context)


def computed(dag: Dag, roots: Sequence[Hop], context: Context) -> list[Any]:
    """As `evaluate`, but every root is computed, however large, and nothing is looked for that was computed before."""
    order = reachable(roots)
    return _planned_and_run(dag, order, roots, signature(order, roots, dag.values), context)


def _planned_and_run(dag: Dag, order: Sequence[Hop], roots: Sequence[Hop], key: Any, context: Context) -> list[Any]:
    program = planned(order, roots, dag.values, key, context)
    slots = slots_of(program, order, dag.values)
    dag.values.clear()
    return run(program, slots, context)


def slots_of(program: Program, order: Sequence[Hop], values: Mapping[str, Any]) -> list[Any]:
    """What a program of the block `order` begins with: the values of leaves by name, and numbers."""
    slots = [_value(order[place], values) for place in program.leaves]
    slots += [None] * (program.slots - len(slots))
    for slot, value in program.constants:
        slots[slot] = value
    return slots


def _value(hop: Hop, values: Mapping[str, Any]) -> Any:
    return values[hop.attributes["name"]] if hop.op == "leaf" else hop.attributes["value"]


def run(program: Program, slots: list[Any], context: Context) -> list[Any]:
    """The values of a program's roots; `slots` is used up."""
    if context.explain is not None:
        context.explain.add(program)
    with blas.held(), np.errstate(all="ignore"):
        _run(program, slots, context)
    return [slots[place] for place in program.roots]


def planned(
    order: Sequence[Hop], roots: Sequence[Hop], values: Mapping[str, Any], key: Any, context: Context
) -> Program:
    """The program of a block, made or found again under its signature `key`."""
    program = _plans.get(key)
    if program is None:
        begun = perf_counter()
        streamed = frozenset(name for name, value in values.items() if is_streamed(value))
        program = compile_block(order, roots, streamed)
        _plans.put(key, program)
        if context.statistics is not None:
            context.statistics.planned(perf_counter() - begun)
    return program


def _run(program: Program, slots: list[Any], context: Context) -> None:
    statistics, pool = context.statistics, pool_of(context)
    for instruction in program.instructions:
        begun = perf_counter() if statistics is not None else 0.0
        values = [slots[place] for place in instruction.inputs]
        if pool.on_disk:
            for value in values:
                pool.touch(value)
            value = None
        for place in instruction.frees:
            slots[place] = None
        try:
            made = instruction.run(values, context)
        except DMLError as error:
            raise error.at(instruction.hops[0].span) from None
        for place, value in zip(instruction.outputs, made, strict=True):
            slots[place] = pool.keep(value)
        value = None  # a name that still held a matrix would keep it from being freed, or changed in place
        del values, made
        if statistics is not None:
            statistics.ran(instruction, perf_counter() - begun)


class _Plans:
    """The plans that were used last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._plans: OrderedDict[Any, Program] = OrderedDict()

    def get(self, key: Any) -> Program | None:
        with self._lock:
            program = self._plans.get(key)
            if program is not None:
                self._plans.move_to_end(key)
            return program

    def put(self, key: Any, program: Program) -> None:
        if key is None:
            return
        with self._lock:
            self._plans[key] = program
            while len(self._plans) > KEPT_PLANS:
                self._plans.popitem(last=False)


_plans = _Plans()
