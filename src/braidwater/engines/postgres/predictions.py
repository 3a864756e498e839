"""Predictions written by the server itself: rows that a function makes are inserted where they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
from psycopg import sql

from braidwater.engines.postgres.form_sql import block_expression, packed_columns
from braidwater.engines.postgres.packing import _source, pages_of_a_block
from braidwater.engines.postgres.server import SCHEMA
from braidwater.engines.postgres.sessions import of_server, open_session, place_of, request_of
from braidwater.tables.computed import ComputedTable, Streams
from braidwater.tables.postgres import PostgresTable
from braidwater.tables.postgres_types import table_of

Function = Callable[[pa.RecordBatch], pa.RecordBatch]
_TYPES = {pa.float64(): "float8", pa.float32(): "float4", pa.int16(): "int2", pa.int32(): "int4", pa.int64(): "int8",
          pa.bool_(): "bool", pa.string(): "text"}  # fmt: skip


class ServerComputedTable(ComputedTable):
    """A table of the server with columns that a function adds. Read, it is computed here; `write_table` into the same
    database has the server compute it: no row leaves it, and its own columns keep their types.
    """

    def __init__(
        self, table: PostgresTable, function: Function, schema: pa.Schema, *, name: str, place: str, streams: Streams
    ) -> None:
        super().__init__(table, function, schema, name=name, streams=streams)
        self._rows = table
        self._compute = function
        self._place = place

    def write_within(self, address: str, name: str) -> int | None:
        """Write the rows as the table `name` of the database at `address`; None where they lie in another one, or the
        function does more than add columns of plain types behind the table's own.
        """
        own = self._rows.schema
        added = list(self.schema)[len(own) :]
        plain = list(self.schema)[: len(own)] == list(own) and all(field.type in _TYPES for field in added)
        if not added or not plain:
            return None
        with open_session(address, application="braidwater") as session:
            if place_of(session) != self._place:
                return None
            try:
                with session.transaction():
                    return self._write(session, name, added)
            except psycopg.Error as error:
                raise of_server(error) from error

    def _write(self, session: psycopg.Connection[Any], name: str, added: list[pa.Field]) -> int:
        table = self._rows
        columns = packed_columns(table, table.column_names)
        relation = table.relation()
        source, pages = _source(session, table, relation)
        request = request_of((columns, self._compute, [field.name for field in added]))
        target = table_of(name)
        place = sql.Identifier(*([target.db] if target.db else []), target.name)
        fresh = sql.Identifier(*([target.db] if target.db else []), f"braidwater_{uuid4().hex}")
        lists = [
            sql.SQL("(b.added[{}])::{}[]").format(sql.Literal(n + 1), sql.SQL(_TYPES[field.type]))
            for n, field in enumerate(added)
        ]
        names = [sql.Identifier(column) for column in [*table.column_names, *(field.name for field in added)]]
        statement = _WRITE.format(
            fresh=fresh,
            names=sql.SQL(", ").join(names),
            step=sql.Literal(pages_of_a_block(pages, relation.bytes if relation else 0)),
            last=sql.Literal(max(pages - 1, 0)),
            schema=sql.Identifier(SCHEMA),
            request=sql.Literal(request),
            block=sql.SQL(block_expression(table, columns).sql("postgres")),
            source=source,
            lists=sql.SQL(", ").join(lists),
        )
        count = session.execute(statement).rowcount
        session.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(place))
        session.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(fresh, sql.Identifier(target.name)))
        return count


_WRITE = sql.SQL(
    "CREATE TABLE {fresh} AS SELECT r.* FROM generate_series(0, {last}, {step}) AS g CROSS JOIN LATERAL "
    "(SELECT array_agg(t) AS whole, {schema}.added_columns({request}, count(*)::int4, {block}) AS added FROM {source} AS t "
    "WHERE ctid >= format('(%s,0)', g)::tid AND ctid < format('(%s,0)', g + {step})::tid) AS b "
    "CROSS JOIN LATERAL unnest(b.whole, {lists}) AS r({names})"
)
