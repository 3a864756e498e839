"""Studies in a PostgreSQL database: the same two tables as in a file, for people who search on different machines.

They lie in the schema ``braidwater_studies``, which the first search makes. Models stay on the machine that trained them, in
the cache directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from braidwater.errors import StudyError
from braidwater.model_selection.base import Trial
from braidwater.model_selection.proposals import Proposal
from braidwater.model_selection.storage import PATIENCE, document_of, models_folder, trial_of

_APPLICATION = "braidwater study"
_EXISTS = "SELECT to_regclass('braidwater_studies.trial') IS NOT NULL"
_MAKE = """
SELECT pg_advisory_xact_lock(hashtextextended('braidwater_studies', 0));
CREATE SCHEMA IF NOT EXISTS braidwater_studies;
CREATE TABLE IF NOT EXISTS braidwater_studies.study (name text PRIMARY KEY, document text NOT NULL);
CREATE TABLE IF NOT EXISTS braidwater_studies.trial (
  study text NOT NULL REFERENCES braidwater_studies.study (name), number integer NOT NULL, state text NOT NULL,
  value double precision, document text NOT NULL, proposal text NOT NULL, PRIMARY KEY (study, number)
);
"""
_SAVE = """
INSERT INTO braidwater_studies.trial (study, number, state, value, document, proposal) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (study, number) DO UPDATE
SET state = excluded.state, value = excluded.value, document = excluded.document, proposal = excluded.proposal
"""
_TRIALS = "SELECT document, proposal FROM braidwater_studies.trial WHERE study = %s ORDER BY number"


class PostgresStorage:
    """One study of those in the database at `address` (a URL as libpq takes it); see `StudyStorage`.

    Studies are searched side by side; one study by one search at a time, which holds an advisory lock for as long as its
    connection lives. Each trial is committed as it begins and ends. Where `make` is false nothing is made that is not there.

    Raises `StudyError` when the server cannot be reached, refuses, or goes away.
    """

    def __init__(self, address: str, name: str, *, make: bool = True) -> None:
        self.name = name
        self.path = without_password(address)
        self.folder = models_folder(address, name)
        with self._errors():
            self._connection = psycopg.connect(
                address, autocommit=True, application_name=_APPLICATION, connect_timeout=int(2 * PATIENCE)
            )
            try:
                self._connection.execute(f"SET lock_timeout = {int(1000 * PATIENCE)}")
                # a server that is set not to wait for its log would lose the newest trials when it crashes
                self._connection.execute("SET synchronous_commit = on")
                if not self._connection.execute(_EXISTS).fetchone()[0]:  # type: ignore[index]
                    if not make:
                        raise StudyError(f"There is no study in {self.path}.")
                    with self._connection.transaction():
                        self._connection.execute(_MAKE)
            except BaseException:
                self._connection.close()
                raise

    def document(self) -> dict[str, Any] | None:
        """What was searched; None where there is no study of this name yet."""
        row = self._fetch("SELECT document FROM braidwater_studies.study WHERE name = %s", [self.name])
        return json.loads(row[0][0]) if row else None

    def names(self) -> list[str]:
        """All studies in the database."""
        return [name for (name,) in self._fetch("SELECT name FROM braidwater_studies.study ORDER BY name", [])]

    def trials(self) -> list[tuple[Trial, Proposal]]:
        """All trials, in the order of their numbers."""
        rows = self._fetch(_TRIALS, [self.name])
        return [(trial_of(json.loads(document)), Proposal.from_json(proposal)) for document, proposal in rows]

    def begin(self, document: dict[str, Any]) -> None:
        """Write down what is searched."""
        with self._errors():
            insert = "INSERT INTO braidwater_studies.study VALUES (%s, %s)"
            self._connection.execute(insert, [self.name, json.dumps(document)])

    def save(self, trial: Trial, proposal: Proposal) -> None:
        """Write down a trial as it is now."""
        row = [self.name, trial.number, trial.state, trial.value, document_of(trial), proposal.to_json()]
        with self._errors():
            self._connection.execute(_SAVE, row)

    def lock(self) -> None:
        """Be the only one who searches in this study, until `close` or the end of the process."""
        query = "SELECT pg_try_advisory_lock(hashtextextended('braidwater study ' || %s, 0))"
        if not self._fetch(query, [self.name])[0][0]:
            raise StudyError(
                f"Study {self.name!r} in {self.path} is being searched by somebody else. Wait for its end, or give this search "
                "another study name."
            )

    def close(self) -> None:
        """Let go of the connection, and with it of the lock."""
        self._connection.close()

    def _fetch(self, query: str, arguments: list[Any]) -> list[tuple[Any, ...]]:
        with self._errors():
            return self._connection.execute(query, arguments).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except errors.LockNotAvailable as error:
            raise StudyError(
                f"The study's storage {self.path} is locked by another session (for more than {PATIENCE:g} s)."
            ) from error
        except errors.InsufficientPrivilege as error:
            raise StudyError(
                f"The study's storage {self.path} refuses: {_first(error)}. Studies need CREATE on the database, or, where the "
                "schema braidwater_studies is there, USAGE on it and SELECT, INSERT, UPDATE on its tables."
            ) from error
        except errors.UndefinedTable as error:
            raise StudyError(f"The study's storage {self.path} was removed while the search ran.") from error
        except psycopg.OperationalError as error:
            raise StudyError(
                f"The study's storage {self.path} cannot be reached, or was lost: {_first(error)}. Trials that had ended are "
                "safe there; the same call goes on."
            ) from error
        except psycopg.Error as error:
            raise StudyError(f"The study's storage {self.path} cannot be used: {_first(error)}.") from error


def without_password(address: str) -> str:
    """The place of a database, for messages.

    >>> without_password("postgresql://anna:secret@here:5433/studies")
    'postgresql://anna@here:5433/studies'
    """
    known = place_of(address)
    port = f":{known['port']}" if "port" in known else ""
    user = f"{known['user']}@" if "user" in known else ""
    return f"postgresql://{user}{known.get('host', 'localhost')}{port}/{known.get('dbname', '')}"


def place_of(address: str) -> dict[str, Any]:
    """User, host, port and database of an address."""
    try:
        found = conninfo_to_dict(address)
    except psycopg.ProgrammingError as error:
        # its own message would repeat the address, and with it the password
        raise StudyError("The storage's address is none; write postgresql://USER@HOST/DATABASE.") from error
    return {name: value for name, value in found.items() if name in ("user", "host", "port", "dbname")}


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
