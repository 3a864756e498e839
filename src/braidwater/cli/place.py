"""The engine that a command names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from braidwater.errors import UserError


@contextmanager
def place_of(address: str | None, table: str, workers: int | None = None) -> Iterator[dict[str, Any]]:
    """The argument ``engine`` of what runs over a table at an address, which is opened meanwhile; none where no address is named.

    Raises UserError for a server and a table that does not lie in one: the work would be done here without a word.
    """
    if address is None:
        yield {}
        return
    from braidwater.engines import engine_at
    from braidwater.tables.address import POSTGRES

    if address.startswith(POSTGRES) and not table.startswith(POSTGRES):
        raise UserError(
            f"{table!r} does not lie in a PostgreSQL server, which could not work on it; leave out --engine."
        )

    with engine_at(address, workers) as engine:
        yield {"engine": engine}
