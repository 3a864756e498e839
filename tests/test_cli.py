"""The command line: the same words as in Python, JSON for programs, one sentence for mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import braidwater as bw
from braidwater.cli.app import app
from braidwater.cli.job import Job, job_of, parse_setting
from braidwater.errors import UserError
from braidwater.report.models import ESTIMATORS
from braidwater.saving import load_model

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def answer(*arguments: str) -> dict[str, Any]:
    """The JSON object of a command that must work: all of standard output, and nothing else on it."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout, parse_constant=pytest.fail)
    return document


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Parquet file of two classes: late is likelier for long and winter flights."""
    folder = tmp_path_factory.mktemp("cli")
    random = np.random.default_rng(0)
    distance, winter = random.normal(size=600), random.integers(0, 2, 600)
    odds = 1.5 * distance + 1.0 * winter - 0.5
    late = random.random(600) < 1 / (1 + np.exp(-odds))
    season = ["winter" if w else "summer" for w in winter]
    columns = {"distance": distance, "season": season, "noise": random.normal(size=600), "late": late.astype(np.int64)}
    pq.write_table(pa.table(columns), folder / "flights.parquet")
    with_nulls = pa.array([None if row % 20 == 0 else value for row, value in enumerate(distance)])
    pq.write_table(pa.table({**columns, "distance": with_nulls}), folder / "nulls.parquet")
    return folder


@pytest.fixture(autouse=True)
def _inside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def test_train_reports_what_python_computes(home: Path) -> None:
    found = answer(
        "train", "logistic_regression", "flights.parquet", "--label", "late", "--exclude", "noise", "--output", "late"
    )
    model = bw.LogisticRegression().fit("flights.parquet", label="late", exclude=["noise"])
    expected = model.coefficients_.to_dict()
    assert found["estimator"] == "logistic_regression"
    assert found["rows"] == 600
    assert found["passes"] == model.n_iter_
    assert found["seconds"] > 0
    assert found["coefficients"] == pytest.approx(expected["coefficient"])
    assert set(found["coefficients"]) == {"intercept", "distance", "season[winter]"}
    assert found["standard_errors"] == pytest.approx(expected["standard_error"])
    assert set(found["metrics"]) == {"accuracy", "log_loss", "roc_auc"}
    assert found["plan"]["chosen"]["strategy"] == "data"
    assert found["plan"]["steps"]["measured"]["seconds"] > 0
    saved = load_model(home / "late").document
    assert saved["metrics"] == found["metrics"]
    assert saved["fitted"]["trained_on_"]["schema"]["distance"] == "double"
    assert saved["plan"]["text"] == found["plan"]["text"]


def test_the_options_mean_what_their_names_say() -> None:
    found = answer(
        "train", "logistic_regression", "flights.parquet", "--label", "late", "--features", "distance,noise",
        "--set", "alpha=0.5", "--set", "solver=newton", "--test", "0.25", "--seed", "3", "--workers", "1",
        "--memory", "64MB", "--output", "options",
    )  # fmt: skip
    train, _ = bw.train_test_split(bw.table("flights.parquet"), 0.25, seed=3)
    assert found["rows"] == len(train)
    assert found["evaluated_on"] == "held-out rows"
    assert set(found["coefficients"]) == {"intercept", "distance", "noise"}
    assert found["plan"]["chosen"]["workers"] == 1
    assert found["plan"]["memory_limit"] == 64_000_000
    model = bw.load("options")
    assert (model.alpha, model.solver) == (0.5, "newton")


def test_predict_adds_columns_and_evaluate_agrees_with_them(home: Path) -> None:
    trained = answer("train", "logistic_regression", "flights.parquet", "--label", "late", "--output", "m")
    found = answer("predict", "m", "flights.parquet", "--output", "out.parquet")
    assert found == {
        "rows": 600,
        "output": "out.parquet",
        "columns": ["prediction", "probability_0", "probability_1"],
    }
    out = pq.read_table(home / "out.parquet")
    original = pq.read_table(home / "flights.parquet")
    assert out.select(original.column_names).equals(original)
    accuracy = np.mean(out["prediction"].to_numpy() == out["late"].to_numpy())
    evaluated = answer("evaluate", "m", "flights.parquet")
    assert evaluated["rows"] == 600
    assert evaluated["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert evaluated["metrics"] == pytest.approx(trained["metrics"])


def test_a_number_as_label_gets_the_metrics_of_regression() -> None:
    answer("train", "linear_regression", "flights.parquet", "--label", "noise", "--exclude", "season", "--output", "lm")
    assert set(answer("evaluate", "lm", "flights.parquet")["metrics"]) == {"r2", "rmse", "mae"}


@pytest.mark.parametrize(
    ("name", "setting", "metric"), [("k_means", "n_clusters=2", "inertia"), ("pca", "n_components=1", None)]
)
def test_models_without_a_label_train_too(name: str, setting: str, metric: str | None) -> None:
    found = answer("train", name, "flights.parquet", "--features", "distance,noise", "--set", setting, "--output", name)
    assert found["coefficients"] == {}
    assert metric is None or found["metrics"][metric] > 0


def test_people_get_a_table_and_progress_goes_to_standard_error() -> None:
    result = call("train", "logistic_regression", "flights.parquet", "--label", "late", "--output", "people")
    assert result.exit_code == 0
    assert "std err" in result.stdout
    assert "accuracy (training rows)" in result.stdout
    assert "saved to people" in result.stdout
    assert "pass 1" in result.stderr
    assert "pass 1" not in result.stdout


def test_explain_prints_the_plan_and_trains_nothing(home: Path) -> None:
    arguments = ("logistic_regression", "flights.parquet", "--label", "late", "--workers", "1", "--output", "never")
    result = call("explain", *arguments)
    assert result.exit_code == 0, result.output
    assert "logistic_regression over flights.parquet: 600 rows" in result.stdout
    assert "workers 1" in result.stdout
    assert not (home / "never").exists()
    assert answer("explain", *arguments)["steps"]["measured"] is None


def test_describe_prints_figures() -> None:
    found = answer("describe", "nulls.parquet")
    assert found["rows"] == 600
    assert found["columns"][0]["nulls"] == 30
    result = call("describe", "nulls.parquet")
    assert "distance" in result.stdout
    assert result.exit_code == 0


def test_nulls_follow_the_policy() -> None:
    arguments = (
        "train",
        "logistic_regression",
        "nulls.parquet",
        "--label",
        "late",
        "--exclude",
        "season",
        "--output",
        "nulls",
    )
    refused = call(*arguments)
    assert refused.exit_code == 1
    assert "'distance'" in refused.stderr
    assert answer(*arguments, "--nulls", "drop")["rows"] == 570
    assert answer(*arguments, "--nulls", "mean")["rows"] == 600


TRAIN = ("train", "logistic_regression", "flights.parquet", "--output", "mistake")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "logistic_regresion", "flights.parquet", "--output", "x"), "Did you mean 'logistic_regression'?"),
        ((*TRAIN, "--label", "lat"), "Table 'flights.parquet' has no column 'lat'. Did you mean 'late'?"),
        ((*TRAIN,), "label=None is not possible"),
        ((*TRAIN, "--label", "late", "--features", "distanse"), "Did you mean 'distance'?"),
        (
            (*TRAIN, "--label", "late", "--set", "alfa=1"),
            "no hyperparameter of logistic_regression 'alfa'. Did you mean 'alpha'?",
        ),
        ((*TRAIN, "--label", "late", "--set", "alpha=-1"), "alpha=-1 is not possible"),
        ((*TRAIN, "--label", "late", "--nulls", "skip"), "nulls='skip' is not possible"),
        ((*TRAIN, "--label", "late", "--strategy", "all_reduce"), "strategy='all_reduce' is for nets"),
        ((*TRAIN, "--label", "late", "--memory", "1XB"), "memory='1XB' is not possible"),
        ((*TRAIN, "--label", "late", "--test", "2"), "test=2.0 is not possible"),
        (("train", "pca", "nowhere.parquet", "--output", "x"), "There is no table at 'nowhere.parquet'"),
        (("predict", "nowhere", "flights.parquet", "--output", "o.parquet"), "There is no model at 'nowhere'"),
        (("evaluate", ".", "flights.parquet"), "it holds no model.json"),
        (("describe", "nowhere.csv"), "There is no table at 'nowhere.csv'"),
        (("train", "nowhere.toml"), "There is no job file at 'nowhere.toml'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(arguments: tuple[str, ...], sentence: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert sentence in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "Traceback" not in result.output
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("train",),
        ("train", "logistic_regression"),
        ("train", "logistic_regression", "flights.parquet", "--label", "late"),
        ("train", "logistic_regression", "flights.parquet", "--lable", "late"),
        ("train", "logistic_regression", "flights.parquet", "--output", "x", "--set", "alpha"),
        ("predict", "m", "flights.parquet"),
        ("tarin",),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert call(*arguments).exit_code == 2


def test_a_misspelt_option_is_told_the_right_one() -> None:
    assert "--label" in call("train", "pca", "flights.parquet", "--lable", "x", "--output", "x").stderr


def test_a_bug_is_not_hidden_as_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("braidwater.cli.use.describe", fail)
    assert isinstance(call("describe", "flights.parquet").exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1", 1),
        ("a=0.5", 0.5),
        ("a=true", True),
        ("a=[1, 2]", [1, 2]),
        ('a="x y"', "x y"),
        ("a=newton", "newton"),
        ("a=1e-3", 1e-3),
    ],
)
def test_settings_are_toml_values_or_bare_words(text: str, expected: object) -> None:
    assert parse_setting(text) == ("a", expected)


JOB = """
table = "flights.parquet"
estimator = "logistic_regression"
label = "late"
features = ["distance", "season"]
test = 0.25
output = "from-job"
report = "from-job.html"
[set]
alpha = 0.01
[encoders.season]
type = "categorical"
nulls = "category"
[encoders.distance]
type = "numeric"
standardise = true
"""


def test_a_job_file_says_the_same_and_more(home: Path) -> None:
    (home / "job.toml").write_text(JOB)
    found = answer("train", "job.toml")
    assert found["evaluated_on"] == "held-out rows"
    assert "distance" in found["coefficients"]
    assert "noise" not in found["coefficients"]
    assert bw.load("from-job").alpha == 0.01
    page = (home / "from-job.html").read_text()
    assert "Confusion matrix" in page
    assert "Coefficients" in page


def test_options_win_over_the_job_file(home: Path) -> None:
    (home / "job.toml").write_text(JOB)
    answer("train", "job.toml", "--set", "alpha=0.2", "--output", "other", "--test", "0.5")
    assert bw.load("other").alpha == 0.2
    assert call("explain", "job.toml").exit_code == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tabel = 'x'", "unknown key 'tabel'. Did you mean 'table'?"),
        ("table = 'flights.parquet'", "needs either estimator"),
        ("estimator = 'pca'", "names no table"),
        ("table = 'flights.parquet'\nestimator = 'pca'", "names no folder for the model"),
        ("table = 'flights.parquet'\nestimator = 'pca'\nmodule = 'a:B'\noutput='x'", "needs either estimator"),
        ("table = 3", "table = 3 is not possible; it must be a text"),
        ("workers = true", "workers = True is not possible; it must be a whole number"),
        ("table =", "is no TOML"),
        (JOB.replace("categorical", "categoric"), "Did you mean 'categorical'?"),
        (JOB.replace("standardise", "standardize"), "Did you mean 'standardise'?"),
        (JOB.replace("encoders.season", "encoders.saison"), "has no column 'saison'. Did you mean 'season'?"),
        (JOB.replace("alpha", "alhpa"), "Did you mean 'alpha'?"),
    ],
)
def test_a_wrong_job_file_is_told_in_a_sentence(home: Path, text: str, sentence: str) -> None:
    (home / "wrong.toml").write_text(text)
    result = call("train", "wrong.toml")
    assert result.exit_code == 1, result.output
    assert sentence in result.stderr


def test_every_key_of_a_job_file_is_checked_and_explained() -> None:
    from dataclasses import fields

    from braidwater.cli import job

    for one in fields(Job):
        assert one.name in job._TYPES
        assert f"{one.name} =" in str(job.__doc__) or f"[{one.name}" in str(job.__doc__), (
            f"{one.name} is not documented"
        )


def test_both_forms_of_train_make_the_same_job(home: Path) -> None:
    (home / "same.toml").write_text(
        'table = "t"\nestimator = "pca"\nfeatures = ["a", "b"]\noutput = "o"\n[set]\nn_components = 2'
    )
    options = {"features": "a, b", "set": ["n_components=2"], "output": "o"}
    assert job_of("pca", "t", "train", **options) == job_of("same.toml", None, "train")
    with pytest.raises(UserError):
        job_of("missing.toml", None, "train")


MODULE = """
import torch
class Net(torch.nn.Module):
    def __init__(self, inputs, outputs, width):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(inputs, width), torch.nn.ReLU(), torch.nn.Linear(width, outputs))
    def forward(self, x):
        return self.layers(x)
"""
NET_JOB = """
table = "flights.parquet"
module = "flight_net:Net"
label = "late"
strategy = "single"
schedule = "cosine"
output = "net"
[arguments]
width = 8
[set]
epochs = 3
learning_rate = 0.05
[optimizer]
name = "sgd"
momentum = 0.9
"""


def test_a_module_of_the_users_own_is_trained_by_its_import_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (home / "flight_net.py").write_text(MODULE)
    (home / "net.toml").write_text(NET_JOB)
    found = answer("train", "net.toml")
    assert found["estimator"] == "Net"
    assert found["metrics"]["accuracy"] > 0.6
    assert found["plan"]["chosen"]["strategy"] == "single"
    refused = call("evaluate", "net", "flights.parquet")
    assert refused.exit_code == 1
    assert "flight_net" in refused.stderr
    trusted = answer("evaluate", "net", "flights.parquet", "--trust", "flight_net")
    assert trusted["metrics"] == pytest.approx(found["metrics"])


def test_a_net_is_trained_by_name() -> None:
    found = answer(
        "train", "mlp", "flights.parquet", "--label", "late", "--strategy", "single", "--set", "epochs=2",
        "--set", "hidden=[8]", "--output", "mlp",
    )  # fmt: skip
    assert found["rows"] == 600
    assert found["metrics"]["log_loss"] < 1.0
    assert answer("predict", "mlp", "flights.parquet", "--output", "mlp.parquet")["rows"] == 600
    mistake = call("train", "mlp", "flights.parquet", "--label", "late", "--set", "epoch=2", "--output", "mlp")
    assert "Did you mean 'epochs'?" in mistake.stderr


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "braidwater.cli", *arguments]
    return subprocess.Popen(
        command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_a_net_takes_a_strategy_with_parameters_and_leaves_curves_for_tensorboard(home: Path) -> None:
    found = answer(
        *(
            "train",
            "mlp",
            "flights.parquet",
            "--label",
            "late",
            "--set",
            "epochs=1",
            "--strategy",
            "averaging(every='epoch')",
        ),
        *("--workers", "1", "--tensorboard", "curves", "--report", "net.html", "--output", "averaged"),
    )
    assert found["plan"]["chosen"]["strategy"] == "averaging"
    assert list((home / "curves").glob("events*"))
    assert "<svg" in (home / "net.html").read_text()
    wrong = call(
        "train", "mlp", "flights.parquet", "--label", "late", "--strategy", "averaging(every=", "--output", "o"
    )
    assert wrong.exit_code == 2
    assert "averaging(every=8)" in wrong.output


def test_help_and_version_import_nothing_heavy() -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom braidwater.cli.app import app\n"
        "for words in (['--help'], ['train', '--help'], ['--version']):\n"
        "    result = CliRunner().invoke(app, words)\n    assert result.exit_code == 0, result.output\n"
        "heavy = {'numpy', 'pyarrow', 'duckdb', 'torch', 'sklearn', 'scipy', 'numba', 'rich.progress'} & set(sys.modules)\n"
        "assert not heavy, heavy\nprint(result.output)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("braidwater ")


def test_help_names_every_estimator_and_command() -> None:
    text = call("train", "--help").stdout
    assert all(name in text for name in ESTIMATORS)
    text = call("--help").stdout
    assert all(name in text for name in ("train", "predict", "evaluate", "explain", "describe", "demo", "doctor"))


def test_ctrl_c_ends_with_a_clean_line(home: Path) -> None:
    random = np.random.default_rng(0)
    columns = {f"x{j}": random.normal(size=200_000).astype(np.float32) for j in range(8)}
    pq.write_table(pa.table(columns), home / "large.parquet")
    settings = ("--set", "n_clusters=64", "--set", "tol=0.0", "--set", "max_iter=10000")
    with process(
        "train", "k_means", "large.parquet", *settings, "--output", "stopped", start_new_session=True
    ) as running:
        assert running.stderr is not None
        line = running.stderr.readline()
        while line and "pass 3" not in line:
            line = running.stderr.readline()
        assert "pass 3" in line
        os.killpg(running.pid, signal.SIGINT)
        rest = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert rest.strip().splitlines()[-1] == "Stopped."
    assert "Traceback" not in rest
    assert not (home / "stopped").exists()


def test_a_reader_that_goes_away_is_no_error() -> None:
    with process("describe", "flights.parquet", "--json") as running:
        assert running.stdout is not None
        running.stdout.close()
        deadline = time.monotonic() + 60
        assert running.stderr is not None
        text = running.stderr.read()
        assert running.wait(timeout=deadline - time.monotonic()) in (0, 1)
    assert "Traceback" not in text


def test_doctor_finds_this_installation_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from braidwater.cli import doctor

    monkeypatch.setattr(doctor, "_try_gang", lambda: (_ for _ in ()).throw(RuntimeError("no loopback\nmore")))
    result = call("doctor", "--json")
    found = json.loads(result.stdout)
    states = {one["name"]: one for one in found["findings"]}
    assert result.exit_code == 1, "a finding was bad"
    assert states["gang of two processes"]["detail"] == "RuntimeError: no loopback"
    assert states["duckdb"]["state"] == "good"
    assert found["machine"]["gemm_float32"] > 1e9
    bad = doctor._package("numpy>=999")
    assert (bad.state, "999" in bad.detail) == ("bad", True)
    assert doctor._package("no-such-package>=1").state == "bad"
    text = call("doctor").stdout
    assert "!!  gang of two processes" in text
    assert "ns a row" in text


def test_the_demo_makes_all_that_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braidwater.cli.demo.EPOCHS", 3)
    result = call("demo", "--output", str(tmp_path / "demo"))
    assert result.exit_code == 0, result.output
    folder = tmp_path / "demo"
    for model in ("logistic-regression", "cnn"):
        assert bw.load(folder / model) is not None
    for name, rows, label in (("cancer", 569, "diagnosis"), ("digits", 1797, "digit")):
        assert len(bw.table(f"{folder}/demo.duckdb::{name}")) == rows
        predicted = bw.table(f"{folder}/demo.duckdb::{name}_predictions").to_arrow()
        right = np.mean(predicted["prediction"].to_numpy() == predicted[label].to_numpy())
        assert right > 0.85, f"{name}: {right}"
    page = (folder / "report.html").read_text()
    for words in ("Confusion matrix", "What each worker did", "worker 1", "measured", "Coefficients", "Loss"):
        assert words in page
    assert "strategy all_reduce" in result.stdout
    assert "std err" in result.stdout


def test_a_server_that_does_not_have_the_table_is_no_engine_for_it(tmp_path):
    place = str(tmp_path / "rows.csv")
    Path(place).write_text("x,y\n1,2\n")
    server = "postgresql://nobody@127.0.0.1:1/none"
    for words in (["train", "k_means", place, "--output", str(tmp_path / "m")], ["describe", place]):
        result = CliRunner().invoke(app, [*words, "--engine", server])
        assert result.exit_code == 1
        assert "rows.csv' does not lie in a PostgreSQL server" in result.output
    assert not (tmp_path / "m").exists()
