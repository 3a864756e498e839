"""The same statements on a PostgreSQL server: the same answers, the rows stay there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from braidwater.engines.postgres.install import install
from braidwater.errors import StatementError, UnsupportedError, WorkerLostError
from braidwater.events import PassFinished, listen
from braidwater.sql import connect, postgres_scalars
from sql_cases import CASES, run_case

if TYPE_CHECKING:
    from postgres_server import Server


@pytest.fixture(scope="module")
def address(server: Server) -> str:
    """A database with our functions."""
    server.run("CREATE DATABASE face")
    install(server.address("face"))
    postgres_scalars.install(server.address("face"))
    return server.address("face")


@pytest.fixture
def session(address):
    """A session whose tables lie in a schema that is gone afterwards."""
    with psycopg.connect(address, autocommit=True) as plain:
        plain.execute("DROP SCHEMA IF EXISTS public CASCADE")
        plain.execute("CREATE SCHEMA public")
    with connect(address) as found:
        yield found


@pytest.mark.parametrize("case", sorted(CASES.glob("*.sql")), ids=lambda path: path.stem)
def test_the_manuals_example_gives_its_numbers_on_the_server(session, case):
    assert run_case(session, case) >= 3


def test_what_fails_leaves_nothing_and_the_session_goes_on(session):
    session.execute("CREATE TABLE fish AS SELECT i AS x, 2 * i AS y FROM generate_series(1, 20) AS t(i)")
    for statement in (
        "SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, x]'), no_such_column",
        "SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, prise]')",
        "SELECT madlib.linregr_train('fish; DROP TABLE fish', 'out', 'y', 'ARRAY[1, x]')",
        "SELECT madlib.linregr_train('fish', 'out', '(SELECT 1)', 'ARRAY[1, x]')",
    ):
        with pytest.raises(StatementError):
            session.execute(statement)
    session.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    assert session.fetchall() == [("fish",)]


def test_uncommitted_rows_are_not_read_past(session):
    session.execute("CREATE TABLE fish AS SELECT i AS x, 2 * i AS y FROM generate_series(1, 20) AS t(i)")
    session.execute("BEGIN; DELETE FROM fish WHERE x > 10")
    with pytest.raises(StatementError, match="COMMIT first"):
        session.execute("SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, x]')")
    session.execute("COMMIT")
    session.execute("SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, x]')")
    assert session.execute("SELECT num_rows_processed FROM out").fetchone() == (10,)


def test_functions_of_a_row_refuse_what_does_not_fit(session):
    assert session.execute("SELECT madlib.linregr_predict(ARRAY[1, 2], ARRAY[3, NULL])").fetchone() == (None,)
    for call in ("linregr_predict(ARRAY[1, 2], ARRAY[1, 2, 3])", "logregr_predict(ARRAY[1, 2, 3], ARRAY[1, 2])"):
        with pytest.raises(StatementError, match="do not go together"):
            session.execute(f"SELECT madlib.{call}")
    with pytest.raises(StatementError, match="do not go together"):
        session.execute("SELECT madlib.closest_column(ARRAY[[1, 2], [3, 4]], ARRAY[1])")


def test_another_schema_of_that_name_is_left_alone(server):
    server.run("CREATE DATABASE taken")
    server.run("CREATE SCHEMA madlib", "CREATE FUNCTION madlib.version() RETURNS text LANGUAGE sql AS 'SELECT ''1.21'''",
               database="taken")  # fmt: skip
    with pytest.raises(UnsupportedError, match="not made by braidwater"):
        postgres_scalars.install(server.address("taken"))
    postgres_scalars.uninstall(server.address("taken"))
    assert server.run("SELECT madlib.version()", database="taken") == [("1.21",)]


def test_a_session_that_is_ended_in_a_call_leaves_nothing(session, server):
    session.execute("CREATE TABLE fish AS SELECT i AS x, 2 * i AS y FROM generate_series(1, 20) AS t(i)")
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'braidwater sql' AND datname = 'face'"

    def end(event: object) -> None:
        if isinstance(event, PassFinished):
            server.run(f"SELECT pg_terminate_backend(pid) FROM ({ours}) AS sessions")

    with listen(end), pytest.raises(WorkerLostError, match="ended the connection"):
        session.execute("SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, x]')")
    left = server.run("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'", database="face")
    assert left == [("fish",)]
