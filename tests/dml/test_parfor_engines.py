"""Parallel loops and the parameter server as tasks of an engine: of this machine, and of a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parallel_scripts
from braidwater import dml
from braidwater.dml.interpreter.paramserv import tasks as requests
from braidwater.dml.interpreter.parfor import tasks as shares
from braidwater.engines import Capabilities, Engine, LocalEngine
from braidwater.engines.postgres import PostgresEngine
from braidwater.engines.postgres.install import install
from braidwater.errors import UnsupportedError
from braidwater.events import WorkerLost, listen
from parallel_scripts import check_training, check_turns
from postgres_server import Server


@pytest.fixture(scope="module")
def of_server(server: Server) -> Iterator[Engine]:
    server.run("CREATE DATABASE scripts")
    install(server.address("scripts"))
    with PostgresEngine(server.address("scripts"), 2) as engine:
        assert not engine.files_here  # it runs as another user, who may not read what tests write
        yield engine


@pytest.fixture(params=["local", "postgres"])
def engine(request: pytest.FixtureRequest) -> Any:
    return LocalEngine(2) if request.param == "local" else request.getfixturevalue("of_server")


def test_turns_as_tasks_leave_what_turns_leave(engine: Engine, tmp_path: Path) -> None:
    check_turns(engine, tmp_path)


def test_workers_as_tasks_bring_the_model_that_workers_in_turns_bring(engine: Engine) -> None:
    check_training(engine)


@pytest.mark.parametrize("what", ["turns", "training"])
def test_a_killed_process_loses_nothing(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that takes its place knows nothing of the training, and is told of it."""
    lost: list[WorkerLost] = []
    monkeypatch.setattr(shares, "run_share", partial(parallel_scripts.share_that_dies, str(tmp_path)))
    monkeypatch.setattr(requests, "run_request", partial(parallel_scripts.request_that_dies, str(tmp_path)))
    with listen(lambda event: lost.append(event) if isinstance(event, WorkerLost) else None):
        if what == "turns":
            check_turns(LocalEngine(2), tmp_path)
        else:
            check_training(LocalEngine(2))
    assert [event.restart for event in lost] == [True]


class WithoutTasks(LocalEngine):
    name = "other"
    capabilities = Capabilities(tasks=False, notes={"tasks": "Engine 'other' runs no tasks: use LocalEngine."})


@pytest.mark.parametrize("script", ["parfor (i in 1:4, mode=REMOTE_SPARK) print(i)", parallel_scripts.NET])
def test_an_engine_that_runs_no_tasks_says_so_before_a_turn_runs(script: str) -> None:
    shown: list[str] = []
    inputs, engine = {"X": np.ones((4, 1)), "V": np.zeros((1, 4))}, WithoutTasks(2)
    with pytest.raises(UnsupportedError, match="use LocalEngine"):
        dml.run(script.replace("WAY", "REMOTE_SPARK"), inputs, [], engine=engine, show=shown.append)
    assert shown == []
    script = script.replace("REMOTE_SPARK", "LOCAL").replace("WAY", "LOCAL")
    dml.run(script, inputs, [], engine=engine, show=shown.append)  # nobody asked for them
