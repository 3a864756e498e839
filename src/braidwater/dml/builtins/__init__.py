"""The built-in functions of the language."""

from braidwater.dml.builtins import (
    aggregates,
    casts,
    convolution,
    files,
    frames,
    linear_algebra,
    lists,
    mapping,
    mathematics,
    matrices,
    output,
    sizes,
    statistics,
    transform,
)
from braidwater.dml.builtins.base import BUILTINS, Builtin, Caller

__all__ = [
    "BUILTINS",
    "Builtin",
    "Caller",
    "aggregates",
    "casts",
    "convolution",
    "files",
    "frames",
    "linear_algebra",
    "lists",
    "mapping",
    "mathematics",
    "matrices",
    "output",
    "sizes",
    "statistics",
    "transform",
]
