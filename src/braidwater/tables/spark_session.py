"""Spark sessions: the active one, a new one, and what is missing where there can be none."""

from __future__ import annotations

import os
import re
import shutil
import sys
from typing import Any

from braidwater.errors import TableError, UnsupportedError
from braidwater.extras import needed_for

_JAVA = (
    "Spark needs Java 17 or newer, and there is none: install one (Debian: apt-get install openjdk-17-jre-headless), "
    "or set JAVA_HOME."
)


def start_session(master: str = "local[*]", *, name: str = "braidwater", **settings: str) -> Any:
    """The active Spark session, or a new one at `master`, with what keeps gangs from waiting in silence.

    Takes about 6 s for ``local[n]``. `settings` are Spark's own, their dots written as two underscores:
    ``start_session("local[4,3]", spark__driver__memory="2g")``. ``local[4,3]`` lets Spark try each task three times;
    with ``local[4]`` a job ends with the first Python worker that dies.
    """
    require_java()
    session = _pyspark().SparkSession
    active = session.getActiveSession()
    if active is not None:
        return active
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else the workers run the python3 of PATH
    builder = session.builder.appName(name).master(master)
    # a gang that is larger than the cluster: an error after two seconds, where Spark would wait for ten minutes
    builder = builder.config("spark.scheduler.barrier.maxConcurrentTasksCheck.interval", "1s")
    builder = builder.config("spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures", "2")
    for key, value in settings.items():
        builder = builder.config(key.replace("__", "."), value)
    return builder.getOrCreate()


def require_java() -> None:
    """Raise `UnsupportedError` where there is no Java to run Spark."""
    _pyspark()
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") is None and not (home and os.path.exists(os.path.join(home, "bin", "java"))):
        raise UnsupportedError(_JAVA)


def _pyspark() -> Any:
    with needed_for("A Spark table or engine"):
        import pyspark.sql
    return pyspark.sql


def session_at(server: str) -> Any:
    """The session of an address: ``spark://HOST:PORT`` (a standalone master), ``spark://local[4]``, ``sc://HOST:PORT`` (Connect),
    or ``spark://`` (the active one).
    """
    if server.startswith("sc://"):
        return _pyspark().SparkSession.builder.remote(server).getOrCreate()
    master = server.removeprefix("spark://").rstrip("/")
    if not master:
        active = _pyspark().SparkSession.getActiveSession()
        if active is None:
            raise TableError("The address spark:// means the active Spark session, and there is none.")
        return active
    if not re.fullmatch(r"local(-cluster)?\[[^\]]+\]|yarn|[^/:]+:\d+", master):
        raise TableError(
            f"{server!r} names no Spark: write spark://HOST:PORT::TABLE, spark://local[4]::TABLE, sc://HOST:PORT::TABLE for "
            "Spark Connect, or give the session itself: table(spark, 'name')."
        )
    return start_session(f"spark://{master}" if ":" in master else master)


def short(error: BaseException) -> str:
    """What Spark says, without the stack of its JVM; of several causes the last, which is the first that happened."""
    lines = [line.strip() for line in str(error).splitlines()]
    causes = [number for number, line in enumerate(lines) if line.startswith("Caused by: ")]
    told = lines[causes[-1] :] if causes else lines
    said = [line.removeprefix("Caused by: ") for line in told if line and not line.startswith(("at ", "... "))]
    return " ".join(" ".join(said[:6]).split())[:1500]
