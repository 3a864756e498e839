"""Installing in a database, taking it away, and finding out what is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from braidwater.engines.postgres.server import SCHEMA, server_of
from braidwater.engines.postgres.sessions import of_server, open_session, permissions
from braidwater.errors import UnsupportedError

LANGUAGE = "plpython3u"
_MODULE = "braidwater.engines.postgres.session"


@dataclass(frozen=True)
class Finding:
    """Something that was looked at: whether it is as it must be, what was found, and how to mend it."""

    name: str
    good: bool
    detail: str


def install(address: str, *, grant: Sequence[str] = ()) -> None:
    """Make the schema ``braidwater`` with its functions and aggregate, in one transaction; what is there is replaced.

    `grant` names the roles that may use them: they can run any Python as the server's operating system user, and keep packed
    blocks in the schema. Nobody else may. Needs a superuser, and PL/Python with this package (`doctor` says what is missing).
    """
    with open_session(address) as session:
        try:
            with session.transaction():
                _install(session, grant)
        except psycopg.Error as error:
            raise _explained(error, session) from error


def _install(session: psycopg.Connection[Any], grant: Sequence[str]) -> None:
    schema = sql.Identifier(SCHEMA)
    session.execute("SET LOCAL client_min_messages = warning")
    session.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(LANGUAGE)))
    session.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
    for statement in _OBJECTS:
        session.execute(statement.format(schema=schema, language=sql.Identifier(LANGUAGE)))
    session.execute(sql.SQL("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {} FROM PUBLIC").format(schema))
    session.execute(sql.SQL("SELECT {}.facts()").format(schema))  # an import that fails, fails here
    for role in grant:
        name = sql.Identifier(role)
        session.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(schema, name))
        session.execute(sql.SQL("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {} TO {}").format(schema, name))
        session.execute(sql.SQL("GRANT SELECT ON {}.segments TO {}").format(schema, name))


def uninstall(address: str) -> None:
    """Remove the schema ``braidwater`` with all that lies in it, packed blocks of all users included."""
    with open_session(address) as session:
        try:
            session.execute("SET client_min_messages = warning")
            session.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))
        except psycopg.Error as error:
            raise _explained(error, session) from error


def _explained(error: psycopg.Error, session: psycopg.Connection[Any]) -> Exception:
    text = " ".join(str(error).split())
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return UnsupportedError(
            f"Installing needs a superuser of the database ({text}). Without it tables are read by COPY, and the work runs on "
            "the client: nothing has to be installed for that."
        )
    if isinstance(
        error, (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile, psycopg.errors.UndefinedObject)
    ):
        how = server_of(session).how_to_get_python(session.info.server_version)
        return UnsupportedError(f"The server has no PL/Python ({text}). To get it: {how}.")
    if "ModuleNotFoundError" in text or "ImportError" in text:
        return UnsupportedError(
            f"The server's Python cannot import braidwater ({text}). Start the server with PYTHONPATH={import_paths()} (on "
            "Debian in /etc/postgresql/VERSION/CLUSTER/environment), and see that its user may read these folders."
        )
    return of_server(error)


def import_paths() -> str:
    """The folders from which this process imports the package and what it needs."""
    from importlib.util import find_spec
    from pathlib import Path

    found = [
        str(Path(spec.origin).parents[1])
        for name in ("braidwater", "numpy")
        if (spec := find_spec(name)) and spec.origin
    ]
    return ":".join(dict.fromkeys(found))


def doctor(address: str) -> list[Finding]:
    """What the engine needs of a database, one finding for each thing, until one is missing that the others stand on."""
    with open_session(address) as session:
        return list(_looked_at(session))


def _looked_at(session: psycopg.Connection[Any]) -> Iterator[Finding]:
    version = session.info.server_version
    server = server_of(session)
    told = f"{server.name}, as PostgreSQL {version // 10000}.{version % 10000}; {server.oldest // 10000} or newer is needed"
    yield Finding("server", version >= server.oldest, told)
    role = _one(session, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    offered = _one(session, "SELECT count(*) FROM pg_available_extensions WHERE name = 'plpython3u'")
    package = server.how_to_get_python(version)
    yield Finding("PL/Python", bool(offered), "can be installed" if offered else f"is missing on the server: {package}")
    allowed = permissions(session)
    how = "braidwater postgres install ADDRESS" + ("" if role else ", as a superuser")
    yield Finding("schema braidwater", allowed.installed, "is installed" if allowed.installed else how)
    if not allowed.installed:
        return
    how = "braidwater postgres install ADDRESS --grant YOUR_ROLE"
    yield Finding("permission", allowed.call, "to run functions" if allowed.call else how)
    how = "GRANT USAGE, CREATE ON SCHEMA braidwater TO YOUR_ROLE"
    yield Finding("packed blocks", allowed.keep, "may be kept" if allowed.keep else how)
    if not allowed.call:
        return
    try:
        seen = json.loads(_one(session, "SELECT braidwater.facts()"))
    except psycopg.Error as error:
        yield Finding("server's Python", False, str(_explained(error, session)))
        return
    ours = ".".join(map(str, sys.version_info[:2]))
    same = seen["python"].startswith(ours)
    yield Finding("server's Python", same, f"{seen['python']}; the client's is {ours}, pickles need the same")
    here = sys.modules["braidwater"].__version__
    yield Finding("package", seen["braidwater"] == here, f"{seen['braidwater']} in the server, {here} here")
    yield Finding("torch", True, "can be imported" if seen["torch"] else "is not there: nets are trained on the client")


def _one(session: psycopg.Connection[Any], statement: str) -> Any:
    row = session.execute(statement).fetchone()
    return None if row is None else row[0]


def _function(name: str, takes: str, gives: str, *, parallel: bool = True) -> sql.SQL:
    """An SQL function that does nothing but call the one of the same name in `session`."""
    given = ", ".join(part.split()[0].strip('"') for part in takes.split(", ") if part)
    body = f"from {_MODULE} import {name}\nreturn {name}({given})"
    how = "PARALLEL SAFE" if parallel else "VOLATILE"
    head = f"CREATE OR REPLACE FUNCTION {{schema}}.{name}({takes}) RETURNS {gives} LANGUAGE {{language}} {how}"
    return sql.SQL(f"{head} AS $python$\n{body}\n$python$")


_OBJECTS = (
    _function("call", "request bytea", "bytea", parallel=False),
    _function("transition", 'state bytea, number int4, "rows" int4, data bytea[], request bytea', "bytea"),
    _function("combine", "state bytea, other bytea", "bytea"),
    _function("final", "state bytea", "bytea"),
    _function("added_columns", 'request bytea, "rows" int4, data bytea[]', "text[]"),
    _function("facts", "", "text", parallel=False),
    sql.SQL("DROP AGGREGATE IF EXISTS {schema}.aggregate(int4, int4, bytea[], bytea)"),
    sql.SQL(
        'CREATE AGGREGATE {schema}.aggregate(number int4, "rows" int4, data bytea[], request bytea) '
        "(SFUNC = {schema}.transition, STYPE = bytea, COMBINEFUNC = {schema}.combine, FINALFUNC = {schema}.final, "
        "PARALLEL = SAFE)"
    ),
    sql.SQL("DROP VIEW IF EXISTS {schema}.segments"),
    sql.SQL(
        "CREATE VIEW {schema}.segments AS SELECT f->>'host' AS host, (f->>'process')::int AS process, "
        "f->>'processor' AS processor, (f->>'cores')::int AS cores, (f->>'memory')::bigint AS memory, "
        "(f->>'gpus')::int AS gpus, (f->'cuda')::text AS cuda, f->>'python' AS python, f->>'braidwater' AS braidwater, "
        "f->>'torch' AS torch FROM (SELECT {schema}.facts()::json AS f) AS seen"
    ),
)
