"""Which operators of a block become scans: those over the same rows, as long as none needs another's result as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from braidwater.dml.hops import Hop
from braidwater.dml.plan.cost import CELL, CELLWISE, PLAIN_CELL, cells, is_sparse, memory
from braidwater.dml.plan.scan import PRODUCTS, Scan, aligned_inputs, can_align, can_fold, constant_inputs
from braidwater.planner.constants import REFERENCE, Machine

START = 40e-6  # seconds to hand parts to threads and gather their states
STEP = 1.3e-6  # seconds of Python and dispatch for one operator on one block
FEWEST_CELLS = 20_000  # of all that a scan reads and makes; below that nothing is gained


def form_scans(
    order: Sequence[Hop],
    roots: Sequence[Hop],
    price: Callable[[Hop], float],
    streamed: Callable[[Hop], bool],
) -> list[Scan]:
    """The scans of a block whose hops are `order`, inputs first.

    Operators on the same rows that share an input go into one scan, so that each matrix is read once (scan sharing). One that
    needs a fold as a whole waits for the scan after. A scan is kept when it is estimated to be faster than its operators one by
    one, or when a source is `streamed`; the operators of others are then no reason for anybody to wait, so stages are found
    anew without them. Cost: linear in operators, a few times over.
    """
    alone: set[Hop] = set()
    while True:
        stages = _stages(order, roots, alone)
        found = [_scan(members, order, roots) for members in _connected(order, stages)]
        slower = [
            scan
            for scan in found
            if not any(map(streamed, scan.sources)) and seconds(scan) >= sum(map(price, scan.members))
        ]
        if not slower:
            return found
        alone.update(hop for scan in slower for hop in scan.members)


def seconds(scan: Scan, machine: Machine = REFERENCE) -> float:
    """Estimated wall seconds: sources read once, intermediates in the cache, parts shared by the machine's cores."""
    size = sum(cells(hop.facts) for hop in [*scan.sources, *scan.aligned])
    if size < FEWEST_CELLS:
        return float("inf")
    moved = sum(memory(hop.facts) for hop in scan.sources) / machine.memory_rate
    moved += sum(memory(hop.facts) for hop in scan.stored) / machine.blas_bytes
    work = sum(_in_cache(hop, machine) for hop in scan.members)
    blocks = scan.rows / scan.block_rows
    calls = blocks * len(scan.members) * STEP
    return START + (moved + work + calls) / min(machine.cores, max(blocks, 1.0))


def _in_cache(hop: Hop, machine: Machine) -> float:
    if hop.op in CELLWISE:
        squared = hop.op == "^" and hop.inputs[1].facts.value == 2
        return cells(hop.facts) * (PLAIN_CELL if squared else CELL.get(hop.op, PLAIN_CELL))
    first = hop.inputs[0].facts
    if hop.op in PRODUCTS:
        return 2.0 * cells(hop.facts) * (first.cols or 1) / machine.gemm_float64
    if hop.op in ("tmatmul", "tsmm"):
        return 2.0 * cells(hop.facts) * (first.rows or 1) / machine.gemm_float64
    return cells(first) * PLAIN_CELL


def _stages(order: Sequence[Hop], roots: Sequence[Hop], alone: set[Hop]) -> dict[Hop, int]:
    """The scan, counted from 0, in which an operator takes part: one after those whose results it needs as a whole."""
    ready: dict[Hop, int] = {}  # the stage from which the whole value is there
    stage: dict[Hop, int] = {}
    for hop in order:
        rows = None if hop in alone else _rows(hop)
        if rows is None:
            ready[hop] = max((ready[each] for each in hop.inputs), default=0)
            continue
        waits = [stage[each] if _joins(each, rows, stage) else ready[each] for each in aligned_inputs(hop, rows)]
        waits += [ready[each] for each in constant_inputs(hop, rows)]  # X %*% X needs X as a whole too
        stage[hop] = max(waits, default=0)
        ready[hop] = stage[hop] + 1
    _delay(order, roots, stage)
    return stage


def _joins(hop: Hop, rows: int, stage: dict[Hop, int]) -> bool:
    """Whether a value can be read row by row in the scan that makes it."""
    return hop in stage and can_align(hop) and hop.facts.rows == rows


def _delay(order: Sequence[Hop], roots: Sequence[Hop], stage: dict[Hop, int]) -> None:
    """Aligned values go into the scan that first reads them, so that they need not be stored for it."""
    latest: dict[Hop, int] = dict.fromkeys(roots, -1)
    for hop in reversed(order):
        rows = _rows(hop) if hop in stage else None
        if rows is not None and can_align(hop):
            stage[hop] = max(stage[hop], latest.get(hop, -1))
        for each in hop.inputs:
            whole = rows is None or each not in aligned_inputs(hop, rows) or each in constant_inputs(hop, rows)
            at = -1 if whole else stage[hop]
            latest[each] = min(latest.get(each, at), at)


def _rows(hop: Hop) -> int | None:
    """The rows over which an operator could be scanned."""
    if any(is_sparse(each.facts) for each in (hop, *hop.inputs) if each.facts.is_matrix) or is_sparse(hop.facts):
        return None
    if can_fold(hop):
        rows = hop.inputs[0].facts.rows
    elif can_align(hop):
        rows = hop.facts.rows
    else:
        return None
    return rows if rows is not None and rows > 1 else None


def _connected(order: Sequence[Hop], stages: dict[Hop, int]) -> list[list[Hop]]:
    """Operators of one stage and number of rows that share what they read or make."""
    parent: dict[Hop, Hop] = {}

    def find(hop: Hop) -> Hop:
        while parent[hop] is not hop:
            hop = parent[hop]
        return hop

    first: dict[tuple[int, int, Hop], Hop] = {}
    for hop in order:
        if hop not in stages:
            continue
        parent[hop] = hop
        rows = _rows(hop) or 0
        for each in (hop, *aligned_inputs(hop, rows)):
            key = (stages[hop], rows, each)
            other = first.setdefault(key, hop)
            parent[find(other)] = find(hop)
    groups: dict[Hop, list[Hop]] = {}
    for hop in parent:
        groups.setdefault(find(hop), []).append(hop)
    return list(groups.values())


def _scan(members: Sequence[Hop], order: Sequence[Hop], roots: Sequence[Hop]) -> Scan:
    inside = set(members)
    folds = [hop for hop in members if can_fold(hop)]
    aligned = [hop for hop in members if hop not in set(folds)]
    scan = Scan(_rows(members[0]) or 0, aligned, folds)
    wanted = set(roots)
    for hop in order:
        wanted.update(constant_inputs(hop, scan.rows) if hop in inside else hop.inputs)
    scan.stored = [hop for hop in aligned if hop in wanted]
    return scan
