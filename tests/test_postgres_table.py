"""Tables of a PostgreSQL server: the contract, what a fingerprint knows, addresses and names, and what goes wrong."""

from __future__ import annotations

import itertools
from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pytest
import sqlglot

from braidwater.encoding import Encoding, Vector
from braidwater.errors import (
    BraidwaterError,
    ColumnTypeError,
    NullValueError,
    TableError,
    TableNotFoundError,
    WorkerLostError,
)
from braidwater.tables import postgres, table, write_table
from braidwater.tables.postgres import PostgresTable
from braidwater.testing import TABLE_CHECKS
from braidwater.testing.tables import example_rows

if TYPE_CHECKING:
    from postgres_server import Server

_numbers = itertools.count()


def in_a_table(server: Server, rows):
    return write_table(rows, f"{server.address()}::rows_{next(_numbers)}")


def in_a_select(server: Server, rows):
    written = in_a_table(server, rows)
    return table(f"{server.address()}::SELECT * FROM {written.name} WHERE number >= 0")


@pytest.mark.parametrize("check", TABLE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [in_a_table, in_a_select], ids=lambda make: make.__name__)
def test_law(make, check, server, tmp_path):
    check(lambda rows, folder: make(server, rows), tmp_path)


def test_the_fingerprint_changes_with_every_change_of_the_rows_and_with_nothing_else(server):
    rows = in_a_table(server, example_rows(3000))
    name = rows.name
    seen = [rows.fingerprint()]
    assert rows.fingerprint() == seen[0]
    server.run(
        f"VACUUM FREEZE ANALYZE {name}",
        f"CREATE INDEX ON {name} (number)",
        f"ALTER TABLE {name} ADD CHECK (number >= 0)",
    )
    assert rows.fingerprint() == seen[0]
    with psycopg.connect(server.address()) as aborted:  # counted as inserted, and never seen
        aborted.execute(f"INSERT INTO {name} SELECT * FROM {name}")
        assert rows.fingerprint() == seen[0]
        aborted.rollback()
    assert rows.fingerprint() == seen[0]
    for change in (
        f"UPDATE {name} SET value = 0.5 WHERE number = 17",
        f"DELETE FROM {name} WHERE number = 18",
        f"INSERT INTO {name} SELECT * FROM {name} WHERE number = 19",
        f"ALTER TABLE {name} DROP COLUMN value, ADD COLUMN value float8 DEFAULT 7",
        f"TRUNCATE {name}",
    ):
        server.run(change)
        seen.append(rows.fingerprint())
    assert len(set(seen)) == len(seen)


def test_a_small_answer_is_kept_until_the_rows_change(server, monkeypatch):
    """Fitting a second model on a table asks nothing again that a scan would have to answer."""
    monkeypatch.setattr(postgres, "_SETTLED", "0 seconds")  # sessions that have ended have told what they changed
    rows = in_a_table(server, example_rows(100))
    query = sqlglot.parse_one("SELECT count(*) AS rows FROM this").sql  # a new tree each time
    asked: list[str] = []
    original = PostgresTable._text

    def counted(self, statement):
        asked.append(statement)
        return original(self, statement)

    monkeypatch.setattr(PostgresTable, "_text", counted)

    def answer() -> tuple[int, int]:
        asked.clear()
        (found,) = rows.select(sqlglot.parse_one(query())).to_pylist()
        return found["rows"], sum("COUNT(*)" in statement for statement in asked)

    assert [answer(), answer()] == [(100, 1), (100, 0)]
    server.run(f"DELETE FROM {rows.name} WHERE number < 10")
    assert [answer(), answer()] == [(90, 1), (90, 0)]


def test_types_that_arrow_lacks_are_read_as_documented(server):
    found = table(
        f"{server.address()}::SELECT 1::int2 AS a, 2::int4 AS b, 1.5::float4 AS c, 12.34::numeric(6,2) AS d, 0.1::numeric AS e, "
        "date '2020-02-03' AS f, ARRAY[1.5,2]::float8[] AS g, '[1]'::jsonb AS h, 'padded'::char(9) AS i, ARRAY['x'] AS j, "
        "NULL::numeric(4,1) AS k, interval '1 day' AS l, '\\x00ff'::bytea AS m"
    )
    assert [str(field.type) for field in found.schema] == [
        "int16", "int32", "float", "decimal128(6, 2)", "double", "date32[day]", "list<item: double>", "string", "string",
        "string", "decimal128(4, 1)", "string", "binary",
    ]  # fmt: skip
    row = found.to_arrow().to_pylist()[0]
    assert (str(row["d"]), row["e"], row["f"], row["g"]) == ("12.34", 0.1, date(2020, 2, 3), [1.5, 2.0])
    assert (row["h"], row["j"], row["k"], row["m"]) == ("[1]", "{x}", None, b"\x00\xff")


@pytest.mark.parametrize("name", ["Flights", "two words", 'quo"te', "sélect", "drop table; --", "x'y"])
def test_any_name_can_be_that_of_a_table_a_column_and_a_schema(server, name):
    quoted = '"' + name.replace('"', '""') + '"'
    server.run(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
    rows = pa.table({name: [1.0, 2.0], "y": [0, 1]})
    written = write_table(rows, f"{server.address()}::{quoted}.{quoted}")
    assert written.to_arrow().equals(rows)
    assert written.fingerprint() == written.fingerprint()
    assert Encoding(label="y").fit(written).design.names == (name,)
    assert len(written.partitions(1)) == 1
    with psycopg.connect(server.address()) as connection:
        assert table(connection, f"{quoted}.{quoted}").to_arrow().equals(rows)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1; DROP TABLE kept",
        "DROP TABLE kept",
        "WITH gone AS (DELETE FROM kept RETURNING 1) SELECT * FROM gone",
        "kept; DROP TABLE kept",
        'kept" ; DROP TABLE kept; --',
        "SELECT set_config('transaction_read_only', 'off', false), nextval('counted')",
        "SELECT 1) AS this; DROP TABLE kept; SELECT (1",
        "(SELECT 1) UNION (DELETE FROM kept RETURNING 1)",
    ],
)
def test_what_is_no_table_is_refused_and_changes_nothing(server, query):
    write_table(pa.table({"x": [1]}), f"{server.address()}::kept")
    server.run("CREATE SEQUENCE IF NOT EXISTS counted")
    with pytest.raises(TableError):
        table(f"{server.address()}::{query}").to_arrow()
    with suppress(BraidwaterError):  # or it is the name of a table, however odd
        write_table(pa.table({"x": [2]}), f"{server.address()}::{query}")
    assert server.run("SELECT x FROM kept") == [(1,)]


def test_a_failed_write_leaves_the_old_rows_and_no_others(server):
    address = f"{server.address()}::target"
    write_table(pa.table({"x": [1, 2]}), address)
    failing = table(f"{server.address()}::SELECT 1 / (3 - x) AS x FROM generate_series(1, 5) AS g(x)")
    with pytest.raises(TableError, match="division by zero"):
        write_table(failing, address)
    assert server.run("SELECT count(*) FROM target") == [(2,)]
    assert write_table(table(address), address).to_arrow().column("x").to_pylist() == [1, 2]  # onto itself


def test_nulls_and_nans_are_counted_and_lists_of_other_lengths_are_refused(server):
    at = server.address()
    gaps = table(
        f"{at}::SELECT NULLIF(x, 3)::float8 AS x, CASE x WHEN 4 THEN 'NaN'::float8 ELSE 1 END AS z "
        "FROM generate_series(1, 9) g(x)"
    )
    for column in ("x", "z"):
        with pytest.raises(NullValueError, match=f"Column '{column}' has 1 NULL"):
            Encoding(features=[column]).fit(gaps).block(gaps.to_arrow().to_batches()[0])
    assert Encoding(nulls="mean").fit(gaps).features[0].fill == pytest.approx(42 / 8)
    for other, words in (("ARRAY[1]", "list of 1 numbers where 2"), ("ARRAY[1, NULL]", "1 NULL")):
        ragged = table(
            f"{at}::SELECT (CASE n WHEN 1 THEN ARRAY[1, 2] ELSE {other} END)::float8[] AS v FROM generate_series(1, 2) g(n)"
        )
        with pytest.raises((ColumnTypeError, NullValueError), match=words):
            Encoding(features={"v": Vector()}).fit(ragged).block(ragged.to_arrow().to_batches()[0])


def test_what_is_wrong_is_told_without_the_password(server):
    at = server.address()
    server.run(
        "DROP TABLE IF EXISTS secret", "CREATE TABLE secret AS SELECT 1 AS x", "CREATE ROLE nobody LOGIN PASSWORD 'n'"
    )
    wrong = server.address(password="wr0ng")
    for address, kind, words in (
        ("postgresql://postgres@127.0.0.1:1/db::t", TableError, "no connection"),
        (f"{wrong}::secret", TableError, "refused the password"),
        (f"{at}::nowhere", TableNotFoundError, "nowhere"),
        (f"{at}::nowhere.t", TableNotFoundError, "nowhere"),
        (server.address("nodatabase") + "::t", TableError, "nodatabase"),
        (server.address(role="nobody", password="n") + "::secret", TableError, "GRANT SELECT"),
        (at, TableError, "names its table"),
    ):
        with pytest.raises(kind, match=words) as caught:
            table(address)
        assert "correct" not in str(caught.value)
        assert "wr0ng" not in str(caught.value)


def test_a_session_that_the_server_ends_is_a_lost_worker(server):
    rows = table(f"{server.address()}::SELECT n, pg_sleep(0.001) IS NULL AS s FROM generate_series(1, 100000) g(n)")
    with pytest.raises(WorkerLostError, match="ended the connection"):
        rows.select(table_query("pg_terminate_backend(pg_backend_pid())"))


def table_query(function: str):
    import sqlglot

    return sqlglot.parse_one(f"SELECT {function} AS x", read="postgres")
