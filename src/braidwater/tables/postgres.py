"""Tables of a PostgreSQL or Greenplum server: read as Arrow through ADBC, asked in their own SQL, written in one transaction."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import adbc_driver_manager
import pyarrow as pa
from sqlglot import exp

from braidwater.errors import TableError
from braidwater.tables.base import ColumnStatistics, Partition, Table, TableStatistics
from braidwater.tables.postgres_session import READER, Connections, address_of, connect, prepared, told
from braidwater.tables.postgres_types import Field, in_postgres, parsed, plain_values

_RECENT = 0.5  # seconds for which what the catalogue says of a relation is believed
_SETTLED = "15 seconds"  # a session reports what it changed at the latest 10 s after it fell idle
_BATCH_BYTES = 4 * 2**20
_SMALL, _MOST_ANSWERS = 2**16, 16  # bytes and number of answers that are kept while nothing changes
_CONTENT = (
    "WITH this AS (SELECT ctid, xmin FROM {source}) "
    "SELECT COUNT(*) AS rows, BIT_XOR(HASHTIDEXTENDED(ctid, CAST(CAST(xmin AS TEXT) AS BIGINT))) AS digest FROM this"
)
# before PostgreSQL 14, as in Greenplum 7, where rows of different segments have the same place
_OLDER_CONTENT = (
    "WITH this AS (SELECT HASHTEXTEXTENDED(CONCAT_WS(' ', {place}, ctid, xmin), 0) AS row FROM {source}) "
    "SELECT COUNT(*) AS rows, CAST(MOD(SUM(CAST(row AS NUMERIC)), 9223372036854775807) AS BIGINT) AS digest FROM this"
)


@dataclass(frozen=True)
class Relation:
    """What the catalogue says of a table whose rows lie in pages of its own. `state` changes when the rows may have."""

    oid: int
    pages: int
    bytes: int  # with what lies out of line
    state: tuple[object, ...]
    quiet: bool  # whether every other session has reported all that it changed
    filled: frozenset[str] = frozenset()  # columns that cannot be NULL


class PostgresTable(Table):
    """A table or SELECT of a PostgreSQL or Greenplum server.

    Rows come in the order in which they lie. A plain table or materialised view is cut into ranges of pages that are read
    at the same time, and has a fingerprint: what its rows are named (ctid) and which transactions wrote them. That takes a
    scan of the table once a process (0.1 s for a million rows), after which the server's counters of changes tell whether
    it must be repeated; they are not believed while another session may not have reported. A SELECT, a view and a foreign
    or partitioned table are one stream without a fingerprint.

    NUMERIC without a precision is read as a double; types that Arrow does not have (uuid, json, interval) as text.
    """

    reader = "postgres"

    def __init__(self, connect: Callable[[], Any], query: str, *, name: str, address: str = "") -> None:
        self.name = name
        self.address = address
        self.connections = Connections(connect)
        self.query = parsed(query)
        self._contents: dict[tuple[object, ...], tuple[int, int]] = {}
        self._answers: dict[str, tuple[tuple[object, ...], pa.Table]] = {}
        self._counted: int | None = None
        self._asked: tuple[float, Relation | None] = (-_RECENT, None)
        _ = self.schema  # a wrong name or statement is an error here, and not in the middle of a fit

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By its address, password included: for the workers that its owner starts."""
        if not self.address:
            raise TypeError(
                f"Table {self.name!r} belongs to a connection of this process, and cannot be handed to another."
            )
        return _opened_again, (self.address, self.query.sql("postgres"), self.name)

    @cached_property
    def _fields(self) -> dict[str, Field]:
        with self._run(self.over(exp.select("*")).limit(0)) as cursor:
            return {field.name: Field.of(field) for field in cursor.fetch_arrow_table().schema}

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(name, field.type) for name, field in self._fields.items()])

    @cached_property
    def qualified(self) -> exp.Table | None:
        """The name of the table or view, None for any other SELECT."""
        source = self.query.args.get("from_") or self.query.args.get("from")
        plain = isinstance(self.query, exp.Select) and self.query.is_star and source is not None
        known = {"expressions", "from", "from_", "kind", "operation_modifiers"}
        if not plain or any(value for key, value in self.query.args.items() if key not in known):
            return None
        found = source.this
        plain_name = isinstance(found, exp.Table) and isinstance(found.this, exp.Identifier)
        return found if plain_name and len(self.query.expressions) == 1 and not found.args.get("joins") else None

    def relation(self, *, fresh: bool = False) -> Relation | None:
        """What the catalogue says (half a second ago at most, now if `fresh`), None for what has no pages of its own."""
        if self.qualified is None:
            return None
        if fresh or time.monotonic() - self._asked[0] > _RECENT:
            self._asked = (time.monotonic(), self._relation())
        return self._asked[1]

    def _relation(self) -> Relation | None:
        assert self.qualified is not None
        literal = exp.Literal.string(self.qualified.sql("postgres")).sql("postgres")
        with self._text(_RELATION.format(name=literal, place=_PLACE, reader=READER, settled=_SETTLED)) as cursor:
            found = cursor.fetch_arrow_table().to_pylist()
        if not found or found[0]["relkind"] not in ("r", "m"):
            return None
        row = found[0]
        state = tuple(row[key] for key in ("relation", "file", "pages", "columns", "inserted", "updated", "deleted"))
        filled = frozenset(json.loads(row["filled"] or "[]"))
        return Relation(row["relation"], row["pages"], row["bytes"], (row["place"], *state), bool(row["quiet"]), filled)

    @cached_property
    def _version(self) -> str:
        with self._text("SELECT version() AS version") as cursor:
            return str(cursor.fetch_arrow_table().to_pylist()[0]["version"])

    def _content(self, relation: Relation, *, sure: bool = False) -> tuple[int, int]:
        """Rows, and a digest of their places and transactions; from what was seen before where the counters say so.

        `sure`: only where they can be believed.
        """
        found = self._contents.get(relation.state) if relation.quiet or not sure else None
        if found is None:
            with self._text(content_query(self._version, self.from_text())) as cursor:
                row = cursor.fetch_arrow_table().to_pylist()[0]
            found = (int(row["rows"]), int(row["digest"] or 0))
            self._contents = {relation.state: found}
        return found

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        columns = self.column_names if columns is None else list(columns)
        self.require(columns)
        relation = self.relation()
        if relation is not None:
            rows, size, filled = self._content(relation)[0], relation.bytes, relation.filled
        else:
            if self._counted is None:
                counted = self.select(exp.select(exp.Count(this=exp.Star()).as_("rows")).from_("this"))
                self._counted = int(counted.to_pylist()[0]["rows"])
            rows, size, filled = self._counted, max(self._counted, 1) * 8 * len(self.schema), frozenset()
        # bounds and NULLs of ``pg_stats`` are those of a sample, so they are not taken
        known = {column: ColumnStatistics(nulls=0) if column in filled else ColumnStatistics() for column in columns}
        return TableStatistics(rows, size, known)

    def partitions(self, rows: int) -> list[Partition]:
        relation = self.relation()
        if relation is None or relation.pages == 0 or not has_page_ranges(self._version):
            return [Partition(0, first_row=0)]
        held = max(self._content(relation)[0], 1)
        step = max(-(-rows * relation.pages // held), 1)
        begins = range(0, relation.pages, step)
        ends = [*begins[1:], None]  # the last has no end: rows may have been added behind it since
        return [Partition(n, where=(begin, end)) for n, (begin, end) in enumerate(zip(begins, ends, strict=True))]

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        self.require(names)
        fields = [self._fields[name] for name in names]
        schema = pa.schema([pa.field(field.name, field.type) for field in fields])
        query = self.over(exp.select(*(field.value.as_(field.name, quoted=True) for field in fields)))
        if partition is not None and partition.where is not None:
            query = query.where(*_pages(partition.where))
        with self._run(query) as cursor:
            for batch in cursor.fetch_record_batch():
                whole = pa.record_batch(
                    [field.decode(batch.column(place)) for place, field in enumerate(fields)], schema=schema
                )
                yield from (whole.slice(start, batch_rows) for start in range(0, whole.num_rows, batch_rows))

    def fingerprint(self) -> str | None:
        relation = self.relation(fresh=True)
        if relation is None:
            return None
        rows, digest = self._content(relation, sure=True)
        place, oid, file, _, columns = relation.state[:5]
        return f"postgres {place} {oid} {file} {columns} {rows} {digest}"

    def select(self, query: exp.Select) -> pa.Table:
        statement = in_postgres(query.copy()).with_("this", as_=self.query.copy()).sql("postgres")
        relation = self.relation(fresh=True)
        state, kept = self._answers.get(statement, ((), None))
        if kept is not None and relation is not None and relation.quiet and relation.state == state:
            return kept
        with self._text(statement) as cursor:
            found = cursor.fetch_arrow_table()
        answer = pa.table({name: plain_values(found.column(name)) for name in found.schema.names})
        if relation is not None and answer.nbytes <= _SMALL:
            self._answers = {**dict(list(self._answers.items())[-_MOST_ANSWERS:]), statement: (relation.state, answer)}
        return answer

    def over(self, query: exp.Select) -> exp.Select:
        """`query` with this table behind its FROM: the relation itself where it has pages, so that ctid can be named."""
        if self.qualified is not None:
            return query.from_(self.qualified.copy())
        return query.from_(exp.Subquery(this=self.query.copy(), alias=exp.TableAlias(this=exp.to_identifier("this"))))

    def value(self, column: str) -> exp.Expression:
        """The expression that `read` selects for `column`."""
        return self._fields[column].value

    def value_text(self, column: str) -> str:
        """The same as SQL."""
        return self._fields[column].text

    def from_text(self) -> str:
        """The name of the table as SQL has it."""
        assert self.qualified is not None
        name: str = self.qualified.sql("postgres")
        return name

    @cached_property
    def place(self) -> str:
        """Which database of which server this is."""
        with self._text(f"SELECT {_PLACE} AS place FROM pg_database d WHERE d.datname = current_database()") as cursor:
            return str(cursor.fetch_arrow_table().to_pylist()[0]["place"])

    @contextmanager
    def _run(self, query: exp.Expression) -> Iterator[Any]:
        with self._text(query.sql("postgres")) as cursor:
            yield cursor

    @contextmanager
    def _text(self, statement: str) -> Iterator[Any]:
        try:
            with self.connections.cursor() as cursor:
                cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
                cursor.execute(statement)
                yield cursor
        except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
            raise told(error, f"Table {self.name!r}", statement) from error


def has_page_ranges(version: str) -> bool:
    """Whether a server whose ``version()`` is this text scans ranges of pages: from PostgreSQL 14 on. Greenplum 7 is a 12."""
    number = re.search(r"\d+", version)
    return number is None or int(number[0]) >= 14


def content_query(version: str, source: str) -> str:
    """The count of the rows of `source`, and a digest of their places and of the transactions that wrote them."""
    if has_page_ranges(version):
        return _CONTENT.format(source=source)
    return _OLDER_CONTENT.format(source=source, place="gp_segment_id" if "Greenplum" in version else "''")


def postgres_table(address: str, query: str, *, name: str | None = None) -> PostgresTable:
    """The table or SELECT `query` of the server at `address` (a URL as libpq takes it)."""
    if not query.strip():
        raise TableError("A PostgreSQL address names its table: postgresql://USER@HOST/DATABASE::TABLE, or ::SELECT …")
    return PostgresTable(lambda: connect(address), query, name=name or query, address=address)


def _opened_again(address: str, query: str, name: str) -> PostgresTable:
    return postgres_table(address, query, name=name)


def connected_table(connection: Any, query: str, *, name: str | None = None) -> PostgresTable:
    """The table or SELECT `query` of the database that a psycopg or ADBC connection is connected to.

    It is read through connections of its own, which do not see what the given one has not committed.
    """
    if hasattr(connection, "adbc_clone"):
        return PostgresTable(lambda: prepared(connection.adbc_clone()), query, name=name or query)
    return postgres_table(address_of(connection), query, name=name)


def _pages(where: tuple[int, int | None]) -> list[exp.Expression]:
    begin, end = where
    place = exp.column("ctid")
    bounds: list[exp.Expression] = [exp.GTE(this=place, expression=_tid(begin))]
    return bounds if end is None else [*bounds, exp.LT(this=place.copy(), expression=_tid(end))]


def _tid(page: int) -> exp.Expression:
    return exp.cast(exp.Literal.string(f"({page},0)"), exp.DataType.build("tid", udt=True))


_PLACE = "(SELECT system_identifier FROM pg_control_system()) || '/' || d.oid"
_RELATION = """
SELECT c.oid::bigint AS relation, c.relkind::text AS relkind, pg_relation_filenode(c.oid)::bigint AS file,
  pg_relation_size(c.oid) / current_setting('block_size')::int AS pages, pg_table_size(c.oid) AS bytes,
  s.n_tup_ins AS inserted, s.n_tup_upd AS updated, s.n_tup_del AS deleted,
  (SELECT string_agg(a.attnum || ' ' || a.atttypid, ',' ORDER BY a.attnum) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
  (SELECT json_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attnotnull)::text AS filled,
  {place} AS place,
  NOT pg_is_in_recovery() AND version() NOT LIKE '%Greenplum%' AND NOT EXISTS
    (SELECT 1 FROM pg_stat_activity p WHERE p.datid = d.oid AND p.pid <> pg_backend_pid()
    AND coalesce(p.application_name, '') <> '{reader}' AND p.backend_type = 'client backend'
    AND (p.state IS DISTINCT FROM 'idle' OR p.state_change > clock_timestamp() - interval '{settled}')) AS quiet
FROM pg_class c JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
WHERE c.oid = to_regclass({name})
"""
