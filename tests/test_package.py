"""The package as a whole: light to import, its names are there, the README's code runs."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import braidwater
from braidwater import errors
from braidwater.events import Event, Metric, as_record, emit, from_record, listen
from braidwater.options import Options, current_options, options

ROOT = Path(__file__).parent.parent


def test_every_public_name_is_there_and_described():
    for name in braidwater.__all__:
        assert getattr(braidwater, name).__doc__, name
        assert not inspect.ismodule(getattr(braidwater, name)), name
    assert set(braidwater.__all__) <= set(dir(braidwater))
    with pytest.raises(AttributeError, match="nothing"):
        _ = braidwater.nothing


HEAVY = ("torch", "sklearn", "numba", "scipy", "pandas", "pyarrow", "duckdb", "pyspark")


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import braidwater", HEAVY),
        ("import braidwater.cli", HEAVY),
        ("import braidwater; braidwater.table; braidwater.train_test_split", ("torch", "sklearn", "numba", "pandas")),
        ("import braidwater; braidwater.LogisticRegression", ("torch",)),
        ("import braidwater; braidwater.AllReduce, braidwater.Averaging", ("sklearn",)),
    ],
)
def test_importing_loads_no_more_than_is_needed(code, heavy):
    script = f"{code}\nimport sys\nprint([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_examples_of_the_readme_run(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for code in blocks:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr


def test_every_error_stands_in_the_tree_of_its_module():
    tree = errors.__doc__
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and kind.__module__ == errors.__name__:
            assert name in tree, f"{name} is missing from the tree in errors.py"
            assert issubclass(kind, (errors.BraidwaterError, errors.BraidwaterWarning))


def test_events_cross_processes_as_records():
    for kind in Event.__subclasses__():
        assert kind.__doc__
    event = Metric(name="loss", value=0.5, step=3, epoch=1)
    assert from_record(as_record(event)) == event


def test_listeners_hear_what_happens_inside_and_nothing_else():
    heard = []
    with listen(heard.append):
        emit(Metric(name="a", value=1.0, step=1))
    emit(Metric(name="b", value=1.0, step=1))
    assert [event.name for event in heard] == ["a"]


def test_options_hold_inside_their_block_and_are_checked():
    before = current_options()
    with options(memory="512MB", workers=1) as inside:
        assert (inside.memory, current_options().workers) == (512_000_000, 1)
    assert current_options() == before
    for wrong in ({"memory": "lots"}, {"memory": 10}, {"workers": 0}, {"color": 1}):
        with pytest.raises(errors.OptionError), options(**wrong):
            pass


def test_options_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAIDWATER_MEMORY", "256MB")
    monkeypatch.setenv("BRAIDWATER_WORKERS", "3")
    monkeypatch.setenv("BRAIDWATER_CACHE", str(tmp_path))
    found = Options()
    assert (found.memory, found.workers, found.cache_directory) == (256_000_000, 3, tmp_path)


def test_the_support_table_is_that_of_the_declarations():
    from braidwater.testing.support import support_table

    assert (ROOT / "docs" / "support.md").read_text() == support_table()


def test_the_example_of_a_job_file_is_one(tmp_path):
    from braidwater.cli.job import Job

    text = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "jobs.md").read_text(), re.DOTALL)[1]
    assert set(tomllib.loads(text)) <= {field.name for field in dataclasses.fields(Job)}


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import braidwater as bw
from braidwater.errors import UnsupportedError

try:
    {use}
except UnsupportedError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("packages", "use", "told"),
    [
        (["torch"], "bw.Trainer", "pip install 'braidwater[deep]'"),
        (["torch"], "bw.AllReduce", "pip install 'braidwater[deep]'"),
        (["optuna"], "bw.search(bw.KMeans(), {}, 'table.parquet')", "pip install 'braidwater[search]'"),
        (["psycopg", "adbc_driver_manager"], "bw.table('postgresql://a@b/c::d')", "pip install 'braidwater[postgres]'"),
        (["psycopg"], "bw.sql.connect('postgresql://a@b/c')", "pip install 'braidwater[postgres]'"),
        (["pyspark"], "bw.table('spark://local[2]::x')", "pip install 'braidwater[spark]'"),
    ],
)
def test_what_needs_an_extra_says_how_to_install_it(packages, use, told):
    program = WITHOUT.format(packages=packages, use=use)
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told in found.stdout


def test_the_command_line_says_how_to_install_an_extra():
    program = WITHOUT.format(
        packages=["psycopg"],
        use="sys.argv[1:] = ['postgres', 'doctor', 'postgresql://a@b/c']; from braidwater.cli import main; main()",
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "Error: This command needs psycopg: pip install 'braidwater[postgres]'.\n"
