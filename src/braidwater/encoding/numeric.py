"""Numbers, stored in the narrowest type that loses nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from braidwater.blocks.arrow import null_mask, numpy_of
from braidwater.blocks.base import Array, BlockColumn
from braidwater.encoding.base import (
    FITTED,
    Coding,
    ColumnEncoder,
    ColumnFacts,
    Encoded,
    FittedColumn,
    check_choice,
)
from braidwater.errors import ColumnTypeError, InfiniteValueError, NullValueError

NULLS = ("refuse", "drop", "mean", "mode")
_CHOICES = "'drop', 'mean', 'mode' or a number"


@dataclass(frozen=True)
class Numeric(ColumnEncoder):
    """A number a row.

    `nulls` says what happens to NULLs (and to NaNs of a floating column): ``"refuse"``, ``"drop"`` the row, take the
    ``"mean"`` or the ``"mode"`` of the rows that have a value, or a constant number. Where it puts a value in, and the
    column has NULLs when it is fitted, `indicator` adds a column ``x is null`` of zeros and ones.
    `infinities` are refused, or treated as NULLs (``"null"``). `standardise` centres to mean 0 and scales to deviation 1.
    """

    nulls: Literal["refuse", "drop", "mean", "mode"] | float = "refuse"
    indicator: bool = True
    infinities: Literal["refuse", "null"] = "refuse"
    standardise: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.nulls, (int, float)):
            check_choice("nulls", self.nulls, NULLS, ", or a number to put in")
        check_choice("infinities", self.infinities, ("refuse", "null"))

    def needs(self, type: pa.DataType) -> frozenset[str]:
        needed = set()
        if pa.types.is_integer(type):
            needed |= {"minimum", "maximum"}
        if self.nulls not in ("refuse", "drop"):
            needed |= {"nulls"} | ({str(self.nulls)} if isinstance(self.nulls, str) else set())
        if self.standardise:
            needed |= {"mean", "deviation"}
        return frozenset(needed)

    def fit(self, facts: ColumnFacts, coding: Coding) -> FittedColumn:
        if not is_number(facts.type):
            raise ColumnTypeError(
                f"Column {facts.name!r} is {facts.type}, not a number. Cast it in a SELECT, or encode it otherwise."
            )
        fill = None
        if self.nulls not in ("refuse", "drop"):
            found = (
                {"mean": facts.mean, "mode": facts.mode}.get(self.nulls, self.nulls)
                if isinstance(self.nulls, str)
                else self.nulls
            )
            if found is None:
                raise ColumnTypeError(
                    f"Column {facts.name!r} has NULLs only, so there is no {self.nulls} to put in. Exclude it."
                )
            fill = float(found)
        return FittedNumeric(
            facts.name,
            dtype=_narrowest(facts, fill),
            policy="fill" if fill is not None else str(self.nulls),
            fill=fill,
            indicator=fill is not None and self.indicator and bool(facts.nulls),
            infinities=self.infinities,
            center=facts.mean if self.standardise else None,
            scale=(facts.deviation or 1.0) if self.standardise else None,
        )


@FITTED.add
@dataclass(frozen=True)
class FittedNumeric(FittedColumn):
    """`Numeric`, fitted: the stored type and the value that stands for NULLs are known."""

    dtype: str = "float64"
    policy: str = "refuse"
    fill: float | None = None
    indicator: bool = False
    infinities: str = "refuse"
    center: float | None = None
    scale: float | None = None

    @property
    def stored(self) -> tuple[BlockColumn, ...]:
        main = BlockColumn(self.column, self.dtype)
        return (main, BlockColumn(f"{self.column} is null", "uint8")) if self.indicator else (main,)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.stored)

    def affine(self) -> tuple[Array, Array] | None:
        if self.center is None or self.scale is None:
            return None
        center, scale = np.zeros(len(self.names)), np.ones(len(self.names))
        center[0], scale[0] = self.center, self.scale
        return center, scale

    def widened(self) -> FittedColumn:
        return replace(self, dtype=self.dtype if self.dtype == "float32" else "float64")

    def encode(self, values: pa.Array) -> Encoded:
        numbers, missing = self._numbers(values)
        arrays = {}
        if missing is not None:
            if self.policy == "refuse":
                raise NullValueError(self.column, int(missing.sum()), len(numbers), _CHOICES)
            numbers = np.where(missing, 0 if self.fill is None else self.fill, numbers)
        arrays[self.column] = self._stored(numbers)
        if self.indicator:
            arrays[f"{self.column} is null"] = (
                np.zeros(len(numbers), np.uint8) if missing is None else missing.astype(np.uint8)
            )
        return Encoded(arrays, missing if self.policy == "drop" else None)

    def _numbers(self, values: pa.Array) -> tuple[Array, Array | None]:
        """The values as a numpy array, and where they are missing. One sum finds out whether a closer look is needed."""
        if pa.types.is_decimal(values.type) or pa.types.is_float16(values.type):
            values = pc.cast(values, pa.float64() if pa.types.is_decimal(values.type) else pa.float32())
        missing = null_mask(values)
        if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
            filled = values if missing is None else pc.fill_null(values, 0)
            return numpy_of(filled), missing
        numbers = numpy_of(values)
        with np.errstate(all="ignore"):
            if missing is None and np.isfinite(numbers.sum()):
                return numbers, None
        infinite = np.isinf(numbers)
        if infinite.any():
            if self.infinities == "refuse":
                raise InfiniteValueError(
                    f"Column {self.column!r} has {int(infinite.sum())} infinities in {len(numbers)} rows. "
                    "Choose infinities='null', or leave the rows out with a SELECT."
                )
            numbers = np.where(infinite, np.nan, numbers)
        missing = np.isnan(numbers)
        return numbers, missing if missing.any() else None

    def _stored(self, numbers: Array) -> Array:
        if numbers.dtype.kind in "iu" and self.dtype == "float64" and numbers.size:
            largest = max(abs(int(numbers.min())), abs(int(numbers.max())))
            if largest > 2**53:
                raise ColumnTypeError(
                    f"Column {self.column!r} holds the integer {largest}, which a double cannot tell from its neighbours. "
                    "Encode it as Categorical() or Hashed(), or cast it to DOUBLE in a SELECT if rounding is meant."
                )
        return numbers.astype(self.dtype, copy=False)


def is_number(type: pa.DataType) -> bool:
    """Whether a column of this type holds one number a row."""
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type))


def _narrowest(facts: ColumnFacts, fill: float | None) -> str:
    if pa.types.is_float32(facts.type) or pa.types.is_float16(facts.type):
        return "float32"
    bounds: list[Any] = [facts.minimum, facts.maximum]
    if not pa.types.is_integer(facts.type) or None in bounds or (fill is not None and fill != int(fill)):
        return "float64"
    if fill is not None:
        bounds.append(int(fill))
    for dtype in ("int8", "int16", "int32"):
        limits = np.iinfo(dtype)
        if min(bounds) >= limits.min and max(bounds) <= limits.max:
            return dtype
    return "float64"
