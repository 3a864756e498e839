"""Columns that hold many numbers a row: vectors and images."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
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
from braidwater.errors import ColumnTypeError, InfiniteValueError, NullValueError, OptionError


@dataclass(frozen=True)
class Vector(ColumnEncoder):
    """A list of numbers, as long in every row. `size` need only be given where the type does not say (list, not array)."""

    size: int | None = None
    nulls: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self) -> None:
        check_choice("nulls", self.nulls, ("refuse", "drop"))

    def needs(self, type: pa.DataType) -> frozenset[str]:
        return frozenset({"size"}) if self.size is None and not pa.types.is_fixed_size_list(type) else frozenset()

    def fit(self, facts: ColumnFacts, coding: Coding) -> FittedColumn:
        if not is_list(facts.type):
            raise ColumnTypeError(f"Column {facts.name!r} is {facts.type}, not a list of numbers.")
        size = facts.type.list_size if pa.types.is_fixed_size_list(facts.type) else self.size or facts.maximum
        if not size:
            raise ColumnTypeError(f"Column {facts.name!r} has only empty lists. Exclude it.")
        return FittedWide(facts.name, (int(size),), _element(facts.type.value_type), self.nulls)


@dataclass(frozen=True)
class Image(ColumnEncoder):
    """Numbers of a known shape a row: raw bytes (not a compressed picture), or a list, in row-major order.

    `shape` is (channels, height, width) or (height, width), `dtype` the type of a number. Models that take images get
    bytes scaled to the range from 0 to 1, unless `scale` says by what to multiply.
    """

    shape: tuple[int, ...] = ()
    dtype: str = "uint8"
    scale: float | None = None
    nulls: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if not self.shape or min(self.shape) < 1:
            raise OptionError("shape", self.shape, "the sizes of an image, such as (3, 32, 32)")
        check_choice("dtype", self.dtype, ("uint8", "int16", "float32", "float64"))
        check_choice("nulls", self.nulls, ("refuse", "drop"))

    def fit(self, facts: ColumnFacts, coding: Coding) -> FittedColumn:
        if not (is_list(facts.type) or is_bytes(facts.type)):
            raise ColumnTypeError(
                f"Column {facts.name!r} is {facts.type}, which holds no image: it must be bytes or a list of numbers."
            )
        scale = self.scale if self.scale is not None else 1 / 255 if self.dtype == "uint8" else 1.0
        return FittedWide(facts.name, self.shape, self.dtype, self.nulls, scale)


@FITTED.add
@dataclass(frozen=True)
class FittedWide(FittedColumn):
    """`Vector` or `Image`, fitted. `scale` is None for a vector, and what to multiply the stored numbers with for an image."""

    shape: tuple[int, ...] = ()
    dtype: str = "float64"
    policy: str = "refuse"
    scale: float | None = None

    @property
    def stored(self) -> tuple[BlockColumn, ...]:
        return (BlockColumn(self.column, self.dtype, self.shape),)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.column}[{number}]" for number in range(prod(self.shape)))

    def affine(self) -> tuple[Array, Array] | None:
        if self.scale in (None, 1.0):
            return None
        width = prod(self.shape)
        return np.zeros(width), np.full(width, 1 / float(self.scale or 1.0))

    def encode(self, values: pa.Array) -> Encoded:
        missing = null_mask(values)
        if missing is not None:
            if self.policy == "refuse":
                raise NullValueError(self.column, int(missing.sum()), len(values), "'drop'")
            values = values.filter(pa.array(~missing))
        numbers = self._bytes(values) if is_bytes(values.type) else self._list(values)
        if missing is not None:
            spread = np.zeros((len(missing), *self.shape), self.dtype)
            spread[~missing] = numbers
            numbers = spread
        return Encoded({self.column: numbers}, missing)

    def _bytes(self, values: pa.Array) -> Array:
        wanted = prod(self.shape) * np.dtype(self.dtype).itemsize
        lengths = pc.binary_length(values)
        if len(values) and (pc.min(lengths).as_py() != wanted or pc.max(lengths).as_py() != wanted):
            found = pc.min(lengths).as_py() if pc.min(lengths).as_py() != wanted else pc.max(lengths).as_py()
            raise ColumnTypeError(
                f"Column {self.column!r} has a value of {found} bytes; shape {self.shape} of {self.dtype} takes {wanted}."
            )
        if pa.types.is_fixed_size_binary(values.type):
            data, begin = values.buffers()[1], values.offset * wanted
        else:
            plain = values.cast(pa.large_binary())
            offsets = np.frombuffer(plain.buffers()[1], np.int64)
            data, begin = plain.buffers()[2], int(offsets[plain.offset]) if len(plain) else 0
        flat = (
            np.frombuffer(data, np.uint8, count=wanted * len(values), offset=begin)
            if len(values)
            else np.empty(0, np.uint8)
        )
        return flat.view(self.dtype).reshape(len(values), *self.shape)

    def _list(self, values: pa.Array) -> Array:
        width = prod(self.shape)
        if not pa.types.is_fixed_size_list(values.type):
            lengths = pc.list_value_length(values)
            if len(values) and (pc.min(lengths).as_py() != width or pc.max(lengths).as_py() != width):
                found = pc.min(lengths).as_py() if pc.min(lengths).as_py() != width else pc.max(lengths).as_py()
                raise ColumnTypeError(
                    f"Column {self.column!r} has a list of {found} numbers where {width} are expected."
                )
        elif values.type.list_size != width:
            raise ColumnTypeError(
                f"Column {self.column!r} has lists of {values.type.list_size} numbers where {width} are expected."
            )
        flat = values.flatten()
        if flat.null_count:
            raise NullValueError(self.column, flat.null_count, len(values), "'drop' does not apply inside a list")
        numbers = numpy_of(flat)
        if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
            raise InfiniteValueError(
                f"Column {self.column!r} has lists with infinities or NaNs. Leave the rows out with a SELECT."
            )
        return _cast(numbers, self.dtype, self.column).reshape(len(values), *self.shape)


def is_list(type: pa.DataType) -> bool:
    """Whether a column of this type holds lists of numbers."""
    listed = pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type)
    return bool(listed and (pa.types.is_integer(type.value_type) or pa.types.is_floating(type.value_type)))


def is_bytes(type: pa.DataType) -> bool:
    """Whether a column of this type holds bytes."""
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_fixed_size_binary(type))


def _element(type: pa.DataType) -> str:
    narrow: dict[Any, str] = {
        pa.float32(): "float32",
        pa.float16(): "float32",
        pa.uint8(): "uint8",
        pa.int8(): "int8",
        pa.int16(): "int16",
    }
    return narrow.get(type, "float64")


def _cast(numbers: Array, dtype: str, column: str) -> Array:
    cast = numbers.astype(dtype, copy=False)
    if np.dtype(dtype).kind in "iu" and not np.array_equal(cast, numbers):
        strange = numbers[np.flatnonzero(cast != numbers)[0]]
        raise ColumnTypeError(
            f"Column {column!r} holds {strange}, which {dtype} cannot. Give the encoder dtype='float32'."
        )
    return cast
