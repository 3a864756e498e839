"""Truth values, stored in a byte."""

from __future__ import annotations

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
from braidwater.errors import ColumnTypeError, NullValueError


@dataclass(frozen=True)
class Boolean(ColumnEncoder):
    """True is 1, false is 0. `nulls`: ``"refuse"``, ``"drop"`` the row, or the ``"mode"`` with a column ``x is null``."""

    nulls: Literal["refuse", "drop", "mode"] = "refuse"
    indicator: bool = True

    def __post_init__(self) -> None:
        check_choice("nulls", self.nulls, ("refuse", "drop", "mode"))

    def needs(self, type: pa.DataType) -> frozenset[str]:
        return frozenset({"nulls", "mode"} if self.nulls == "mode" else ())

    def fit(self, facts: ColumnFacts, coding: Coding) -> FittedColumn:
        if not pa.types.is_boolean(facts.type):
            raise ColumnTypeError(
                f"Column {facts.name!r} is {facts.type}, not boolean. Compare it in a SELECT, or encode it otherwise."
            )
        fill = bool(facts.mode) if self.nulls == "mode" else None
        return FittedBoolean(facts.name, self.nulls, fill, fill is not None and self.indicator and bool(facts.nulls))


@FITTED.add
@dataclass(frozen=True)
class FittedBoolean(FittedColumn):
    """`Boolean`, fitted."""

    policy: str = "refuse"
    fill: bool | None = None
    indicator: bool = False

    @property
    def stored(self) -> tuple[BlockColumn, ...]:
        main = BlockColumn(self.column, "uint8")
        return (main, BlockColumn(f"{self.column} is null", "uint8")) if self.indicator else (main,)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.stored)

    def encode(self, values: pa.Array) -> Encoded:
        missing = null_mask(values)
        if missing is not None:
            if self.policy == "refuse":
                raise NullValueError(self.column, int(missing.sum()), len(values), "'drop' or 'mode'")
            values = pc.fill_null(values, bool(self.fill))
        arrays = {self.column: numpy_of(values)}
        if self.indicator:
            arrays[f"{self.column} is null"] = (
                np.zeros(len(values), np.uint8) if missing is None else missing.astype(np.uint8)
            )
        return Encoded(arrays, missing if self.policy == "drop" else None)
