"""Engines by the addresses that tables have."""

from __future__ import annotations

from braidwater.engines.base import Engine
from braidwater.engines.local.engine import LocalEngine
from braidwater.errors import OptionError
from braidwater.tables.address import POSTGRES, SPARK, split_address


def engine_at(address: str, workers: int | None = None) -> Engine:
    """The engine at ``local``, ``postgresql://USER@HOST/DATABASE``, ``spark://HOST:PORT``, ``spark://local[4]`` or
    ``sc://HOST:PORT``; an address of a table there (``…::TABLE``) is one too. `workers` is how many run at a time.

    Those of a server and of Spark have sessions: close them (``engine.close()``).

    >>> engine_at("local", workers=1).name
    'local'
    """
    if address == "local":
        return LocalEngine(workers)
    server, _ = split_address(address)
    if address.startswith(POSTGRES):
        from braidwater.engines.postgres import PostgresEngine

        return PostgresEngine(server, workers)
    if address.startswith(SPARK):
        from braidwater.engines.spark import SparkEngine
        from braidwater.tables.spark_session import session_at

        return SparkEngine(session_at(server), workers)
    raise OptionError("engine", address, "local, postgresql://…, spark://… or sc://…")
