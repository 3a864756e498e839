"""The PostgreSQL engine: aggregates run inside the server, over blocks that it has packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from braidwater.extras import needed_for

if TYPE_CHECKING:
    from braidwater.engines.postgres.engine import PostgresEngine

__all__ = ["PostgresEngine"]


def __getattr__(name: str) -> Any:
    """`PostgresEngine` when it is first used: the server imports this package too, and needs no client of a server."""
    if name == "PostgresEngine":
        with needed_for("The PostgreSQL engine"):
            from braidwater.engines.postgres.engine import PostgresEngine

        return PostgresEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
