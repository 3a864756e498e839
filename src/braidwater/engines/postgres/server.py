"""The statements in which servers differ: PostgreSQL's. `greenplum` has Greenplum's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql

from braidwater.engines.postgres.form import PackedColumn
from braidwater.engines.postgres.form_sql import block_expression
from braidwater.tables.postgres import PostgresTable

SCHEMA = "braidwater"
# A parallel scan shares out pages, and a block is a pointer of some bytes there: filled up, one or two blocks take a page
_PADDING = 3900


class PostgresServer:
    """PostgreSQL, and what its statements are."""

    name = "PostgreSQL"
    oldest = 150000  # as `server_version` has it
    has_segments = False  # whether `facts` asks all workers at once, and not the session that it runs in

    def how_to_get_python(self, version: int) -> str:
        """What to do where PL/Python is missing; `version` as `server_version` has it."""
        return f"apt-get install postgresql-plpython3-{version // 10000}"

    def create_blocks(self, place: sql.Identifier) -> sql.Composed:
        """Make an empty table of packed blocks."""
        return _CREATE.format(place=place, padding=sql.Literal("x" * _PADDING), where=sql.SQL(self._distributed))

    _distributed = ""

    def packing_query(
        self,
        table: PostgresTable,
        columns: Sequence[PackedColumn],
        source: sql.Composable,
        pages: int,
        step: int,
        where: tuple[int, int | None] = (0, None),
    ) -> sql.Composed:
        """The SELECT that makes (number, rows, data) of each `step` of the `pages` of `source`; empty ones make nothing.

        `where` are the pages to take, the last one left out.
        """
        end = max(pages if where[1] is None else where[1], where[0] + 1)
        return _PACK.format(
            step=sql.Literal(step),
            first=sql.Literal(where[0]),
            last=sql.Literal(end - 1),
            end=sql.Literal(end),
            block=sql.SQL(block_expression(table, columns).sql("postgres")),
            source=source,
        )

    def aggregate(self, blocks: sql.Identifier) -> sql.Composed:
        """The SELECT of one row for each part of a pass that the server merges itself; its parameter is the request."""
        return sql.SQL("SELECT {}.aggregate(number, rows, data, %b) FROM {}").format(sql.Identifier(SCHEMA), blocks)

    def facts(self) -> sql.Composed:
        """The SELECT of what each segment sees, as JSON."""
        return sql.SQL("SELECT {}.facts()").format(sql.Identifier(SCHEMA))


def server_of(session: psycopg.Connection[Any]) -> PostgresServer:
    """What kind of server a session is of."""
    row = session.execute("SELECT version()").fetchone()
    return of_version("" if row is None else str(row[0]))


@lru_cache
def of_version(version: str) -> PostgresServer:
    """The kind of server whose ``version()`` is this text.

    >>> of_version("PostgreSQL 15.6 (Debian 15.6-0+deb12u1) on x86_64-pc-linux-gnu").name
    'PostgreSQL'
    >>> of_version("PostgreSQL 12.12 (Greenplum Database 7.1.0 build commit:e7c2b1) on x86_64-pc-linux-gnu").name
    'Greenplum'
    """
    from braidwater.engines.postgres.greenplum import Greenplum

    return Greenplum() if "Greenplum Database" in version else PostgresServer()


_CREATE = sql.SQL(
    "CREATE UNLOGGED TABLE {place} (number int4 NOT NULL, rows int4 NOT NULL, data bytea[] NOT NULL, "
    "padding text NOT NULL DEFAULT {padding}){where}; "
    "ALTER TABLE {place} ALTER data SET STORAGE EXTERNAL, ALTER padding SET STORAGE PLAIN, SET (parallel_workers = 64)"
)
_PACK = sql.SQL(
    "SELECT (g / {step})::int4 AS number, p.rows, p.data "
    "FROM generate_series({first}, {last}, {step}) AS g CROSS JOIN LATERAL "
    "(SELECT count(*)::int4 AS rows, {block} AS data FROM {source} "
    "WHERE ctid >= format('(%s,0)', g)::tid AND ctid < format('(%s,0)', least(g + {step}, {end}))::tid) AS p WHERE p.rows > 0"
)
