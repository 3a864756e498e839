"""The Spark engine: Spark places Python processes, which open the files themselves and talk to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braidwater.engines.spark.engine import SparkEngine

__all__ = ["SparkEngine"]


def __getattr__(name: str) -> Any:
    """`SparkEngine` when it is first used: what runs inside Spark's workers imports this package too."""
    if name == "SparkEngine":
        from braidwater.engines.spark.engine import SparkEngine

        return SparkEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
