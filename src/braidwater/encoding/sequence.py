"""Sequences of tokens: lists of numbers of a vocabulary, of a length that differs from row to row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from braidwater.blocks.arrow import numpy_of
from braidwater.blocks.base import Array
from braidwater.encoding.base import FITTED, Coding, ColumnEncoder, ColumnFacts, FittedColumn, check_choice
from braidwater.encoding.wide import FittedWide, is_list
from braidwater.errors import ColumnTypeError, NullValueError, OptionError


@dataclass(frozen=True)
class Sequence(ColumnEncoder):
    """A list of token numbers a row, filled up with `pad` behind its end.

    Blocks hold every row as long as the longest of the table, or `length`; a mini-batch is as long as its longest row, and
    its rows are about as long as each other. `longer` says what becomes of rows beyond `length`: refused, or cut off behind
    it. `dtype` is the type they are stored in; modules get int64.
    """

    length: int | None = None
    pad: int = 0
    longer: Literal["refuse", "cut"] = "refuse"
    dtype: str = "int32"
    nulls: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 1:
            raise OptionError("length", self.length, "at least 1 token")
        check_choice("longer", self.longer, ("refuse", "cut"))
        check_choice("dtype", self.dtype, ("uint8", "int16", "int32"))
        check_choice("nulls", self.nulls, ("refuse", "drop"))

    def needs(self, type: pa.DataType) -> frozenset[str]:
        return frozenset({"size"}) if self.length is None and not pa.types.is_fixed_size_list(type) else frozenset()

    def fit(self, facts: ColumnFacts, coding: Coding) -> FittedColumn:
        if not is_list(facts.type) or not pa.types.is_integer(facts.type.value_type):
            raise ColumnTypeError(f"Column {facts.name!r} is {facts.type}, not a list of whole numbers.")
        fixed = facts.type.list_size if pa.types.is_fixed_size_list(facts.type) else None
        length = self.length or fixed or facts.maximum
        if not length:
            raise ColumnTypeError(f"Column {facts.name!r} has only empty lists. Exclude it.")
        return FittedSequence(facts.name, (int(length),), self.dtype, self.nulls, None, self.pad, self.longer)


@FITTED.add
@dataclass(frozen=True)
class FittedSequence(FittedWide):
    """`Sequence`, fitted: stored like a vector of `shape` ``(length,)``."""

    pad: int = 0
    longer: str = "refuse"

    def _list(self, values: pa.Array) -> Array:
        length = self.shape[0]
        lengths = numpy_of(pc.list_value_length(values)).astype(np.int64)
        longest = int(lengths.max(initial=0))
        if longest > length and self.longer == "refuse":
            raise ColumnTypeError(
                f"Column {self.column!r} has a list of {longest} tokens where {length} are the most. Encode it as "
                f"Sequence(length={longest}), or Sequence(length={length}, longer='cut') to cut it off."
            )
        flat = values.flatten()
        if flat.null_count:
            raise NullValueError(self.column, flat.null_count, len(values), "'drop' does not apply inside a list")
        tokens = numpy_of(flat)
        info = np.iinfo(self.dtype)
        if len(tokens) and not info.min <= int(tokens.min()) <= int(tokens.max()) <= info.max:
            strange = int(tokens.max() if tokens.max() > info.max else tokens.min())
            raise ColumnTypeError(
                f"Column {self.column!r} holds token {strange}, which {self.dtype} cannot. Give Sequence another dtype."
            )
        found = np.full((len(values), max(length, longest)), self.pad, self.dtype)
        found[np.arange(found.shape[1]) < lengths[:, None]] = tokens
        return found[:, :length]
