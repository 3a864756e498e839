"""The form of a packed block: what SQL makes of the rows, and how numpy reads it.

A packed block is an array of byte strings, some for each column, made by ``string_agg`` over the server's own binary output
functions. Numbers are big-endian, one after the other, so that a column is one view and one copy.

| column | byte strings |
| --- | --- |
| float4, float8 | the numbers; a NULL is a NaN of its own |
| other numbers, boolean, date, timestamp | the numbers (0 for a NULL), and a byte a row: 1 where it is no NULL (empty: no NULL) |
| text, bytea | lengths as int4 (-1: NULL), and all bytes |
| array of numbers | lengths as int4 (-1: NULL), and what ``array_send`` makes of each |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from braidwater.blocks.base import Array
from braidwater.errors import ColumnTypeError

VERSION = 2  # raised when the form changes: blocks of an older one are packed anew
NULLS = {"float8": "7ff80000000000b1", "float4": "7fc000b1"}
STORED = {"int2": ">i2", "int4": ">i4", "int8": ">i8", "float4": ">f4", "float8": ">f8", "bool": "u1", "date": ">i4",
           "timestamp": ">i8", "timestamptz": ">i8"}  # fmt: skip
EPOCH = {"date": 10_957, "timestamp": 946_684_800_000_000, "timestamptz": 946_684_800_000_000}  # 2000-01-01, from 1970
_HEADER = 20  # bytes of an array of one dimension before its first element


@dataclass(frozen=True)
class PackedColumn:
    """A column of packed blocks: its name, its Arrow type, the server's type, and whether it can be NULL."""

    name: str
    type: pa.DataType
    sent: str
    nullable: bool = True

    @property
    def parts(self) -> int:
        """How many byte strings it takes."""
        return 1 if self.sent in NULLS or (self.sent in STORED and not self.nullable) else 2


def unpacked(columns: Sequence[PackedColumn], rows: int, data: Sequence[bytes]) -> pa.RecordBatch:
    """The rows of a packed block."""
    arrays = []
    place = 0
    for column in columns:
        arrays.append(_array(column, rows, data[place : place + column.parts]))
        place += column.parts
    return pa.record_batch(arrays, schema=pa.schema([pa.field(c.name, c.type) for c in columns]))


def _array(column: PackedColumn, rows: int, parts: Sequence[bytes]) -> pa.Array:
    sent = column.sent
    if sent in STORED:
        return _numbers(column, rows, parts)
    lengths = np.frombuffer(parts[0], ">i4").astype(np.int32)
    known = None if lengths.min(initial=0) >= 0 else lengths >= 0
    validity = None if known is None else _bits(known)
    if sent.endswith("[]"):
        return _lists(column, rows, lengths, validity, parts[1])
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(np.maximum(lengths, 0), out=offsets[1:])
    plain = pa.binary() if sent == "bytea" else pa.string()
    found = pa.Array.from_buffers(plain, rows, [validity, pa.py_buffer(offsets), pa.py_buffer(parts[1])])
    return found if column.type == plain else pc.cast(found, column.type)


def _numbers(column: PackedColumn, rows: int, parts: Sequence[bytes]) -> pa.Array:
    sent = column.sent
    stored = np.frombuffer(parts[0], STORED[sent])
    if len(stored) != rows:
        raise ColumnTypeError(f"A packed block has {len(stored)} values of column {column.name!r} for {rows} rows.")
    numbers: Array = stored.astype(stored.dtype.newbyteorder("="))
    known = np.frombuffer(parts[1], np.uint8).astype(bool) if len(parts) > 1 and parts[1] else None
    if sent in NULLS and column.nullable:
        bits = numbers.view(np.uint64 if sent == "float8" else np.uint32)
        gaps = bits == int(NULLS[sent], 16)
        known = ~gaps if gaps.any() else None
    if sent in EPOCH:
        numbers = numbers + numbers.dtype.type(EPOCH[sent])
    if sent == "bool":
        return pa.array(numbers.astype(bool), mask=None if known is None else ~known)
    return pa.Array.from_buffers(column.type, rows, [None if known is None else _bits(known), pa.py_buffer(numbers)])


def _lists(column: PackedColumn, rows: int, lengths: Array, validity: Any, data: bytes) -> pa.Array:
    """Lists of numbers; those of one length and without NULLs, as nearly always, by one view."""
    stored = np.dtype(STORED[column.sent[:-2]])
    width = int(lengths[0]) if rows else 0
    step = _HEADER + width * (4 + stored.itemsize)
    plain = rows > 0 and width > 0 and bool((lengths == width).all()) and len(data) == rows * step
    if plain:
        table = np.frombuffer(data, np.uint8).reshape(rows, step)
        plain = not table[:, 4:8].any()  # no array says that it has NULLs
    if plain:
        fields = table[:, _HEADER:].reshape(rows, width, 4 + stored.itemsize)[:, :, 4:]
        values: Any = np.ascontiguousarray(fields).view(stored).astype(stored.newbyteorder("=")).reshape(-1)
        inner = pa.Array.from_buffers(column.type.value_type, rows * width, [None, pa.py_buffer(values)])
    else:
        inner = pa.array(_elements(data, stored), column.type.value_type)
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(np.maximum(lengths, 0), out=offsets[1:])
    return pa.Array.from_buffers(column.type, rows, [validity, pa.py_buffer(offsets)], children=[inner])


def _elements(data: bytes, stored: np.dtype[Any]) -> list[Any]:
    """Element by element: arrays that differ in length or have NULLs."""
    found: list[Any] = []
    place = 0
    while place < len(data):
        dimensions = int.from_bytes(data[place : place + 4], "big")
        sizes = [int.from_bytes(data[place + 12 + 8 * n : place + 16 + 8 * n], "big") for n in range(dimensions)]
        place += 12 + 8 * dimensions
        for _ in range(int(np.prod(sizes)) if sizes else 0):
            length = int.from_bytes(data[place : place + 4], "big", signed=True)
            place += 4
            found.append(None if length < 0 else np.frombuffer(data, stored, 1, place)[0].item())
            place += max(length, 0)
    return found


def _bits(known: Array) -> pa.Buffer:
    return pa.py_buffer(np.packbits(known, bitorder="little"))
