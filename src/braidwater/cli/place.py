"""The engine that a command names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def place_of(address: str | None, workers: int | None = None) -> Iterator[dict[str, Any]]:
    """The argument ``engine`` of what runs at an address, which is opened meanwhile; none where no address is named."""
    if address is None:
        yield {}
        return
    from braidwater.engines import engine_at

    with engine_at(address, workers) as engine:
        yield {"engine": engine}
