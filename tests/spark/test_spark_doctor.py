"""``braidwater doctor`` says what Spark lacks, and how to mend it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from braidwater.cli.doctor_spark import _worker, findings, java_finding, python_finding

OURS = "{}.{}".format(*sys.version_info[:2])


def program(path: Path, words: str) -> str:
    """A program that says only that, on both streams."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{words}'\necho '{words}' >&2\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("words", "state"), [('openjdk version "21.0.1" 2023', "good"), ('java version "11.0.2"', "bad"), ("?", "bad")]
)
def test_an_old_java_is_told_from_a_new_one(tmp_path, monkeypatch, words, state):
    program(tmp_path / "bin" / "java", words)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found = java_finding()
    assert found.state == state
    assert ("apt-get install openjdk-17" in found.detail) == (state == "bad")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    assert "no bin/java in it" in java_finding().detail


@pytest.mark.parametrize(
    ("words", "told"),
    [(OURS, ""), ("3.8", "is Python 3.8, this is"), (f"{OURS} pyarrow", "has no pyarrow"), (None, "not run")],
)
def test_the_python_that_spark_would_start_is_looked_at(tmp_path, monkeypatch, words, told):
    path = str(tmp_path / "none") if words is None else program(tmp_path / "python", words)
    monkeypatch.setenv("PYSPARK_PYTHON", path)
    found = python_finding()
    assert found.state == ("missing" if told else "good")
    assert told in found.detail
    assert ("set PYSPARK_PYTHON=" in found.detail) == bool(told)


@pytest.mark.parametrize(
    ("told", "state", "mend"),
    [
        (("3.8.1", "0.1", "2.9", "True"), "bad", "pickles need the same"),
        ((f"{OURS}.0", "0.0", "2.9", "True"), "bad", "pip install braidwater=="),
        ((f"{OURS}.0", "", "2.9", "False"), "bad", "spark.braidwater.shared"),
        ((f"{OURS}.0", "", "-", "True"), "missing", r"braidwater[deep]"),
        ((f"{OURS}.0", "", "2.9", "True"), "good", "torch 2.9"),
    ],
)
def test_a_worker_s_words_are_judged(monkeypatch, told, state, mend):
    monkeypatch.setattr("braidwater.cli.doctor_spark.version", lambda name: "1.0")
    python, package, *rest = told
    found = _worker(" ".join(["machine", python, package or "1.0", *rest]), Path("/shared"))
    assert (found.state, mend in found.detail) == (state, True)


def test_the_workers_of_a_session_are_asked(spark):
    pyspark, java, session, worker = findings("local[3,4]")
    assert {pyspark.state, java.state, session.state, worker.state} == {"good"}
    assert "3 slots" in session.detail
    assert OURS in worker.detail
