"""From Arrow arrays to numpy arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from braidwater.blocks.base import Array


def numpy_of(values: pa.Array) -> Array:
    """The numbers (or truth values, as uint8) of an Arrow array, without a copy where there are no NULLs.

    NULLs become NaN in a floating array; other types must have none. Not `Array.to_numpy`: that imports pandas wherever it
    is installed, which costs half a second.
    """
    if pa.types.is_boolean(values.type):
        values = pc.cast(values, pa.uint8())
    if values.null_count:
        if not pa.types.is_floating(values.type):
            raise ValueError(f"{values.null_count} NULLs in an array of {values.type}")
        values = pc.fill_null(values, np.nan)
    if len(values) == 0:
        return np.empty(0, values.type.to_pandas_dtype())
    return np.from_dlpack(values)


def null_mask(values: pa.Array) -> Array | None:
    """True where an Arrow array is NULL; None when it has none."""
    return None if values.null_count == 0 else numpy_of(values.is_null()).astype(bool)
