"""Spark Connect: no SparkContext, no RDD, no plan to look into, and the same engine; in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from spark_sessions import SETTINGS, require_java

SCRIPT = """
import os, sys, warnings
warnings.filterwarnings("ignore")
os.environ["PYSPARK_PYTHON"] = sys.executable
from pyspark.sql import SparkSession
from braidwater import LinearRegression, table
from braidwater.engines.spark import SparkEngine
from braidwater.testing import ENGINE_CHECKS

def main():
    builder = SparkSession.builder.remote("local[2,4]")
    for name, value in {settings!r}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    make = lambda workers=2: SparkEngine(spark, workers, slots=2, host="127.0.0.1")
    wanted = ("error_names", "iteration_decides", "stopping", "tasks_end", "gang_shares", "dead_member")
    for check in ENGINE_CHECKS:
        if any(word in check.__name__ for word in wanted):
            check(make)
    rows = table(spark.range(1000).selectExpr("CAST(id AS DOUBLE) AS x", "CAST(2 * id AS DOUBLE) AS y"), name="connect")
    model = LinearRegression().fit(rows, label="y", engine=make())
    print("learnt", round(model.coef_[0], 6), model.predict(rows, engine=make()).frame.count(), type(spark).__module__)
    spark.stop()

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_connect_session_keeps_the_contract_too(tmp_path: Path) -> None:
    require_java()
    for module in ("grpc", "google.rpc"):
        pytest.importorskip(module, reason="Spark Connect needs pyspark[connect]")
    script = tmp_path / "connect.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("{settings!r}", repr(SETTINGS)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=580)
    assert "learnt 2.0 1000 pyspark.sql.connect" in done.stdout, done.stderr[-3000:]
