"""Where a study is kept: a small SQLite file, written as trials begin and end, and a folder of models beside it.

Two tables: ``study`` (what was searched, as JSON) and ``trial`` (a row a trial). The file is in WAL mode, so that others can read
while a search writes. A crash loses at most the trials that were running; a power cut may lose the newest of those that
had ended too, and leaves the file whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from braidwater.errors import OptionError, StudyError
from braidwater.extras import needed_for
from braidwater.model_selection.base import Trial
from braidwater.model_selection.proposals import Proposal
from braidwater.options import current_options

PATIENCE = 5.0  # seconds to wait for another process that writes
_APPLICATION = 0x62725374  # "brSt": tells our files from other SQLite files
_FORMAT = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS study (name TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS trial (
  study TEXT NOT NULL REFERENCES study (name), number INTEGER NOT NULL, state TEXT NOT NULL, value REAL,
  document TEXT NOT NULL, proposal TEXT NOT NULL, PRIMARY KEY (study, number)
) STRICT, WITHOUT ROWID;
"""


class StudyStorage:
    """One study of those in the SQLite file at `path`; both are made where they are not there.

    Raises `StudyError` when the file is something else, damaged, locked by another process, or removed in the meantime; it is
    left as it was.
    """

    def __init__(self, path: str | Path, name: str) -> None:
        self.path = Path(path)
        self.name = name
        self.folder = models_folder(path, name)
        self._locked: int | None = None
        if not self.path.resolve().parent.is_dir():
            raise StudyError(f"There is no folder {str(self.path.resolve().parent)!r} for the study's storage.")
        with self._errors():
            self._connection = sqlite3.connect(self.path, timeout=PATIENCE)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        self._inode = self.path.stat().st_ino

    def _prepare(self) -> None:
        # in WAL mode the file stays whole; flushing every transaction to the disk would cost 10 ms each
        self._connection.execute("PRAGMA synchronous = NORMAL")
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application != _APPLICATION and (application or tables):
            raise StudyError(f"{str(self.path)!r} is an SQLite file of something else. Give the study another file.")
        if version > _FORMAT:
            raise StudyError(f"{str(self.path)!r} was written by a newer version of braidwater. Install that one.")
        if tables:
            return
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        self._connection.execute(f"PRAGMA user_version = {_FORMAT}")
        self._connection.executescript(_TABLES)

    def document(self) -> dict[str, Any] | None:
        """What was searched; None where there is no study of this name yet."""
        with self._errors():
            row = self._connection.execute("SELECT document FROM study WHERE name = ?", [self.name]).fetchone()
        return None if row is None else json.loads(row[0])

    def names(self) -> list[str]:
        """All studies in the file."""
        with self._errors():
            return [name for (name,) in self._connection.execute("SELECT name FROM study ORDER BY name")]

    def trials(self) -> list[tuple[Trial, Proposal]]:
        """All trials, in the order of their numbers."""
        query = "SELECT document, proposal FROM trial WHERE study = ? ORDER BY number"
        with self._errors():
            rows = self._connection.execute(query, [self.name]).fetchall()
            return [(trial_of(json.loads(document)), Proposal.from_json(proposal)) for document, proposal in rows]

    def begin(self, document: dict[str, Any]) -> None:
        """Write down what is searched."""
        with self._writing():
            self._connection.execute("INSERT INTO study VALUES (?, ?)", [self.name, json.dumps(document)])

    def save(self, trial: Trial, proposal: Proposal) -> None:
        """Write down a trial as it is now."""
        row = [self.name, trial.number, trial.state, trial.value, document_of(trial), proposal.to_json()]
        with self._writing():
            self._connection.execute("INSERT OR REPLACE INTO trial VALUES (?, ?, ?, ?, ?, ?)", row)

    def lock(self) -> None:
        """Be the only one who searches in this study, until `close` or the end of the process."""
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        self._locked = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StudyError(
                f"Study {self.name!r} in {str(self.path)!r} is being searched by another process. Wait for its end, or "
                "give this search another study name."
            ) from error

    def close(self) -> None:
        """Let go of the file and of the lock."""
        self._connection.close()
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            there = self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            there = False
        if not there:  # SQLite would go on writing into a file that nobody can find
            raise StudyError(f"The study's storage {str(self.path)!r} was removed or replaced while the search ran.")
        with self._errors(), self._connection:
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StudyError(
                    f"The study's storage {str(self.path)!r} is locked by another process (for more than {PATIENCE:g} s)."
                ) from error
            raise StudyError(f"The study's storage {str(self.path)!r} cannot be used: {error}.") from error
        except (sqlite3.DatabaseError, json.JSONDecodeError, TypeError) as error:
            raise StudyError(
                f"The study's storage {str(self.path)!r} is damaged or no study: {error}. It was left as it is; restore it "
                "from a copy, or give another file."
            ) from error


def models_folder(storage: str | Path, name: str) -> Path:
    """Where the models of a study lie: beside its file; of one in a database in the cache directory of this machine."""
    if "://" in str(storage):
        from braidwater.model_selection.postgres_storage import without_password

        place = hashlib.sha256(without_password(str(storage)).rpartition("@")[2].encode()).hexdigest()[:16]
        return current_options().cache_directory / "studies" / place / quote(name, safe="")
    path = Path(storage)
    return path.with_name(f"{path.name}.files") / quote(name, safe="")


class Storage(Protocol):
    """Where trials are kept; see `StudyStorage` for what each method does."""

    path: Any
    name: str
    folder: Path

    def document(self) -> dict[str, Any] | None: ...
    def names(self) -> list[str]: ...
    def trials(self) -> list[tuple[Trial, Proposal]]: ...
    def begin(self, document: dict[str, Any]) -> None: ...
    def save(self, trial: Trial, proposal: Proposal) -> None: ...
    def lock(self) -> None: ...
    def close(self) -> None: ...


def storage_at(place: str | Path, name: str, *, make: bool = True) -> Storage:
    """The storage of a study: an SQLite file, or a PostgreSQL database. Without `make` it has to be there."""
    scheme, separator, _ = str(place).partition("://")
    if not separator:
        if not make and not Path(place).is_file():
            raise StudyError(f"There is no study at {str(place)!r}.")
        return StudyStorage(place, name)
    if scheme not in ("postgresql", "postgres"):
        raise OptionError("storage", scheme + "://…", "the path of an SQLite file, or postgresql://USER@HOST/DATABASE")
    with needed_for("A study in PostgreSQL"):
        from braidwater.model_selection.postgres_storage import PostgresStorage
    return PostgresStorage(str(place), name, make=make)


def document_of(trial: Trial) -> str:
    """The trial as JSON; `trial_of` reads it."""
    return json.dumps(vars(trial))  # asdict would copy every value, at ten times the time


def trial_of(document: dict[str, Any]) -> Trial:
    """The trial that was written down as a document."""
    fields = dict(document)
    for name in ("results", "reports"):
        fields[name] = {int(epoch): value for epoch, value in fields[name].items()}
    fields["values"] = None if fields["values"] is None else tuple(fields["values"])
    return Trial(**fields)
