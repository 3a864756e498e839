"""Ablation: what is left out, on which rows and from which seed, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from braidwater.deep import Trainer
from braidwater.errors import ColumnNotFoundError, OptionError, StudyError, UnsupportedError, UserError
from braidwater.estimators import KMeans, LinearRegression, LogisticRegression
from braidwater.model_selection import Ablation, Columns, KFold, Layers, Setting, ablate, search
from braidwater.model_selection.ablation.layers import WithoutLayers
from braidwater.tables import table, train_test_split
from search_models import Trouble


def plane(rows: int = 600) -> pa.Table:
    """y = 3 a + b + noise; the last column means nothing."""
    random = np.random.default_rng(0)
    a, b, noise, nothing = random.normal(size=(4, rows))
    return pa.table({"a": a, "b": b, "nothing_much": nothing, "y": 3 * a + b + 0.1 * noise})


class Blocks(nn.Module):
    """Two blocks that keep the width, between two layers that do not."""

    def __init__(self, inputs: int, outputs: int, width: int = 8, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(2)])
        self.unused = nn.Linear(width, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found = self.first(features)
        for block in self.blocks:
            found = found + block(found)
        return self.head(found * self.scale)


def test_a_column_left_out_is_a_fit_without_it_on_the_same_rows() -> None:
    rows = plane()
    found = ablate(
        LinearRegression(),
        rows,
        label="y",
        metric="rmse",
        workers=2,
        components=["a", ["b", "nothing_much"], "b", "noth*"],
    )
    training, held_out = train_test_split(table(rows), 0.2, seed=0)
    effects = {one.component: one for one in found.effects}
    for name, gone in {
        "nothing": [],
        "a": ["a"],
        "b + nothing_much": ["b", "nothing_much"],
        "b": ["b"],
        "noth*": ["nothing_much"],
    }.items():
        alone = LinearRegression().fit(training, label="y", exclude=gone).evaluate(held_out)["rmse"]
        assert effects[name].metric == pytest.approx(alone, rel=1e-12)
        assert effects[name].difference == pytest.approx(alone - effects["nothing"].metric, abs=1e-12)
    assert [one.component for one in found.effects[:2]] == ["nothing", "a"]
    assert found.to_table().column("rmse").to_pylist() == [one.metric for one in found.effects]
    assert (effects["a"].deviation, effects["a"].repeats) == (None, 1)


@pytest.mark.parametrize(
    "features", [None, ["a", "no*"], {"a": None, "nothing_much": None}], ids=["all", "names", "encoders"]
)
def test_features_are_left_out_however_they_were_declared(features) -> None:
    from braidwater.encoding import Numeric

    given = dict.fromkeys(features, Numeric()) if isinstance(features, dict) else features
    arguments = {"label": "y", "features": given}
    fits = Columns("a").left_out(LinearRegression(), table(plane()), arguments)
    names = fits[0].fit(plane(), **fits[1]).feature_names_.tolist()
    assert names == (["b", "nothing_much"] if features is None else ["nothing_much"])
    assert arguments == {"label": "y", "features": given}


def test_a_layer_left_out_is_the_identity_and_the_others_begin_as_they_were() -> None:
    torch.manual_seed(3)
    whole = Blocks(3, 2)
    torch.manual_seed(3)
    rest = WithoutLayers(Blocks, ("blocks.0", "blocks.0.*"))(3, 2)
    assert isinstance(rest.blocks[0], nn.Identity)
    for name, weights in rest.state_dict().items():
        assert torch.equal(weights, whole.state_dict()[name])
    assert len(rest.state_dict()) == len(whole.state_dict()) - 2
    features = torch.randn(5, 3)
    first = whole.first(features)
    assert torch.equal(rest(features), whole.head(2 * first + whole.blocks[1](2 * first)))
    own = WithoutLayers(whole, ("blocks.1",))(3, 2)
    assert isinstance(own.blocks[1], nn.Identity)
    assert isinstance(whole.blocks[1], nn.Sequential)


def test_nets_are_compared_seed_by_seed_and_the_spread_is_that_of_the_differences(tmp_path: Path) -> None:
    rows = plane(200)
    net = Trainer(Blocks, epochs=2, batch_size=50, seed=4, label_kind="number", strategy="single")
    storage = tmp_path / "study.sqlite"
    found = ablate(
        net, rows, label="y", metric="loss", repeats=2, workers=2, storage=storage,
        components={"block": Layers("blocks.1"), "scale": Setting(scale=0.5), "a": "a"},
    )  # fmt: skip
    assert [trial.error for trial in found.study.trials] == [None] * 8
    value = {(t.parameters["without"], t.parameters["repeat"]): t.value for t in found.study.trials}
    training, held_out = train_test_split(table(rows), 0.2, seed=0)
    again = Trainer(
        WithoutLayers(Blocks, ("blocks.1",)), epochs=2, batch_size=50, seed=5, label_kind="number", strategy="single"
    ).fit(training, label="y", validation=held_out)
    assert again.history_[-1]["validation_loss"] == value["block", 1]
    differences = [value["scale", seed] - value["nothing", seed] for seed in range(2)]
    effect = next(one for one in found.effects if one.component == "scale")
    assert effect.difference == pytest.approx(np.mean(differences))
    assert effect.difference_deviation == pytest.approx(np.std(differences, ddof=1))
    assert value["nothing", 0] != value["nothing", 1]

    page = found.report().write(tmp_path / "page.html").read_text()
    assert "Difference to the whole model" in page
    assert page.count("<svg") == 2
    assert Ablation.open(storage).effects == found.effects
    with pytest.raises(StudyError, match="its space is"):
        ablate(net, rows, label="y", metric="loss", repeats=2, storage=storage, name="ablation", components=["b"])


def test_every_feature_and_every_layer_that_may_go_are_the_components_by_default() -> None:
    rows = plane(100)
    by_column = ablate(LinearRegression(), rows, label="y", metric="rmse", validation=KFold(3), workers=1)
    assert {one.component for one in by_column.effects} == {"nothing", "a", "b", "nothing_much"}
    assert by_column.effects[1].repeats == 3
    assert by_column.effects[1].difference_deviation > 0
    from braidwater.model_selection.ablation.components import components_of

    net = Trainer(Blocks, label_kind="number")
    layers = components_of("layers", net, table(rows), {"label": "y"})
    assert list(layers) == ["blocks.0.0", "blocks.0.1", "blocks.1.0", "blocks.1.1"]


def test_failed_variants_are_recorded_beside_the_others(tmp_path: Path) -> None:
    found = ablate(
        Trouble(), plane(50), metric="loss", validation=None, retries=0, workers=2, label="y",
        components={"fine": Setting(folder="x"), "raises": Setting(how="raises"), "killed": Setting(how="killed")},
    )  # fmt: skip
    effects = {one.component: one for one in found.effects}
    assert effects["fine"].difference == 0.0
    assert effects["raises"].error == "ZeroDivisionError: in the objective"
    assert "SIGKILL" in effects["killed"].error
    assert effects["raises"].harm is None
    assert str(found).splitlines()[1].split() == ["nothing", "1"] or "nothing" in str(found)


@pytest.mark.parametrize(
    ("model", "components", "error", "told"),
    [
        (LinearRegression(), ["c"], ColumnNotFoundError, "no column 'c'"),
        (LinearRegression(), ["y"], OptionError, "components='y'.*one of the features: a, b, nothing_much"),
        (LinearRegression(), [["a", "b", "n*"]], OptionError, "without these there is none"),
        (LinearRegression(), ["a", "a"], OptionError, "one component only"),
        (LinearRegression(), [Layers("head")], UnsupportedError, "has no layers"),
        (LinearRegression(), "layers", OptionError, "has no layers"),
        (LinearRegression(), [Setting(alhpa=1.0)], UserError, "Did you mean 'alpha'"),
        (LinearRegression(), [3], OptionError, "a column, a list of columns"),
        (
            Trainer(Blocks, label_kind="number"),
            [Layers("first")],
            OptionError,
            r"layers='first'.*takes shape \(2, 3\) and gives shape \(2, 8\) for two rows. These do: blocks.0",
        ),
        (Trainer(Blocks, label_kind="number"), [Layers("unused")], OptionError, "is not called"),
        (Trainer(Blocks, label_kind="number"), [Layers("block.0")], OptionError, "Did you mean 'blocks.0'"),
        (lambda parameters: None, ["a"], OptionError, "an unfitted estimator or a Trainer"),
    ],
)
def test_what_cannot_be_left_out_is_told_before_anything_runs(model, components, error, told) -> None:
    with pytest.raises(error, match=told):
        ablate(model, plane(20), label="y", metric="rmse", components=components)


def test_repeats_need_a_seed_and_a_search_is_no_ablation(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"repeats=2.*has no seed"):
        ablate(LinearRegression(), plane(20), label="y", repeats=2)
    assert (
        ablate(KMeans(2), plane(40), metric="inertia", validation=None, workers=1, components=["y"]).effects[1].repeats
        == 3
    )
    rows = pa.table({"x": [0.0, 1, 2, 3], "y": [0, 1, 0, 1]})
    kept = {"validation": None, "budget": 1, "workers": 1, "storage": tmp_path / "s.sqlite"}
    search(LogisticRegression(), {"alpha": [1.0]}, rows, label="y", metric="log_loss", **kept)
    with pytest.raises(StudyError, match="a search and no ablation"):
        Ablation.open(tmp_path / "s.sqlite", "study")


def test_the_command_line_prints_what_each_component_is_worth(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from braidwater.cli.app import app

    pq.write_table(plane(300), tmp_path / "plane.parquet")
    words = [
        "ablate",
        "linear_regression",
        str(tmp_path / "plane.parquet"),
        "--label",
        "y",
        "--metric",
        "rmse",
        "--workers",
        "1",
    ]
    words += ["--component", "both=a,b", "--component", "a", "--report", str(tmp_path / "page.html")]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert [line.split()[0] for line in shown.stdout.splitlines()[:4]] == ["without", "nothing", "both", "a"]
    assert "Ablation" in (tmp_path / "page.html").read_text()
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [one["component"] for one in document["effects"]] == ["nothing", "both", "a"]
    wrong = CliRunner().invoke(app, [*words, "--layer", "head"])
    assert wrong.exit_code == 1
    assert "has no layers" in wrong.output


def test_an_ablation_is_described_by_a_file(tmp_path: Path, monkeypatch) -> None:
    from typer.testing import CliRunner

    from braidwater.cli.app import app

    monkeypatch.chdir(tmp_path)
    pq.write_table(plane(300), "plane.parquet")
    text = """
        table = "plane.parquet"
        estimator = "linear_regression"
        label = "y"
        metric = "rmse"
        workers = 1
        storage = "studies.sqlite"
        name = "what-counts"

        [components]
        both = ["a", "b"]
        first = "a"
        "a penalty" = { set = { alpha = 10.0 } }
    """
    Path("job.toml").write_text(text)
    result = CliRunner().invoke(app, ["ablate", "job.toml", "--json"])
    assert result.exit_code == 0, result.output
    effects = {one["component"]: one for one in json.loads(result.stdout)["effects"]}
    assert list(effects) == ["nothing", "both", "first", "a penalty"]
    assert effects["both"]["metric"] > effects["first"]["metric"] > effects["nothing"]["metric"]
    again = CliRunner().invoke(app, ["ablate", "job.toml", "--json", "--name", "one", "--component", "b"])
    assert [one["component"] for one in json.loads(again.stdout)["effects"]] == ["nothing", "b"]
    for wrong, told in (
        ("repeats = 2.5", "repeats = 2.5 is not possible; it must be a whole number"),
        ("[components]\nx = 3", "components.x = 3 is no component; write columns"),
        ("[components]\nx = { layer = 'a' }", "is no component"),
        ("components = ['zz']", "no column 'zz'"),
        ("[component]\nx = 'a'", "Did you mean 'components'?"),
    ):
        Path("wrong.toml").write_text(text.partition("[components]")[0] + wrong)
        result = CliRunner().invoke(app, ["ablate", "wrong.toml"])
        assert result.exit_code == 1
        assert told in result.output
