"""Which operators of a block become scans: those over the same rows, as long as none needs another's result as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from braidwater.dml.hops import Hop
from braidwater.dml.plan.cost import CACHE_SPEED, CACHED, CELL, CELLWISE, PLAIN_CELL, cells, is_sparse, memory, traffic
from braidwater.dml.plan.scan import NARROW, PRODUCTS, Scan, aligned_inputs, can_align, can_fold, constant_inputs
from braidwater.planner.constants import REFERENCE, Machine

Rows = dict[Hop, int | None]

START = 40e-6  # seconds to hand parts to threads and gather their states
THREADED = 600e-6  # seconds of work from which threads take parts: waking them, and their turns at the interpreter, cost 100 us
BUFFERS = 40e-6  # seconds to make room for blocks, and to go through the parts
NEAR = 2 << 20  # bytes that operators one by one read as fast as a scan; up to CACHED, products do not: BLAS copies
NARROW_CELL = 3e-9  # seconds of a cell where numpy goes through short rows, which lie column by column in a scan
STEP = 1.3e-6  # seconds of Python and dispatch for one operator on one block
WIDE = 4  # times the columns of a value are at least those of the table, if it is made again rather than kept
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
    if not any(map(streamed, order)) and sum(cells(hop.facts) for hop in order) < FEWEST_CELLS:
        return []
    flowing = _flowing(order, streamed)
    rows = _rows(order, flowing)
    while True:
        stages = _stages(order, roots, rows)
        found = [_scan(members, order, roots, rows) for members in _connected(order, stages, rows)]
        slower = [
            scan
            for scan in found
            if not any(source in flowing for source in scan.sources) and seconds(scan) >= _one_by_one(scan, price)
        ]
        if not slower:
            if flowing and _make_again(found, flowing):
                for scan in found:
                    scan.stored = _stored(scan, found, order, roots)
            return found
        rows.update((hop, None) for scan in slower for hop in scan.members)


def seconds(scan: Scan, machine: Machine = REFERENCE) -> float:
    """Estimated wall seconds: sources read once, intermediates in the cache, parts shared by the machine's cores."""
    if sum(cells(hop.facts) for hop in [*scan.sources, *scan.aligned]) < FEWEST_CELLS:
        return float("inf")
    alone = work(scan, machine)
    if alone < THREADED:
        return BUFFERS + alone
    return START + alone / min(machine.cores, max(scan.rows / scan.block_rows, 1.0))


def work(scan: Scan, machine: Machine = REFERENCE) -> float:
    """Seconds of one thread for the whole scan. Below `THREADED` it is not handed to others."""
    moved = 0.0
    if _held(scan) > CACHED:
        moved += sum(memory(hop.facts) for hop in scan.sources) / machine.memory_rate
        moved += sum(memory(hop.facts) for hop in scan.stored) / machine.blas_bytes
    return (
        moved
        + sum(_in_cache(hop, machine) for hop in scan.members)
        + scan.rows / scan.block_rows * len(scan.members) * STEP
    )


def _one_by_one(scan: Scan, price: Callable[[Hop], float]) -> float:
    """Seconds of the members of a scan, each for itself."""
    spent = sum(map(price, scan.members)) + sum(cells(hop.facts) * NARROW_CELL for hop in scan.aligned if _repeats(hop))
    held = _held(scan)
    if held > CACHED:
        return spent
    copied = [hop for hop in scan.members if _copies(hop)] if held > NEAR else []
    return spent - sum(map(traffic, scan.members)) + CACHE_SPEED * sum(map(traffic, copied))


def _held(scan: Scan) -> float:
    """Bytes of what a scan reads and makes."""
    return sum(memory(hop.facts) for hop in [*scan.sources, *scan.aligned])


def _copies(hop: Hop) -> bool:
    return hop.op in (*PRODUCTS, "tmatmul", "tsmm") and not hop.facts.is_vector


def _repeats(hop: Hop) -> bool:
    """Whether a column is repeated along short rows."""
    cols = hop.facts.cols or 1
    return hop.op in CELLWISE and 1 < cols <= NARROW and any(each.facts.is_column for each in hop.inputs)


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


def _stages(order: Sequence[Hop], roots: Sequence[Hop], rows_of: Rows) -> dict[Hop, int]:
    """The scan, counted from 0, in which an operator takes part: one after those whose results it needs as a whole."""
    ready: dict[Hop, int] = {}  # the stage from which the whole value is there
    stage: dict[Hop, int] = {}
    for hop in order:
        rows = rows_of[hop]
        if rows is None:
            ready[hop] = max((ready[each] for each in hop.inputs), default=0)
            continue
        waits = [stage[each] if _joins(each, rows, stage) else ready[each] for each in aligned_inputs(hop, rows)]
        waits += [ready[each] for each in constant_inputs(hop, rows)]  # X %*% X needs X as a whole too
        stage[hop] = max(waits, default=0)
        ready[hop] = stage[hop] + 1
    _delay(order, roots, stage, rows_of)
    return stage


def _joins(hop: Hop, rows: int, stage: dict[Hop, int]) -> bool:
    """Whether a value can be read row by row in the scan that makes it."""
    return hop in stage and can_align(hop) and hop.facts.rows == rows


def _delay(order: Sequence[Hop], roots: Sequence[Hop], stage: dict[Hop, int], rows_of: Rows) -> None:
    """Aligned values go into the scan that first reads them, so that they need not be stored for it."""
    latest: dict[Hop, int] = dict.fromkeys(roots, -1)
    for hop in reversed(order):
        rows = rows_of[hop] if hop in stage else None
        if rows is not None and can_align(hop):
            stage[hop] = max(stage[hop], latest.get(hop, -1))
        for each in hop.inputs:
            whole = rows is None or each not in aligned_inputs(hop, rows) or each in constant_inputs(hop, rows)
            at = -1 if whole else stage[hop]
            latest[each] = min(latest.get(each, at), at)


def _flowing(order: Sequence[Hop], streamed: Callable[[Hop], bool]) -> dict[Hop, int]:
    """Streamed matrices and what follows from them row by row, with the columns of the widest of these matrices."""
    flowing: dict[Hop, int] = {}
    for hop in order:
        if streamed(hop):
            flowing[hop] = hop.facts.cols or 1
        elif _rows_of(hop) and can_align(hop) and any(each in flowing for each in hop.inputs):
            flowing[hop] = max(flowing.get(each, 0) for each in hop.inputs)
    return flowing


def _rows(order: Sequence[Hop], flowing: Mapping[Hop, int]) -> Rows:
    """The rows over which each operator could be scanned."""
    rows: Rows = {}
    for hop in order:
        rows[hop] = _rows_of(hop)
        if hop.op == "tmatmul" and is_sparse(hop.inputs[0].facts) and hop.inputs[1] in flowing:
            rows[hop] = hop.inputs[0].facts.rows
    return rows


def _rows_of(hop: Hop) -> int | None:
    if any(is_sparse(each.facts) for each in (hop, *hop.inputs) if each.facts.is_matrix) or is_sparse(hop.facts):
        return None
    if can_fold(hop):
        rows = hop.inputs[0].facts.rows
    elif can_align(hop):
        rows = hop.facts.rows
    else:
        return None
    return rows if rows is not None and rows > 1 else None


def _connected(order: Sequence[Hop], stages: dict[Hop, int], rows_of: Rows) -> list[list[Hop]]:
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
        rows = rows_of[hop] or 0
        for each in (hop, *aligned_inputs(hop, rows)):
            key = (stages[hop], rows, each)
            other = first.setdefault(key, hop)
            parent[find(other)] = find(hop)
    groups: dict[Hop, list[Hop]] = {}
    for hop in parent:
        groups.setdefault(find(hop), []).append(hop)
    return list(groups.values())


def _scan(members: Sequence[Hop], order: Sequence[Hop], roots: Sequence[Hop], rows_of: Rows) -> Scan:
    folds = [hop for hop in members if can_fold(hop)]
    aligned = [hop for hop in members if hop not in set(folds)]
    scan = Scan(rows_of[members[0]] or 0, aligned, folds)
    scan.stored = _stored(scan, [scan], order, roots)
    return scan


def _stored(scan: Scan, scans: Sequence[Scan], order: Sequence[Hop], roots: Sequence[Hop]) -> list[Hop]:
    """The aligned values that others need as matrices, or that a scan which does not make them reads."""
    wanted = set(roots)
    inside = [(each, set(each.members)) for each in scans]
    for hop in order:
        readers = [(each, members) for each, members in inside if hop in members]
        for reader, members in readers:
            wanted.update(constant_inputs(hop, reader.rows))
            wanted.update(each for each in hop.inputs if each not in members)
        if not readers:
            wanted.update(hop.inputs)
    return [hop for hop in scan.aligned if hop in wanted and hop not in scan.again]


def _make_again(scans: Sequence[Scan], flowing: Mapping[Hop, int]) -> bool:
    """Have scans over a table make anew what an earlier one made, where keeping it takes memory like the table itself."""

    def is_wide(hop: Hop) -> bool:
        cols = hop.facts.cols or 1
        return bool(hop.inputs) and hop in flowing and cols > 1 and cols * WIDE >= flowing[hop]

    for scan in scans:
        waiting = [source for source in scan.sources if is_wide(source)]
        while waiting:
            hop = waiting.pop()
            if hop not in scan.aligned:
                scan.aligned.append(hop)
                scan.again.append(hop)
                waiting += [each for each in aligned_inputs(hop, scan.rows) if is_wide(each)]
        scan.aligned.sort(key=lambda hop: hop.number)
    return any(scan.again for scan in scans)
