"""The functions of a row in a PostgreSQL server: plain SQL functions in a schema of their own. No PL/Python, no superuser."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from braidwater.engines.postgres.sessions import of_server, open_session
from braidwater.errors import UnsupportedError
from braidwater.sql.scalars import POSTGRES_DISTANCE, SCALARS, Scalar

MARK = "functions of a row, made by braidwater"


def install(address: str, schema: str = "madlib") -> None:
    """Make the functions, or make them anew; all in one transaction. A schema that is not ours, such as that of an installed
    MADlib, is left alone: `UnsupportedError`."""
    with open_session(address) as session:
        try:
            with session.transaction():
                _refuse_others(session, schema)
                for statement in _statements(schema):
                    session.execute(statement)
        except psycopg.Error as error:
            raise of_server(error) from error


def uninstall(address: str, schema: str = "madlib") -> None:
    """Remove the schema, if it is ours."""
    with open_session(address) as session:
        try:
            with session.transaction():
                if _comment(session, schema) == MARK:
                    session.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
        except psycopg.Error as error:
            raise of_server(error) from error


def _refuse_others(session: psycopg.Connection[tuple[object, ...]], schema: str) -> None:
    there = session.execute("SELECT count(*) FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone()
    if there is not None and there[0] and _comment(session, schema) != MARK:
        raise UnsupportedError(
            f"The schema {schema} is there already and was not made by braidwater (an installed MADlib?). Its own functions of "
            "a row take the same arguments; or drop it."
        )


def _comment(session: psycopg.Connection[tuple[object, ...]], schema: str) -> str | None:
    row = session.execute("SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", (f'"{schema}"',)).fetchone()
    return None if row is None or row[0] is None else str(row[0])


def _statements(schema: str) -> Iterator[sql.Composed]:
    name = sql.Identifier(schema)
    yield sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name)
    yield sql.SQL("COMMENT ON SCHEMA {} IS {}").format(name, sql.Literal(MARK))
    yield sql.SQL(_UNEQUAL).format(name)
    for one in SCALARS:
        yield _closest(name, one) if one.name == "closest_column" else _function(name, one)
    yield sql.SQL("GRANT USAGE ON SCHEMA {} TO PUBLIC").format(name)


def _function(schema: sql.Identifier, one: Scalar) -> sql.Composed:
    takes = ", ".join(f"{name} {kind}" for name, kind in one.parameters)
    arrays = [name for name, kind in one.parameters if kind.endswith("[]")]
    body = one.postgres
    if len(arrays) == 2:
        lengths = [f"cardinality({name})" for name in arrays]
        body = f"CASE WHEN {lengths[0]} IS DISTINCT FROM {lengths[1]} AND num_nulls({', '.join(arrays)}) = 0 "
        body += f"THEN {{schema}}.__unequal({', '.join(lengths)})::text::{one.returns} ELSE {one.postgres} END"
    head = f"CREATE OR REPLACE FUNCTION {{schema}}.{one.name}({takes}) RETURNS {one.returns}"
    return sql.SQL(f"{head} LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$ SELECT {body} $body$").format(schema=schema)


def _closest(schema: sql.Identifier, one: Scalar) -> sql.Composed:
    cases = " ".join(f"WHEN '{name}' THEN {body}" for name, body in POSTGRES_DISTANCE.items())
    return sql.SQL(
        f"CREATE OR REPLACE FUNCTION {{schema}}.{one.name}(m float8[], x float8[], dist text DEFAULT 'squared_dist_norm2', "
        "OUT column_id integer, OUT distance float8) LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$ "
        "SELECT (i - 1)::integer, d FROM generate_subscripts(m, 1) AS i CROSS JOIN LATERAL (SELECT CASE WHEN "
        "array_length(m, 2) IS DISTINCT FROM cardinality(x) THEN {schema}.__unequal(array_length(m, 2), cardinality(x)) ELSE "
        f"CASE replace(lower(trim(dist)), 'madlib.', '') {cases} END END AS d FROM unnest(m[i:i], x) AS u(a, b)) AS distances "
        "ORDER BY d, i LIMIT 1 $body$"
    ).format(schema=schema)


_UNEQUAL = (
    "CREATE OR REPLACE FUNCTION {}.__unequal(one integer, other integer) RETURNS float8 LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE "
    "AS $body$ BEGIN RAISE EXCEPTION 'arrays of % and of % numbers do not go together', one, other; END $body$"
)
