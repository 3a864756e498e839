"""Starting Spark sessions for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
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
