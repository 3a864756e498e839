"""Starting Spark sessions for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_JRE = "openjdk-17-jre-headless"
SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    # a JVM of minutes: what it compiles hardly pays
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.log.level": "OFF",
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    # where workers are to be found by others, once the driver is asked for at another address than 127.0.0.1
    "spark.executorEnv.BRAIDWATER_HOST": "127.0.0.2",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "2",
}


def require_java() -> None:
    """Java, installed where it is missing and may be; else the test is skipped."""
    pytest.importorskip("pyspark", reason="the extra [spark] is not installed")
    if shutil.which("java") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", _JRE]):
            subprocess.run(["apt-get", "-qq", *command], env=quiet, capture_output=True, check=False, timeout=240)
    if shutil.which("java") is None:
        pytest.skip(f"Java is not installed, and cannot be: apt-get install {_JRE}")


@contextmanager
def standalone(folder: Path, *, workers: int = 2, host: str = "127.0.0.2") -> Iterator[str]:
    """A standalone cluster of Spark's: a master here and `workers` with a core each at `host`, as start-master.sh makes them."""
    require_java()
    import pyspark

    with socket.create_server(("127.0.0.1", 0)) as spare:
        port = spare.getsockname()[1]
    program = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
    place = f"spark://127.0.0.1:{port}"
    deploy = "org.apache.spark.deploy"
    common = ("--webui-port", "0")
    commands = [(f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", str(port), *common)]
    of_worker = ("--host", host, "--cores", "1", "--memory", "1g", "--work-dir", str(folder / "work"), *common, place)
    commands += [(f"{deploy}.worker.Worker", *of_worker)] * workers
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_NO_DAEMONIZE": "1",
        "SPARK_DAEMON_MEMORY": "256m",
    }
    running = []
    try:
        for number, command in enumerate(commands):
            with open(folder / f"{number}.log", "wb") as log:
                running.append(subprocess.Popen([program, *command], stdout=log, stderr=log, env=environment))
        yield place
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(30)


def start(master: str, folder: Path, **more: str) -> Any:
    """A session of its own."""
    require_java()
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(master).appName("braidwater tests")
    places = {
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.braidwater.shared": str(folder / "shared"),
    }
    for name, value in {**SETTINGS, **places, **more}.items():
        builder = builder.config(name, value)
    (folder / "shared").mkdir()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
        return builder.getOrCreate()
