"""What runs inside the server: a session keeps its share of the blocks, and folds them again and again.

The SQL functions of `install` do nothing but call this module; requests and answers are pickles that travel between a client
and its own session. Whoever may call those functions can run any Python as the server's user, so nobody may unless the
one who installed them grants it.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import Block, RawBlock
from braidwater.engines import facts as machine
from braidwater.engines.local.threads import one_blas_thread
from braidwater.engines.once import Once, exchange
from braidwater.engines.postgres.form import unpacked
from braidwater.engines.postgres.share import Rows, Share, blocks_of, torch_threads
from braidwater.engines.postgres.tree import Nodes, TreeFold
from braidwater.errors import UnsupportedError
from braidwater.options import format_bytes


@dataclass
class Folded:
    """What a worker found in its blocks: nodes of the tree, or one state where the aggregate is not exact.

    `blocks` tells of each its rows, bytes, when it was begun and the seconds it took.
    """

    nodes: Nodes = field(default_factory=dict)
    state: Any = None
    blocks: list[tuple[int, int, float, float]] = field(default_factory=list)
    dropped: int = 0
    cpu_seconds: float = 0.0


@dataclass
class Failure:
    """An error inside the server, where it happened, and its trace."""

    error: BaseException
    where: str
    trace: str


MOST_BYTES = 2**30 - 2**16  # of a value in the server
TOO_LARGE = (
    "A value of PostgreSQL's has at most 1 GB. Train such a net in a gang here: AllReduce, or Averaging(every=<steps>)."
)


_shared: dict[str, Once[Any]] = {}  # what the client knows that this session has


def call(request: bytes) -> bytes:
    """Do what the client asked for: ``function(*arguments)``, and its value or the error.

    A request is a line of JSON, the names of what the client still wants this session to have, and a pickle.
    """
    import plpy

    where = ["the start"]
    try:
        with exchange(_shared):
            function, arguments = _opened(request)
        value = function(where, *arguments) if getattr(function, "tells_where", False) else function(*arguments)
    except plpy.SPIError:
        raise  # cancelled, or the database says no: the transaction has to know
    except Exception as error:
        value = Failure(error, where[0], traceback.format_exc())
    with exchange(_shared):
        answer = packed(value)
    if len(answer) > MOST_BYTES:
        refused = UnsupportedError(f"An answer of {format_bytes(len(answer))} does not fit. {TOO_LARGE}")
        return packed(Failure(refused, "the end", ""))
    return answer


def _opened(request: bytes) -> Any:
    end = request.index(b"\n")
    alive = set(json.loads(request[:end]))
    for name in set(_shared) - alive:
        del _shared[name]
    return cloudpickle.loads(memoryview(request)[end + 1 :])


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
    with one_blas_thread(), torch_threads(share.threads), closing(blocks_of(share, rows)) as items:
        for block, packed, dropped in items:
            begun = time.time()
            where[0] = _place(block)
            if aggregate.exact:
                tree.add(packed, aggregate.transition(aggregate.initialize(), block))
            else:
                found.state = aggregate.transition(found.state, block)
            found.blocks.append((block.rows, block.bytes, begun, time.time() - begun))
            found.dropped += dropped
    found.cpu_seconds = time.process_time() - cpu
    return found


fold.tells_where = True  # type: ignore[attr-defined]


def _place(block: Block | RawBlock) -> str:
    return f"block {block.number} (rows {block.start} to {block.start + block.rows - 1})"


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
        with one_blas_thread():
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
    with one_blas_thread():
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
    return json.dumps(machine.facts())
