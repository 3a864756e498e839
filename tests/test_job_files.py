"""The job files of docs/jobs.md, as the commands take them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from braidwater.cli.app import app
from braidwater.model_selection import Study
from braidwater.options import options

ROOT = Path(__file__).parents[1]
SEARCH, ABLATION = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "jobs.md").read_text(), re.DOTALL)[1:]


@pytest.fixture
def flights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    names = ("distance", "weather_wind", "weather_rain", "origin", "destination")
    columns = {name: random.normal(size=200) for name in names}
    late = (columns["weather_wind"] > 0).astype(np.int64)
    pq.write_table(pa.table({**columns, "late": late}), "flights.parquet")
    return tmp_path


def answer(*arguments: str) -> str:
    with options(cache_directory="cache"):
        found = CliRunner().invoke(app, list(arguments))
    assert found.exit_code == 0, found.output
    return found.stdout


def test_the_example_of_a_search_is_explained_and_runs(flights: Path) -> None:
    Path("job.toml").write_text(SEARCH)
    told = answer("search", "job.toml", "--explain")
    assert "at most 100 trials" in told
    assert "asha decides how far each is trained, compared by accuracy on" in told
    document = json.loads(
        answer("search", "job.toml", "--json", "--trials", "2", "--workers", "1", "--set", "epochs=1")
    )
    assert (document["study"], document["directions"], len(document["trials"])) == ("late", ["maximize"], 2)
    tried = {"learning_rate", "hidden", "batch_size", "optimizer_arguments.weight_decay"}
    assert set(document["best"]["parameters"]) == tried
    assert Path("search.html").exists()
    assert Path("late-model").is_dir()
    assert len(Study.open("studies.sqlite", "late").trials) == 2


def test_the_example_of_an_ablation_finds_what_counts(flights: Path) -> None:
    Path("job.toml").write_text(ABLATION.replace("repeats = 5", "repeats = 1").replace("epochs = 5", "epochs = 30"))
    document = json.loads(answer("ablate", "job.toml", "--json"))
    effects = {effect["component"]: effect for effect in document["effects"]}
    assert effects.pop("nothing")["metric"] > 0.8
    assert set(effects) == {"weather", "place", "second layer", "dropout"}
    assert max(effects, key=lambda name: effects[name]["harm"]) == "weather"
    assert Path("ablation.html").exists()
