"""Arrays in memory as a table and the encoder that turns it into blocks, so that they take the way of every other table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from braidwater.blocks.base import Array, BlockColumn, BlockSchema
from braidwater.encoding.design import Design, NumberTerm, Term, WideTerm, design_of
from braidwater.tables import Table, table

# From here on a block keeps the rows as they lie: so many columns of a handful of rows each cost more than they save
WIDE = 256
_TILE = 1024  # rows that stay in the first caches while they are turned into columns


@dataclass(frozen=True)
class ArrayEncoder:
    """Turns the rows of `array_table` into blocks. `names` are those of the features, `dtype` their type.

    `label`, `weight` and `offset` are the stored types of those columns, None where there are none.
    """

    names: tuple[str, ...]
    dtype: str
    label: str | None = None
    weight: str | None = None
    offset: str | None = None

    @property
    def columns(self) -> list[str]:
        return ["features", *(role for role in ("label", "weight", "offset") if getattr(self, role) is not None)]

    @cached_property
    def block_schema(self) -> BlockSchema:
        width = len(self.names)
        features = (
            [BlockColumn("features", self.dtype, (width,))]
            if width > WIDE
            else [BlockColumn(f"x{j}", self.dtype) for j in range(width)]
        )
        roles = [BlockColumn(role, getattr(self, role)) for role in self.columns[1:]]
        # features first: those of one type stay neighbours whatever the other columns are
        return BlockSchema.ordered([*features, *roles])

    @property
    def key(self) -> str:
        return repr(self)

    @cached_property
    def design(self) -> Design:
        width = len(self.names)
        term: Term = (
            WideTerm("features", 0, width) if width > WIDE else NumberTerm(tuple(f"x{j}" for j in range(width)), 0)
        )
        roles = {role: role for role in self.columns[1:]}
        return design_of([term] if width else [], self.names, **roles)

    def encode(self, batch: pa.RecordBatch) -> dict[str, Array]:
        width = len(self.names)
        rows = batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, width)
        arrays: dict[str, Array] = {}
        if width > WIDE:
            arrays["features"] = rows
        else:
            turned = np.empty((width, len(rows)), self.dtype)
            for begin in range(0, len(rows), _TILE):
                turned[:, begin : begin + _TILE] = rows[begin : begin + _TILE].T
            arrays = {f"x{j}": turned[j] for j in range(width)}
        for role in self.columns[1:]:
            arrays[role] = batch.column(batch.schema.get_field_index(role)).to_numpy(zero_copy_only=False)
        return arrays


def array_table(
    features: Array,
    names: tuple[str, ...],
    *,
    label: Array | None = None,
    weight: Array | None = None,
    offset: Array | None = None,
) -> tuple[Table, ArrayEncoder]:
    """A table of `features` ``(rows, width)`` (float32 or float64; not copied where C-contiguous), and its encoder."""
    rows, width = features.shape
    flat = pa.array(np.ascontiguousarray(features).reshape(-1))
    columns: dict[str, pa.Array] = {"features": pa.FixedSizeListArray.from_arrays(flat, width)}
    types: dict[str, str] = {}
    for role, values in (("label", label), ("weight", weight), ("offset", offset)):
        if values is not None:
            columns[role] = pa.array(np.ascontiguousarray(values))
            types[role] = values.dtype.name
    encoder = ArrayEncoder(names, features.dtype.name, **types)
    return table(pa.table(columns), name=f"array of {rows} rows"), encoder
