"""What each way to run an aggregate over a table of the server costs, and which one is taken."""

from __future__ import annotations

from dataclasses import dataclass

from braidwater.engines.base import Way

# CPU seconds a byte of packed numbers unless it says otherwise; `benchmarks/postgres.py` measures them
PACK = 12e-9
SCAN = 0.35e-9  # fetch a packed block out of the table
ENCODE = 1.0e-9  # from packed numbers to a block
COPY = 1.0e-9  # a packed block through binary COPY
MEMORY = 0.05e-9
FIGURE = 60e-9  # a row and figure of plain SQL
IMPORT = 0.5  # seconds until a new process of the server has imported this package


@dataclass(frozen=True)
class Question:
    """What the costs follow from. `bytes` are those of the packed numbers, `figures` those of the SQL form (0: none)."""

    rows: int
    bytes: int
    passes: int
    sessions: int
    warm: int
    exact: bool
    packed: bool
    may_pack: bool
    python: bool
    why_no_python: str = ""
    figures: int = 0
    keeps: bool = True
    kept: bool = False  # by the sessions, from an earlier pass
    parallel: int = 0  # workers that a query of the server may have beside its own process


def estimates(question: Question) -> list[Way]:
    """Every way, the cheapest first and those that are refused last."""
    found = [_sql(question), _sessions(question), _aggregate(question), _copy(question)]
    return sorted(found, key=lambda one: (bool(one.refused), one.seconds))


def _sql(q: Question) -> Way:
    refused = "" if q.figures else "this aggregate has no form in plain SQL"
    return Way("sql", q.passes * q.rows * q.figures * FIGURE / (1 + q.parallel), 8 * q.figures, refused)


def _packing(q: Question) -> float:
    return 0.0 if q.packed else PACK * q.bytes


def _aggregate(q: Question) -> Way:
    refused = _in_server(q) or ("" if q.exact else "each worker must keep a state of its own")
    workers = 1 + q.parallel
    each = (SCAN + ENCODE) * q.bytes / workers + (IMPORT if q.parallel or not q.warm else 0.0)
    return Way("aggregate", _packing(q) + q.passes * each, 0, refused)


def _sessions(q: Question) -> Way:
    start = 0.0 if q.warm >= q.sessions else IMPORT
    first = (MEMORY if q.kept else SCAN + ENCODE) * q.bytes
    later = MEMORY * q.bytes if q.keeps else first
    seconds = start + _packing(q) + (first + (q.passes - 1) * later) / q.sessions
    return Way("sessions", seconds, 0, _in_server(q))


def _copy(q: Question) -> Way:
    reads = 1 if q.keeps else q.passes
    way = COPY if q.packed else PACK
    seconds = reads * (way + ENCODE) * q.bytes + (q.passes - reads) * MEMORY * q.bytes
    # half again: what leaves the server loads a network and a client that others use
    return Way("copy", 1.5 * seconds, reads * q.bytes)


def _in_server(q: Question) -> str:
    if not q.python:
        return q.why_no_python
    if not (q.packed or q.may_pack):
        return "no table may be created in the schema braidwater"
    return ""
