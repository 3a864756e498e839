"""What runs inside the server: a session keeps its share of the blocks, and folds them again and again.

The SQL functions of `install` do nothing but call this module; requests and answers are pickles that travel between a client
and its own session. Whoever may call those functions can run any Python as the server's user, so nobody may unless the
one who installed them grants it.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import Block, BlockEncoder, RawBlock
from braidwater.engines.postgres.form import PackedColumn, unpacked
from braidwater.engines.postgres.tree import Nodes, TreeFold


@dataclass(frozen=True)
class Rows:
    """How packed blocks become blocks: their columns, and the encoder. `key` names what comes out."""

    columns: tuple[PackedColumn, ...]
    encoder: BlockEncoder | None
    key: str

    def block(self, number: int, start: int, rows: int, data: list[bytes]) -> tuple[Block | RawBlock, int]:
        """The block, and how many rows the policy for NULLs left out."""
        batch = unpacked(self.columns, rows, data)
        if self.encoder is None:
            return RawBlock(batch, start=start, number=number), 0
        arrays = self.encoder.encode(batch)
        block = Block.from_arrays(arrays, self.encoder.block_schema)
        block.number, block.start = number, start
        return block, rows - block.rows


@dataclass(frozen=True)
class Share:
    """The blocks ``first`` to ``last`` of a table of packed blocks (a name as SQL has it).

    `version` differs when the table was packed anew, `start` is the number of the first row, `keep` the bytes of blocks
    that the session may hold.
    """

    table: str
    version: str
    first: int
    last: int
    start: int
    keep: int


@dataclass
class Folded:
    """What a worker found in its blocks: nodes of the tree, or one state where the aggregate is not exact.

    `blocks` tells of each its rows, bytes, when it was begun and the seconds it took.
    """

    nodes: Nodes = field(default_factory=dict)
    state: Any = None
    blocks: list[tuple[int, int, float, float]] = field(default_factory=list)
    dropped: int = 0
    from_memory: bool = False
    cpu_seconds: float = 0.0


@dataclass
class Failure:
    """An error inside the server, where it happened, and its trace."""

    error: BaseException
    where: str
    trace: str


_kept: dict[tuple[str, str], list[tuple[Block | RawBlock, int]]] = {}


def call(request: bytes) -> bytes:
    """Do what the client asked for: ``function(*arguments)``, and its value or the error."""
    import plpy

    where = ["the start"]
    try:
        function, arguments = cloudpickle.loads(request)
        value = function(where, *arguments) if getattr(function, "tells_where", False) else function(*arguments)
    except plpy.SPIError:
        raise  # cancelled, or the database says no: the transaction has to know
    except Exception as error:
        value = Failure(error, where[0], traceback.format_exc())
    return packed(value)


def packed(value: Any) -> bytes:
    """A pickle of `value`; of an error where it has none."""
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:
        return bytes(cloudpickle.dumps(Failure(TypeError(f"it cannot be handed over: {error}"), "the end", "")))


def fold(where: list[str], share: Share, rows: Rows, aggregate: Aggregate[Any, Any]) -> Folded:
    """One pass of this session over its share."""
    found = Folded(state=None if aggregate.exact else aggregate.initialize())
    tree = TreeFold(aggregate, found.nodes)
    cpu = time.process_time()
    with one_thread(), closing(_blocks(share, rows, found)) as blocks:
        for block, dropped in blocks:
            begun = time.time()
            where[0] = _place(block)
            if aggregate.exact:
                tree.add(block.number, aggregate.transition(aggregate.initialize(), block))
            else:
                found.state = aggregate.transition(found.state, block)
            found.blocks.append((block.rows, block.bytes, begun, time.time() - begun))
            found.dropped += dropped
    found.cpu_seconds = time.process_time() - cpu
    return found


fold.tells_where = True  # type: ignore[attr-defined]


def _place(block: Block | RawBlock) -> str:
    return f"block {block.number} (rows {block.start} to {block.start + block.rows - 1})"


def _blocks(share: Share, rows: Rows, found: Folded) -> Generator[tuple[Block | RawBlock, int], None, None]:
    """The blocks of a share: kept ones, else out of the table, and then they are kept while they fit."""
    import plpy

    key = (f"{share.table} {share.version} {share.first} {share.last}", rows.key)
    kept = _kept.get(key)
    if kept is not None:
        found.from_memory = True
        for item in kept:
            plpy.execute("SELECT 1")  # where a cancelled statement ends
            yield item
        return
    _kept.clear()  # of another table: this one takes its place
    held: list[tuple[Block | RawBlock, int]] = []
    room = share.keep
    start = share.start
    statement = f"SELECT number, rows, data FROM {share.table} WHERE number BETWEEN $1 AND $2 ORDER BY number"
    plan = plpy.prepare(statement, ["int4", "int4"])
    cursor = plpy.cursor(plan, [share.first, share.last])
    try:
        while got := cursor.fetch(1):
            row = got[0]
            block, dropped = rows.block(row["number"], start, row["rows"], row["data"])
            start += row["rows"]
            room -= block.bytes
            if room >= 0:
                held.append((block, dropped))
            else:
                held.clear()
            yield block, dropped
    finally:
        cursor.close()  # after an error too: the transaction does not end while it is open
    if room >= 0 and share.keep:
        _kept[key] = held


def one_thread() -> Any:
    """BLAS on one thread: the sessions are what is parallel."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")


_specs: dict[bytes, tuple[Rows, Aggregate[Any, Any]]] = {}


def _spec(request: bytes) -> tuple[Rows, Aggregate[Any, Any]]:
    if request not in _specs:
        _specs.clear()
        _specs[request] = cloudpickle.loads(request)
    return _specs[request]


def transition(state: bytes | None, number: int, rows: int, data: list[bytes], request: bytes) -> bytes:
    """The transition of the SQL aggregate. A state is a pickle of the request and what was found so far."""
    found: Folded | Failure = Folded() if state is None else cloudpickle.loads(state)[1]
    if isinstance(found, Failure):
        return bytes(state or b"")
    try:
        form, aggregate = _spec(request)
        begun, cpu = time.time(), time.process_time()
        with one_thread():
            block, dropped = form.block(number, 0, rows, data)
            TreeFold(aggregate, found.nodes).add(number, aggregate.transition(aggregate.initialize(), block))
        found.blocks.append((block.rows, block.bytes, begun, time.time() - begun))
        found.dropped += dropped
        found.cpu_seconds += time.process_time() - cpu
    except Exception as error:
        found = Failure(error, f"block {number} ({rows} rows)", traceback.format_exc())
    return packed((request, found))


def combine(state: bytes | None, other: bytes | None) -> bytes | None:
    """The merge of the SQL aggregate, where PostgreSQL has run it on several of its workers."""
    if state is None or other is None:
        return state if other is None else other
    request, found = cloudpickle.loads(state)
    _, more = cloudpickle.loads(other)
    for one in (found, more):
        if isinstance(one, Failure):
            return packed((request, one))
    TreeFold(_spec(request)[1], found.nodes).take(more.nodes)
    found.blocks += more.blocks
    found.dropped += more.dropped
    found.cpu_seconds += more.cpu_seconds
    return packed((request, found))


def final(state: bytes | None) -> bytes:
    """What the aggregate found, for the client to finish."""
    return packed(Folded() if state is None else cloudpickle.loads(state)[1])


def added_columns(request: bytes, rows: int, data: list[bytes]) -> list[str]:
    """The columns that a function adds to the rows of a packed block, each as the text of an SQL array."""
    columns, function, names = _function(request)
    with one_thread():
        found = function(unpacked(columns, rows, data))
    return [_literal(found.column(found.schema.get_field_index(name))) for name in names]


_functions: dict[bytes, tuple[Any, Callable[[pa.RecordBatch], pa.RecordBatch], list[str]]] = {}


def _function(request: bytes) -> tuple[Any, Callable[[pa.RecordBatch], pa.RecordBatch], list[str]]:
    if request not in _functions:
        _functions.clear()
        _functions[request] = cloudpickle.loads(request)
    return _functions[request]


def _literal(values: pa.Array) -> str:
    return "{" + ",".join(map(_element, values.to_pylist())) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return repr(value) if np.isfinite(value) else {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
    if isinstance(value, (bool, int)):
        return str(value).lower()
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def facts() -> str:
    """What this session sees of its machine, as JSON."""
    import json
    import os
    import platform
    import socket
    import sys
    from importlib.util import find_spec
    from pathlib import Path

    seen = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": sum(1 for _ in Path("/dev").glob("nvidia[0-9]*")),
        "python": platform.python_version(),
        "braidwater": sys.modules["braidwater"].__version__,
        "torch": find_spec("torch") is not None,
    }
    return json.dumps(seen)
