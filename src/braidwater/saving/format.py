"""What a saved model looks like on disk: names, versions, checksums, and numbers that JSON has no word for."""

from __future__ import annotations

import hashlib
import json
import math
from importlib.metadata import PackageNotFoundError, version
from typing import Any

FORMAT = 1  # raised when an older braidwater could misread what a newer one writes
DOCUMENT = "model.json"
WEIGHTS = "weights-{digest}.safetensors"
WEIGHTS_PATTERN = "weights-*.safetensors"
_FLOAT = "$float"  # {"$float": "nan"}: strict JSON has neither NaN nor infinities


def braidwater_version() -> str:
    """The installed version, or ``unknown`` where the package runs from a folder that was never installed."""
    try:
        return version("braidwater")
    except PackageNotFoundError:
        return "unknown"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def checksum_of(record: dict[str, Any]) -> str:
    """The checksum of a ``model.json``: of all its entries but the checksum itself, in their canonical text."""
    rest = {name: value for name, value in record.items() if name != "checksum"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def to_plain(value: Any) -> Any:
    """`value` as strict JSON: numpy scalars and arrays become numbers and lists, a NaN ``{"$float": "nan"}``.

    >>> to_plain({"loss": float("nan"), "shape": (8, 8)})
    {'loss': {'$float': 'nan'}, 'shape': [8, 8]}
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: repr(float(value))}
    if isinstance(value, dict):
        return {str(name): to_plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return to_plain(value.tolist())
    raise TypeError(f"A model document holds plain values only, and not a {type(value).__name__}: {value!r}.")


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain` for what JSON can tell apart (tuples come back as lists)."""
    if isinstance(value, dict):
        if set(value) == {_FLOAT}:
            return float(value[_FLOAT])
        return {name: from_plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [from_plain(inner) for inner in value]
    return value
