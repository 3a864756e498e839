"""One Spark session for all tests of this process. It runs inside the JVM of the test, on as many threads as gangs need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from spark_sessions import standalone, start

from braidwater.engines.spark import SparkEngine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The extra asks for pandas 2; where a newer one is there all the same, Spark complains, and nothing here uses pandas."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas"))


_running: dict[str, Any] = {}


def running(master: str, folders: pytest.TempPathFactory, **more: str) -> Any:
    """The session at `master`. A process has one at a time: another one is stopped."""
    if master not in _running:
        while _running:
            _running.popitem()[1].stop()
        _running[master] = start(master, folders.mktemp("spark"), **more)
    return _running[master]


@pytest.fixture(scope="session", autouse=True)
def _stop() -> Iterator[None]:
    yield
    while _running:
        _running.popitem()[1].stop()


@pytest.fixture
def spark(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Threads of one JVM: three slots, which is what the largest gang needs, and four attempts for a task."""
    return running("local[3,4]", tmp_path_factory)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A master and two executors, each a JVM of its own with Python workers of its own, and one slot."""
    return running("local-cluster[2,1,1024]", tmp_path_factory)


@pytest.fixture
def four_slots(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two executors with two slots each, for gangs of four."""
    return running("local-cluster[2,2,1024]", tmp_path_factory)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session at a standalone master whose two workers, of one core each, are at 127.0.0.2."""
    with standalone(tmp_path_factory.mktemp("standalone")) as place:
        yield running(place, tmp_path_factory, **{"spark.executor.memory": "512m"})
        _running.popitem()[1].stop()


@pytest.fixture
def make(spark: Any) -> Any:
    """Engines by their number of workers."""
    return lambda workers=2: SparkEngine(spark, workers)
