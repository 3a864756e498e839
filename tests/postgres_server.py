"""A PostgreSQL server for tests: installed where it is missing and may be, started on a spare port, removed at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

import braidwater

PASSWORD = "correct horse"
_PACKAGES = ("postgresql", "postgresql-plpython3-15")
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "jit": "off",
    "max_connections": "60",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "logging_collector": "off",
}


@dataclass
class Server:
    """A cluster of its own in `folder`, which the operating system's user `user` runs."""

    folder: Path
    binaries: Path
    port: int
    user: str | None

    def address(self, database: str = "postgres", *, role: str = "postgres", password: str = PASSWORD) -> str:
        """The URL by which `role` connects."""
        return f"postgresql://{role}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def run(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run statements as superuser; the rows of the last one."""
        with psycopg.connect(self.address(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def start(self, environment: dict[str, str] | None = None) -> None:
        """Start it; its Python finds this package and ours, unless `environment` says otherwise."""
        if environment is None:
            environment = {"PYTHONPATH": os.pathsep.join(_import_paths())}
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(self.folder / "numba")}
        self._control(
            "start", "-l", str(self.folder / "log"), "-o", f"-p {self.port}", "-w", env=kept | threads | environment
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop it; ``immediate`` is a crash, as far as its clients can tell."""
        self._control("stop", "-m", mode, "-w")

    def _control(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        command = [str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), "-s", *arguments]
        _as(self.user, command, env=env)


def _import_paths() -> list[str]:
    return [
        str(Path(braidwater.__file__).parent.parent),
        *(path for path in sys.path if path.endswith("site-packages")),
    ]


def _as(user: str | None, command: list[str], *, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, user=user, env=env, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")


def _binaries() -> Path:
    """The folder of PostgreSQL's programs, with PL/Python beside them; installs them where this user may."""
    found = _find()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *_PACKAGES]):
            subprocess.run(["apt-get", "-qq", *command], env=quiet, capture_output=True, check=False, timeout=240)
        found = _find()
    if found is None:
        pytest.skip(f"PostgreSQL with PL/Python is not installed, and cannot be: apt-get install {' '.join(_PACKAGES)}")
    return found


def _find() -> Path | None:
    for folder in sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True
    ):
        if (folder / "initdb").exists() and (folder.parent / "lib" / "plpython3.so").exists():
            return folder
    return None


def start_server(**settings: str) -> Server:
    """A new cluster, running. Takes about two seconds."""
    binaries = _binaries()
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="braidwater-postgres-"))
    (folder / "password").write_text(PASSWORD)
    if user is not None:
        owner = pwd.getpwnam(user)
        for path in (folder, folder / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    _as(
        user,
        [
            str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "--no-sync", "--no-instructions",
            "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--encoding=UTF8", "--locale=C.UTF-8",
        ],
    )  # fmt: skip
    with open(folder / "data" / "postgresql.conf", "a") as file:
        for name, value in {**_SETTINGS, **settings, "unix_socket_directories": str(folder)}.items():
            file.write(f"{name} = '{value}'\n")
    with socket.socket() as spare:
        spare.bind(("127.0.0.1", 0))
        port = spare.getsockname()[1]
    server = Server(folder, binaries, port, user)
    server.start()
    return server


def remove_server(server: Server) -> None:
    """Stop it and remove all it left."""
    try:
        server.stop("immediate")
    except RuntimeError:
        time.sleep(0.2)  # a test has stopped it
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests of this process, with braidwater installed in the database ``trained``."""
    found = start_server()
    try:
        yield found
    finally:
        remove_server(found)
