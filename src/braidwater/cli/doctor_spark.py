"""What ``braidwater doctor`` looks at for Spark: here, and with ``--spark MASTER`` on the workers of a session."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import NamedTemporaryFile

from braidwater.cli.finding import Finding
from braidwater.errors import BraidwaterError
from braidwater.extras import how_to_install
from braidwater.tables.spark import SHARED, shared_folder
from braidwater.tables.spark_session import session_at, short

_JAVA = 17
_INSTALL_JAVA = (
    f"install Java {_JAVA} or newer (Debian: apt-get install openjdk-{_JAVA}-jre-headless), or set JAVA_HOME"
)
_INSTALL = how_to_install("pyspark")
_ASK = (
    "import sys, importlib.util as u; print('%d.%d' % sys.version_info[:2], "
    "*[n for n in ('braidwater', 'pyarrow') if u.find_spec(n) is None])"
)


def findings(master: str | None) -> Iterator[Finding]:
    """pyspark, Java and the Python that Spark would start; with a `master`, what its workers have."""
    try:
        yield Finding("pyspark", "good", version("pyspark"))
    except PackageNotFoundError:
        yield Finding("pyspark", "bad" if master else "missing", f"for Spark: {_INSTALL}")
        return
    java = java_finding()
    yield java
    if master is None:
        yield python_finding()
    elif java.state == "good":
        yield from worker_findings(master)


def java_finding() -> Finding:
    """The Java that a session of this machine would run in."""
    home = os.environ.get("JAVA_HOME")
    program = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if not program or not os.path.exists(program):
        where = f"JAVA_HOME is {home!r}, and there is no bin/java in it: " if home else ""
        return Finding("Java", "missing", f"for Spark: {where}{_INSTALL_JAVA}")
    done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False, timeout=60)
    told = re.search(r'version "(\d+)[^"]*"', done.stderr)
    if told is None:
        return Finding("Java", "bad", f"{program} does not say its version: {_INSTALL_JAVA}")
    old = int(told[1]) < _JAVA
    return Finding("Java", "bad" if old else "good", told[0].removeprefix("version ") + (f": {_INSTALL_JAVA}" * old))


def python_finding() -> Finding:
    """The Python that Spark starts its workers with, where a session was not made by `start_session`."""
    name = "Python of Spark"
    program = os.environ.get("PYSPARK_PYTHON", "python3")
    mend = f"set PYSPARK_PYTHON={sys.executable} before a session starts (start_session does)"
    try:
        done = subprocess.run([program, "-c", _ASK], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return Finding(name, "missing", f"{program} does not run: {mend}")
    python, *missing = done.stdout.split()
    if python != _ours():
        return Finding(name, "missing", f"{program} is Python {python}, this is {_ours()}: {mend}")
    if missing:
        return Finding(name, "missing", f"{program} has no {' and no '.join(missing)}: {mend}")
    return Finding(name, "good", f"{program}, Python {python}")


def worker_findings(master: str) -> Iterator[Finding]:
    """A session at `master`, and what a task on each of its slots sees."""
    from braidwater.engines.spark.session import Session, new_tag

    try:
        spark = session_at(master if "://" in master or ":" not in master else f"spark://{master}")
        session = Session(spark)
        slots = session.slots()
    except BraidwaterError as error:
        yield Finding("Spark session", "bad", str(error))
        return
    except Exception as error:
        yield Finding("Spark session", "bad", short(error))
        return
    yield Finding("Spark session", "good", f"{session.master}, {slots} slots, the driver is {session.host}")
    try:
        folder = Path(shared_folder(spark))
        folder.mkdir(parents=True, exist_ok=True)
    except (BraidwaterError, OSError) as error:
        yield Finding("shared folder", "missing", str(error))
        folder = None
    with _probe(folder) as probe:
        try:
            rows = session.run(partial(_look, probe), max(slots, 1), tag=new_tag("doctor"))
        except BraidwaterError as error:
            needed = f"the workers need Python {_ours()} with braidwater, pyarrow and cloudpickle"
            yield Finding("Spark's workers", "bad", f"{needed}. {error}")
            return
    yield from (_worker(told, folder) for told in sorted({told.decode() for _, told in rows}))


@contextmanager
def _probe(folder: Path | None) -> Iterator[str]:
    """A file that a worker finds where it sees the folder."""
    if folder is None:
        yield ""
        return
    with NamedTemporaryFile(dir=folder, prefix="braidwater-doctor-") as file:
        yield file.name


def _look(probe: str, number: int) -> list[bytes]:
    """Called on a worker: its machine, versions, and whether it sees the file."""
    sees = not probe or os.path.exists(probe)
    found = [socket.gethostname(), platform.python_version(), _version("braidwater"), _version("torch"), str(sees)]
    return [" ".join(found).encode()]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def _worker(told: str, folder: Path | None) -> Finding:
    host, python, package, torch, sees = told.split()
    name = f"worker on {host}"
    ours = _version("braidwater")
    detail = f"Python {python}, braidwater {package}, torch {torch}"
    if python.rsplit(".", 1)[0] != _ours():
        return Finding(name, "bad", f"{detail}: the driver has Python {_ours()}, pickles need the same")
    if package != ours:
        return Finding(name, "bad", f"{detail}: the driver has braidwater {ours}; pip install braidwater=={ours} there")
    if sees != "True":
        return Finding(name, "bad", f"{detail}: does not see the shared folder {str(folder)!r} ({SHARED})")
    if torch == "-":
        return Finding(name, "missing", f"{detail}: nets need torch there, {how_to_install('torch')}")
    return Finding(name, "good", detail)


def _ours() -> str:
    return "{}.{}".format(*sys.version_info[:2])
