"""Packed blocks as a stream that leaves the server: what needs no permission but SELECT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psycopg
import pyarrow as pa
from psycopg import sql
from sqlglot import exp

from braidwater.engines.postgres.form import PackedColumn, unpacked
from braidwater.engines.postgres.form_sql import packed_columns
from braidwater.engines.postgres.packing import Packed, pages_of_a_block
from braidwater.engines.postgres.server import server_of
from braidwater.engines.postgres.sessions import of_server, open_session
from braidwater.tables.base import Partition, Table, TableStatistics
from braidwater.tables.postgres import PostgresTable


class PackedStream(Table):
    """The rows of a table with pages of its own, read as blocks that the server packs (or has packed) by binary COPY.

    A tenth of the CPU of rows, where they were packed before; as much, where they are packed on the way. Memory: a block.
    """

    reader = "postgres"

    def __init__(self, table: PostgresTable, address: str, packed: Packed | None = None) -> None:
        self.name = table.name
        self._table = table
        self._address = address
        self._packed = packed

    @property
    def schema(self) -> pa.Schema:
        return self._table.schema

    def statistics(self, columns: Sequence[str] | None = None) -> TableStatistics:
        return self._table.statistics(columns)

    def partitions(self, rows: int) -> list[Partition]:
        if self._packed is None:
            return self._table.partitions(rows)
        return [Partition(0, self._packed.rows, 0)]

    def read(
        self, columns: Sequence[str] | None = None, *, partition: Partition | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        names = self.column_names if columns is None else list(columns)
        self.require(names)
        packed = self._packed
        if packed is not None and {c.name for c in packed.columns} >= set(names):
            form = packed.columns
            statement: sql.Composable = sql.SQL("SELECT number, rows, data FROM {} ORDER BY number").format(
                packed.identifier
            )
        else:
            form = packed_columns(self._table, names)
            relation = self._table.relation()
            assert relation is not None
            source = sql.SQL(self._table.from_text())
            where = (0, None) if partition is None or partition.where is None else partition.where
            step = pages_of_a_block(relation.pages, relation.bytes)
            with open_session(self._address) as session:
                server = server_of(session)
            statement = server.packing_query(self._table, form, source, relation.pages, step, where)
        for batch in self._copied(statement, form):
            batch = batch.select(names)
            yield from (batch.slice(start, batch_rows) for start in range(0, batch.num_rows, batch_rows))

    def _copied(self, statement: sql.Composable, form: Sequence[PackedColumn]) -> Iterator[pa.RecordBatch]:
        with open_session(self._address) as session:
            session.execute("SET default_transaction_read_only = on")
            try:
                with session.cursor().copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(statement)) as copy:
                    copy.set_types(["int4", "int4", "bytea[]"])
                    while row := copy.read_row():
                        batch = unpacked(form, row[1], row[2])
                        del row  # 2 MB less to hold while others work
                        yield batch
            except psycopg.Error as error:
                raise of_server(error) from error

    def fingerprint(self) -> str | None:
        return self._table.fingerprint()

    def select(self, query: exp.Select) -> pa.Table:
        return self._table.select(query)
