"""Categories without a dictionary: a hash function picks one of a fixed number of columns."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from braidwater.blocks.arrow import null_mask, numpy_of
from braidwater.blocks.base import BlockColumn
from braidwater.encoding.base import (
    FITTED,
    Coding,
    ColumnEncoder,
    ColumnFacts,
    Encoded,
    FittedColumn,
    check_choice,
)
from braidwater.encoding.categorical import code_type
from braidwater.errors import NullValueError, OptionError


@dataclass(frozen=True)
class Hashed(ColumnEncoder):
    """One of any number of values, in one of `buckets` columns (the hashing trick, Weinberger et al., ICML 2009).

    Needs no look at the table and takes any value later. Values of one bucket cannot be told apart: with n values about
    n² / (2 · buckets) pairs collide. The hash is CRC-32 of the value's text, the same on every machine.
    `nulls`: ``"refuse"``, ``"drop"`` the row, or a ``"category"`` of their own.
    """

    buckets: int = 1024
    nulls: Literal["refuse", "drop", "category"] = "refuse"

    def __post_init__(self) -> None:
        if not 2 <= self.buckets <= 2**24:
            raise OptionError("buckets", self.buckets, "from 2 to 16777216")
        check_choice("nulls", self.nulls, ("refuse", "drop", "category"))

    def fit(self, facts: ColumnFacts, coding: Coding) -> FittedColumn:
        return FittedHashed(facts.name, self.buckets, self.nulls)


@FITTED.add
@dataclass(frozen=True)
class FittedHashed(FittedColumn):
    """`Hashed`, fitted: which only means that it knows its column."""

    buckets: int = 1024
    policy: str = "refuse"

    @property
    def skip(self) -> int:
        return 0

    @property
    def stored(self) -> tuple[BlockColumn, ...]:
        return (BlockColumn(self.column, code_type(self.buckets + 1)),)

    @property
    def names(self) -> tuple[str, ...]:
        buckets = tuple(f"{self.column}[hash {bucket}]" for bucket in range(self.buckets))
        return (*buckets, f"{self.column}[NULL]") if self.policy == "category" else buckets

    def encode(self, values: pa.Array) -> Encoded:
        missing = null_mask(values)
        if missing is not None and self.policy == "refuse":
            raise NullValueError(self.column, int(missing.sum()), len(values), "'drop' or 'category'")
        coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        texts = coded.dictionary.to_pylist()
        hashes = np.array([zlib.crc32(str(text).encode()) % self.buckets for text in texts] or [0], np.int64)
        codes = hashes[numpy_of(pc.fill_null(coded.indices, 0))]
        if missing is not None:
            codes = np.where(missing, self.buckets, codes)
        return Encoded({self.column: codes.astype(self.stored[0].dtype)}, missing if self.policy == "drop" else None)
