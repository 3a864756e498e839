"""Packing: the rows of a table as a table of binary blocks, made once by SQL alone and used again while nothing changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from braidwater.engines.postgres.form import VERSION, PackedColumn
from braidwater.engines.postgres.form_sql import packed_columns
from braidwater.engines.postgres.server import SCHEMA, server_of
from braidwater.errors import TableChangedError
from braidwater.tables.postgres import PostgresTable, Relation

BLOCK_BYTES = 2 * 2**20  # small enough to be shared out, large enough that 60 µs of Python a block are nothing
_HEAP_SHARE = 1.25  # bytes of a row in the table for each byte of its numbers


@dataclass(frozen=True)
class Packed:
    """A table of packed blocks. `blocks` are (number, rows) in their order, each of so many `pages` of the table's;
    `temporary`: nobody could find it again."""

    name: str
    columns: tuple[PackedColumn, ...]
    blocks: tuple[tuple[int, int], ...]
    bytes: int
    version: str
    pages: int
    temporary: bool = False

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(SCHEMA, self.name)

    @property
    def qualified(self) -> str:
        return f'{SCHEMA}."{self.name}"'

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.blocks)


def packed_name(
    table: PostgresTable, relation: Relation, columns: Sequence[PackedColumn], user: str, pages: int
) -> str:
    """The name of the packed blocks of a table: that of whoever packs, since others may not read the rows."""
    what = [
        VERSION,
        relation.oid,
        user,
        [[c.name, c.sent, str(c.type), c.nullable, table.value_text(c.name)] for c in columns],
    ]
    if pages != pages_of_a_block(relation.pages, relation.bytes):
        what.append(pages)
    return f"blocks_{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]}"


def find_packed(
    connection: psycopg.Connection[Any],
    table: PostgresTable,
    names: Sequence[str],
    blocks: int = 1,
    *,
    fingerprint: str | None = None,
) -> Packed | None:
    """The packed blocks of `names` (at least so many `blocks`), where they were packed when the table had this
    `fingerprint`: by default the one that it has now.
    """
    relation = table.relation()
    if relation is None:
        return None
    columns = packed_columns(table, names)
    pages = pages_of_a_block(relation.pages, relation.bytes, blocks)
    name = packed_name(table, relation, columns, connection.info.user, pages)
    return _kept(connection, name, columns, str(fingerprint or table.fingerprint()))


def pack(
    connection: psycopg.Connection[Any],
    table: PostgresTable,
    names: Sequence[str],
    *,
    pages: int | None = None,
    blocks: int = 1,
) -> Packed:
    """Pack the columns `names` of all rows, or find them packed. One transaction: what fails leaves nothing behind.

    `pages` of the table make a block (by default those that hold 2 MB of numbers, and fewer where that is less than so many
    `blocks`).

    Costs one scan and about 10 ns of the server's CPU a byte; takes as many bytes as the numbers. Two that pack the same
    table at the same time do it once: the second waits and finds it done.
    """
    columns = packed_columns(table, names)
    relation = table.relation()
    if relation is None:
        name = f"blocks_of_a_query_{uuid4().hex}"
    else:
        pages = pages or pages_of_a_block(relation.pages, relation.bytes, blocks)
        name = packed_name(table, relation, columns, connection.info.user, pages)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        _sweep(connection)
        before = table.fingerprint()
        found = _kept(connection, name, columns, str(before)) if relation is not None else None
        if found is not None:
            return found
        place = sql.Identifier(SCHEMA, name)
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [SCHEMA]).fetchone() is None:
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(place))
        server = server_of(connection)
        connection.execute(server.create_blocks(place))
        source, held = _source(connection, table, relation)
        step = pages or pages_of_a_block(held, 0, blocks)
        query = server.packing_query(table, columns, source, held, step)
        connection.execute(sql.SQL("INSERT INTO {} (number, rows, data) {}").format(place, query))
        if table.fingerprint() != before:
            raise TableChangedError(f"Table {table.name!r} changed while it was packed. Nothing was kept; run again.")
        made = _blocks(connection, place)
        version = uuid4().hex
        facts = {
            "fingerprint": str(before), "table": table.name, "blocks": len(made), "version": version, "pages": step,
        }  # fmt: skip
        owner = {"session": connection.info.backend_pid} if relation is None else {}
        document = json.dumps(facts | owner)
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(place, sql.Literal(document)))
    return Packed(name, columns, made, _bytes(connection, place), version, step, temporary=relation is None)


def pages_of_a_block(pages: int, size: int, blocks: int = 1) -> int:
    """How many pages make about `BLOCK_BYTES` of numbers, where `pages` hold `size` bytes (what lies out of line included);
    fewer where there would not be so many `blocks`."""
    each = max(size, pages * 8192, 1) / max(pages, 1)
    full = max(int(BLOCK_BYTES * _HEAP_SHARE / each), 1)
    return full if blocks == 1 else max(min(full, pages // blocks), 1)


def _source(
    connection: psycopg.Connection[Any], table: PostgresTable, relation: Relation | None
) -> tuple[sql.Composable, int]:
    """What has pages: the table itself, or a copy of the rows of a query that goes with the transaction."""
    if relation is not None:
        return sql.SQL(table.from_text()), relation.pages
    staged = sql.Identifier(f"staged_{uuid4().hex[:16]}")
    query = sql.SQL(table.query.sql("postgres"))
    connection.execute(sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS {}").format(staged, query))
    row = connection.execute(
        "SELECT pg_relation_size(to_regclass(%s)) / 8192", [staged.as_string(connection)]
    ).fetchone()
    return staged, int(row[0]) if row else 0


def _kept(
    connection: psycopg.Connection[Any], name: str, columns: tuple[PackedColumn, ...], fingerprint: str
) -> Packed | None:
    row = connection.execute(_FIND, [SCHEMA, name]).fetchone()
    if row is None or row[0] is None:
        return None
    document = json.loads(row[0])
    place = sql.Identifier(SCHEMA, name)
    if document["fingerprint"] != fingerprint:
        return None
    blocks = _blocks(connection, place)
    if len(blocks) != document["blocks"]:  # unlogged tables are empty after a crash
        return None
    return Packed(name, columns, blocks, int(row[1]), document["version"], document["pages"])


def _blocks(connection: psycopg.Connection[Any], place: sql.Identifier) -> tuple[tuple[int, int], ...]:
    return tuple(connection.execute(sql.SQL("SELECT number, rows FROM {} ORDER BY number").format(place)).fetchall())


def _bytes(connection: psycopg.Connection[Any], place: sql.Identifier) -> int:
    row = connection.execute("SELECT pg_table_size(to_regclass(%s))", [place.as_string(connection)]).fetchone()
    return int(row[0]) if row else 0


def _sweep(connection: psycopg.Connection[Any]) -> None:
    """Remove blocks of queries whose session is gone: its client was killed, nobody could find them again."""
    for (name,) in connection.execute(_ABANDONED, [SCHEMA]).fetchall():
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(SCHEMA, name)))


def still_packed(connection: psycopg.Connection[Any], packed: Packed) -> bool:
    """Whether the blocks are where they were: unlogged tables are empty after a crash, and others may have packed anew."""
    row = connection.execute(_FIND, [SCHEMA, packed.name]).fetchone()
    known = row is not None and row[0] is not None and json.loads(row[0])["version"] == packed.version
    return known and _blocks(connection, packed.identifier) == packed.blocks


def drop(connection: psycopg.Connection[Any], packed: Packed) -> None:
    """Remove a table of packed blocks."""
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(packed.identifier))


_FIND = (
    "SELECT obj_description(c.oid, 'pg_class'), pg_table_size(c.oid) "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = %s AND c.relname = %s AND c.relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)"
)
_ABANDONED = (
    "SELECT relname FROM (SELECT c.relname, obj_description(c.oid, 'pg_class')::json->>'session' AS session FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname LIKE 'blocks\\_of\\_a\\_query\\_%%' "
    "AND c.relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)) AS made "
    "WHERE session IS NULL OR session::int NOT IN (SELECT pid FROM pg_stat_activity)"
)
