"""Studies that are kept in a PostgreSQL database: two people at once, interruptions, a server that goes away."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pytest

from braidwater.errors import OptionError, StudyError
from braidwater.events import Event, TrialEnded, listen
from braidwater.model_selection import Float, LogFloat, Study, search
from braidwater.model_selection.postgres_storage import PostgresStorage, without_password
from braidwater.options import options
from postgres_server import PASSWORD, Server, remove_server, start_server
from search_models import Parabola

ROWS = pa.table({"x": [0.0, 1.0, 2.0, 3.0], "y": [0, 1, 0, 1]})
PLANE = {"x": Float(-1, 1), "rate": LogFloat(1e-4, 1.0)}
RUN = {"metric": "loss", "validation": None, "workers": 1}


@pytest.fixture(scope="module")
def studies(server: Server) -> str:
    server.run("CREATE DATABASE studies")
    return server.address("studies")


def test_a_study_in_a_database_is_that_of_a_file(studies: str, tmp_path: Path) -> None:
    with options(cache_directory=tmp_path / "cache"):
        search(Parabola(), PLANE, ROWS, budget=3, storage=studies, name="mine", **RUN)
        study = search(Parabola(), PLANE, ROWS, budget=6, storage=studies, name="mine", **RUN)
        again = Study.open(studies, "mine")
    alone = search(Parabola(), PLANE, ROWS, budget=6, storage=tmp_path / "s.sqlite", name="mine", **RUN)
    told = [(trial.number, trial.state, trial.parameters, trial.values, trial.reports) for trial in alone.trials]
    for other in (study, again):
        assert [(t.number, t.state, t.parameters, t.values, t.reports) for t in other.trials] == told
    assert again.to_optuna().best_value == alone.best_value
    assert (again.metrics, again.directions) == (alone.metrics, alone.directions)
    assert tmp_path / "cache" in again.folder.parents
    with pytest.raises(StudyError, match="its space is"):
        search(Parabola(), {"x": Float(0, 1)}, ROWS, budget=6, storage=studies, name="mine", **RUN)
    with pytest.raises(StudyError, match=r"There is no study 'yours' in .*; there is 'mine'"):
        Study.open(studies, "yours")


def test_two_people_search_at_once_and_not_in_the_same_study(studies: str) -> None:
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_study_database import PLANE, ROWS, RUN, Parabola, search
        if __name__ == "__main__":
            print("ready", flush=True)
            sys.stdin.readline()
            search(Parabola(seconds=0.3), PLANE, ROWS, budget=8, storage=sys.argv[1], name="theirs", **RUN)
        """
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, studies],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "ready\n"
    refusals = []

    def meddle(event: Event) -> None:
        """After our first trial theirs begins; we see its trials come, and may not search in it."""
        if not isinstance(event, TrialEnded):
            return
        if event.number == 0:
            child.stdin.write("go\n")
            child.stdin.flush()
        if not refusals and _is_there(studies, "theirs"):
            with pytest.raises(
                StudyError, match=r"'theirs' in postgresql.* is being searched by somebody else"
            ) as refused:
                search(Parabola(), PLANE, ROWS, budget=1, storage=studies, name="theirs", **RUN)
            refusals.append(str(refused.value))

    with listen(meddle):
        ours = search(Parabola(seconds=0.4), PLANE, ROWS, budget=20, storage=studies, name="ours", **RUN)
    _, complaint = child.communicate(timeout=60)
    assert child.returncode == 0, complaint
    assert len(refusals) == 1
    assert len(ours.trials) == len(Study.open(studies, "ours").trials) == 20
    theirs = Study.open(studies, "theirs")
    assert [trial.state for trial in theirs.trials] == ["complete"] * 8
    assert [trial.parameters for trial in theirs.trials] == [trial.parameters for trial in ours.trials[:8]]


def _is_there(address: str, name: str) -> bool:
    storage = PostgresStorage(address, name)
    try:
        return bool(storage.trials())
    finally:
        storage.close()


def test_a_server_that_goes_away_is_told_and_the_search_goes_on_later(tmp_path: Path) -> None:
    server = start_server()
    try:
        address = server.address()
        whole = search(Parabola(), PLANE, ROWS, budget=6, storage=tmp_path / "s.sqlite", **RUN)

        def crash(event: Event) -> None:
            if isinstance(event, TrialEnded) and event.number == 2:
                server.stop("immediate")

        with options(cache_directory=tmp_path), listen(crash), pytest.raises(StudyError, match="was lost") as lost:
            search(Parabola(), PLANE, ROWS, budget=6, storage=address, **RUN)
        assert PASSWORD not in str(lost.value)
        with pytest.raises(StudyError, match="cannot be reached"):
            Study.open(address)
        server.start()
        assert [trial.state for trial in Study.open(address).trials][:3] == ["complete"] * 3
        with options(cache_directory=tmp_path):
            study = search(Parabola(), PLANE, ROWS, budget=6, storage=address, **RUN)
        assert [(t.parameters, t.value) for t in study.trials] == [(t.parameters, t.value) for t in whole.trials]

        def remove(event: Event) -> None:
            if isinstance(event, TrialEnded):
                server.run("DROP SCHEMA braidwater_studies CASCADE")

        with listen(remove), pytest.raises(StudyError, match="was removed while the search ran"):
            search(Parabola(), PLANE, ROWS, budget=8, storage=address, **RUN)
    finally:
        remove_server(server)


def test_what_a_server_refuses_is_told_without_the_password(server: Server) -> None:
    server.run("CREATE DATABASE strict", "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    server.run("REVOKE ALL ON DATABASE strict FROM PUBLIC", "GRANT CONNECT ON DATABASE strict TO guest")
    guest = server.address("strict", role="guest", password="guest")
    with pytest.raises(StudyError, match=r"There is no study in postgresql://guest@127.0.0.1"):
        Study.open(guest)
    with pytest.raises(StudyError, match=r"permission denied for database strict. Studies need CREATE"):
        search(Parabola(), PLANE, ROWS, budget=1, storage=guest, **RUN)
    with pytest.raises(StudyError, match="password authentication failed") as refused:
        Study.open(server.address(password="not this one"))
    assert "not this" not in str(refused.value)
    with pytest.raises(StudyError, match="postgresql://USER@HOST/DATABASE"):
        Study.open("postgresql://u:secret@[half")
    with pytest.raises(OptionError, match="storage='mysql"):
        Study.open("mysql://here/studies")
    assert without_password("postgresql:///studies") == "postgresql://localhost/studies"
