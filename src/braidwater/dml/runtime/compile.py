"""From the operators of a block to a program: rewrite, form scans, order, free."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from braidwater.dml.context import Context
from braidwater.dml.hops import Dag, Hop, reachable
from braidwater.dml.plan.cost import seconds
from braidwater.dml.plan.scan import Scan
from braidwater.dml.plan.scans import THREADED, form_scans, work
from braidwater.dml.plan.signature import abstracted
from braidwater.dml.rewrites import optimise, rules, total
from braidwater.dml.runtime.kernels import ALL, Kernel, kernel_of
from braidwater.dml.runtime.pool import pool_of
from braidwater.dml.runtime.program import Instruction, Program
from braidwater.dml.runtime.scan import CompiledScan
from braidwater.dml.runtime.workers import run_parts
from braidwater.dml.values import is_streamed

Unit = Hop | Scan

GATHERED = 1e3  # seconds charged for the transpose of a streamed matrix: only products without it keep the rows apart


def compile_block(order: Sequence[Hop], roots: Sequence[Hop], streamed: frozenset[str]) -> Program:
    """The program of a block; `streamed` names the leaves that are read from disk. Cost: milliseconds for a hundred operators.

    Prices are those of the reference machine, whatever machine this is and however many threads there are: two forms of an
    expression differ in their last digits, and a script gives the same digits everywhere.
    """
    dag = Dag(ALL)

    @cache
    def price(hop: Hop) -> float:
        whole = hop.op == "t" and hop.inputs[0].attributes.get("name") in streamed
        return GATHERED if whole else seconds(hop)

    given = abstracted(order, roots, dag)
    wanted, weighed = optimise(given, dag, rules(price), price)
    kept = reachable(wanted)
    scans = form_scans(kept, wanted, price, lambda hop: hop.attributes.get("name") in streamed)
    program = _program(kept, wanted, scans, streamed)
    program.weighed = weighed
    program.before, program.after = total(given, price), total(wanted, price)
    return program


def _program(order: Sequence[Hop], roots: Sequence[Hop], scans: Sequence[Scan], streamed: frozenset[str]) -> Program:
    leaves = [hop for hop in order if hop.op == "leaf"]
    constants = [hop for hop in order if hop.op == "literal"]
    slot = {hop: place for place, hop in enumerate((*leaves, *constants))}
    instructions: list[Instruction] = []
    for unit in _scheduled(order, scans):
        needs, makes = _needs(unit), _makes(unit)
        for hop in makes:
            slot[hop] = len(slot)
        run, name, hops = _runner(unit, streamed)
        inputs, outputs = tuple(slot[hop] for hop in needs), tuple(slot[hop] for hop in makes)
        scan = unit if isinstance(unit, Scan) else None
        instructions.append(Instruction(name, run, inputs, outputs, hops, scan=scan))
    results = tuple(slot[root] for root in roots)
    _mark_dead(instructions, set(results))
    return Program(
        instructions,
        tuple(hop.attributes["place"] for hop in leaves),
        tuple((slot[hop], hop.attributes["value"]) for hop in constants),
        len(slot),
        results,
        root_hops=tuple(roots),
    )


def _needs(unit: Unit) -> list[Hop]:
    return [*unit.sources, *unit.constants] if isinstance(unit, Scan) else list(unit.inputs)


def _makes(unit: Unit) -> list[Hop]:
    return [*unit.stored, *unit.folds] if isinstance(unit, Scan) else [unit]


def _runner(unit: Unit, streamed: frozenset[str]) -> tuple[Kernel, str, tuple[Hop, ...]]:
    if isinstance(unit, Scan):
        from_disk = any(hop.attributes.get("name") in streamed for hop in unit.sources)
        return _scan_runner(unit, from_disk), "scan", tuple(unit.members)
    kernel = kernel_of(unit)
    from_disk = any(each.attributes.get("name") in streamed for each in unit.inputs if each.op == "leaf")
    return _in_memory(kernel, unit) if from_disk else kernel, unit.op, (unit,)


def _scan_runner(scan: Scan, from_disk: bool) -> Kernel:
    compiled = CompiledScan(scan, streamed=from_disk)
    sources, threaded = len(scan.sources), work(scan) >= THREADED

    def run(values: list[Any], context: Context) -> list[Any]:
        if from_disk:
            from braidwater.dml.runtime.streamed import run_streamed

            return run_streamed(compiled, values[:sources], values[sources:], context)
        _gather(values, sources, scan.constants, context)
        threads = context.threads if threaded else 1
        on_threads = partial(run_parts, threads=threads)
        return compiled.run(values[:sources], values[sources:], on_threads, pool_of(context).scratch)

    return run


def _in_memory(kernel: Kernel, hop: Hop) -> Kernel:
    """A kernel that has no form for streamed matrices: they are gathered, if they fit."""

    def run(values: list[Any], context: Context) -> list[Any]:
        if hop.op == "index":
            from braidwater.dml.runtime.streamed import some_rows

            return [some_rows(values[0], [int(bound) for bound in values[1:]], context, hop)]
        _gather(values, 0, [hop] * len(values), context)
        return kernel(values, context)

    return run


def _gather(values: list[Any], begin: int, hops: Sequence[Hop], context: Context) -> None:
    """Put arrays in the place of streamed matrices from `begin` on; `hops` are what needs them, for an error."""
    for place, hop in enumerate(hops, start=begin):
        if is_streamed(values[place]):
            from braidwater.dml.runtime.streamed import gathered

            values[place] = gathered(values[place], context, hop)


def _scheduled(order: Sequence[Hop], scans: Sequence[Scan]) -> list[Unit]:
    """Units, what they need first, otherwise in the order of the script."""
    unit_of: dict[Hop, Unit] = {hop: scan for scan in scans for hop in scan.members if hop not in scan.again}
    units: dict[int, Unit] = {}
    for hop in order:
        if hop.op not in ("leaf", "literal"):
            unit = unit_of.setdefault(hop, hop)
            units[id(unit)] = unit
    waiting: dict[int, set[int]] = {}
    after: dict[int, list[int]] = {}
    for key, unit in units.items():
        needed = {id(unit_of[hop]) for hop in _needs(unit) if hop in unit_of}
        waiting[key] = needed
        for each in needed:
            after.setdefault(each, []).append(key)
    ready = [(_number(units[key]), key) for key, needed in waiting.items() if not needed]
    heapq.heapify(ready)
    scheduled = []
    while ready:
        _, key = heapq.heappop(ready)
        scheduled.append(units[key])
        for other in after.get(key, ()):
            waiting[other].discard(key)
            if not waiting[other]:
                heapq.heappush(ready, (_number(units[other]), other))
    return scheduled


def _number(unit: Unit) -> int:
    return min(hop.number for hop in unit.members) if isinstance(unit, Scan) else unit.number


def _mark_dead(instructions: Sequence[Instruction], kept: set[int]) -> None:
    """Each slot is freed by the last instruction that reads or makes it, unless it is a result."""
    seen = set(kept)
    for instruction in reversed(instructions):
        dead = tuple(slot for slot in dict.fromkeys((*instruction.inputs, *instruction.outputs)) if slot not in seen)
        seen.update(dead)
        instruction.frees = dead
