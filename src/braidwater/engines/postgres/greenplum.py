"""Greenplum 7: what it does otherwise than the PostgreSQL 12 that it is made of, and than later ones.

Rows lie on segments, each a server of its own, and a row's place (`ctid`) is one within its segment (`gp_segment_id`). There are
no scans of ranges of pages, so rows are packed by grouping on segment and page in one scan. The blocks are spread by their
numbers (`DISTRIBUTED BY`); the aggregate runs on the segments, whose partial states travel.

These statements are tested as text. They have never run on a Greenplum server.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from braidwater.engines.postgres.form import PackedColumn
from braidwater.engines.postgres.form_sql import block_expression
from braidwater.engines.postgres.server import SCHEMA, PostgresServer
from braidwater.errors import UnsupportedError
from braidwater.tables.postgres import PostgresTable


class Greenplum(PostgresServer):
    """Greenplum, and what its statements are."""

    name = "Greenplum"
    oldest = 120000
    has_segments = True
    _distributed = " DISTRIBUTED BY (number)"

    def how_to_get_python(self, version: int) -> str:
        # it comes with the server, under $GPHOME, and all hosts must have the packages of the same version
        return "plpython3u comes with Greenplum, unless it was built without Python 3; install packages on all hosts (gpssh)"

    def packing_query(
        self,
        table: PostgresTable,
        columns: Sequence[PackedColumn],
        source: sql.Composable,
        pages: int,
        step: int,
        where: tuple[int, int | None] = (0, None),
    ) -> sql.Composed:
        if where != (0, None):
            raise UnsupportedError("Greenplum has no scans of ranges of pages; pack the table as a whole.")
        # all aggregates of a group see its rows in one order, so the columns of a block go together
        return _PACK.format(
            step=sql.Literal(step),
            block=sql.SQL(block_expression(table, columns).sql("postgres")),
            source=source,
        )

    def aggregate(self, blocks: sql.Identifier) -> sql.Composed:
        # COMBINEFUNC lets the planner aggregate on each segment first; one group a segment, so that it merges nothing more
        schema = sql.Identifier(SCHEMA)
        return sql.SQL("SELECT {}.aggregate(number, rows, data, %b) FROM {} GROUP BY gp_segment_id").format(
            schema, blocks
        )

    def facts(self) -> sql.Composed:
        # gp_id has a row on every segment; gp_dist_random reads it there
        return sql.SQL("SELECT {}.facts() FROM gp_dist_random('gp_id')").format(sql.Identifier(SCHEMA))


_PACK = sql.SQL(
    "SELECT (row_number() OVER (ORDER BY p.segment, p.part) - 1)::int4 AS number, p.rows, p.data FROM "
    "(SELECT gp_segment_id AS segment, ((ctid::text::point)[0])::bigint / {step} AS part, count(*)::int4 AS rows, "
    "{block} AS data FROM {source} GROUP BY 1, 2) AS p"
)
