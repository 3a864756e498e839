"""The trainer against loops written by hand, scikit-learn's metrics, and everything that can be wrong with its input."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import metrics as reference
from torch import nn

from braidwater.blocks.mini_batches import MiniBatches
from braidwater.deep import CNN, MLP, EarlyStopping, Trainer, cnn, mlp, replace_head
from braidwater.deep.inputs import InputForm
from braidwater.encoding import Image
from braidwater.engines import LocalEngine
from braidwater.errors import (
    ColumnNotFoundError,
    EmptyTableError,
    LabelError,
    ModelFileError,
    ModelSchemaError,
    NullValueError,
    NumericalError,
    OptionError,
    UnsafeModelError,
    UnsupportedError,
)
from braidwater.events import Metric, PassFinished, RunFinished, listen
from braidwater.parallel import AllReduce, Averaging
from braidwater.tables import table

ROWS = 600


def flights(rows=ROWS, classes=2):
    random = np.random.default_rng(0)
    distance, hour = random.normal(500, 100, rows), random.integers(0, 24, rows)
    carrier = random.choice(["AA", "BB", "CC"], rows)
    score = (distance - 500) / 100 + 0.2 * (hour - 12) + (carrier == "BB") + random.normal(0, 0.5, rows)
    label = np.digitize(score, np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]))
    return pa.table({"distance": distance, "hour": hour, "carrier": carrier, "delay": score, "late": label})


@pytest.fixture(scope="module")
def trained():
    return mlp(epochs=6, batch_size=50, learning_rate=0.01, strategy="single", metrics=("accuracy", "auroc")).fit(
        flights(), label="late", exclude=["delay"], validation=flights(300)
    )


def test_it_learns_and_records_every_epoch(trained):
    assert [record["epoch"] for record in trained.history_] == [1, 2, 3, 4, 5, 6]
    assert trained.history_[-1]["loss"] < 0.7 * trained.history_[0]["loss"]
    assert trained.steps_ == 6 * ROWS // 50
    assert trained.history_[-1]["validation_accuracy"] > 0.85


def test_metrics_of_the_validation_rows_are_those_of_scikit_learn(trained):
    found = trained.predict(flights(300)).to_arrow()
    label, chance = found["late"].to_numpy(), found["probability_1"].to_numpy()
    record = trained.history_[-1]
    assert record["validation_loss"] == pytest.approx(reference.log_loss(label, chance), rel=1e-5)
    assert record["validation_accuracy"] == pytest.approx(
        reference.accuracy_score(label, found["prediction"].to_numpy())
    )


def test_evaluation_is_that_of_scikit_learn(trained):
    rows = flights(500)
    found = trained.predict(rows).to_arrow()
    label, chance = found["late"].to_numpy(), found["probability_1"].to_numpy()
    metrics = trained.evaluate(rows)
    assert metrics["rows"] == 500
    assert metrics["accuracy"] == pytest.approx(reference.accuracy_score(label, chance > 0.5))
    assert metrics["log_loss"] == pytest.approx(reference.log_loss(label, chance), rel=1e-6)
    assert metrics["roc_auc"] == pytest.approx(reference.roc_auc_score(label, chance), abs=1e-3)


def test_predictions_are_columns_beside_those_of_the_table(trained):
    rows = flights(200)
    found = trained.predict(rows).to_arrow()
    assert found.schema.names == [*rows.schema.names, "prediction", "probability_0", "probability_1"]
    assert found.select(rows.schema.names).equals(rows)
    chances = np.stack([found["probability_0"], found["probability_1"]])
    np.testing.assert_allclose(chances.sum(0), 1)
    assert np.array_equal(found["prediction"].to_numpy(), chances.argmax(0))


def test_rows_that_the_policy_drops_are_predicted_as_null(trained):
    dropping = mlp(epochs=1, strategy="single", nulls="drop").fit(flights(), label="late", exclude=["delay"])
    rows = flights(10).set_column(0, "distance", pa.array([None, *range(500, 509)], pa.float64()))
    found = dropping.predict(rows).to_arrow()
    assert found["prediction"].null_count == found["probability_1"].null_count == 1
    assert found["prediction"][0].as_py() is None
    with pytest.raises(NullValueError, match="distance"):
        trained.predict(rows).to_arrow()


def test_events_tell_of_every_epoch_and_of_the_end():
    heard = []
    with listen(heard.append):
        mlp(epochs=2, strategy="single").fit(flights(), label="late", exclude=["delay"])
    assert [event.number for event in heard if isinstance(event, PassFinished) and event.what == "epoch"] == [1, 2]
    assert [event.step for event in heard if isinstance(event, Metric) and event.name == "loss"] == [1, 2]
    assert [event.error for event in heard if isinstance(event, RunFinished)] == [None]


def by_hand(trainer, rows, label, weighted=False):
    """The trainer's steps in plain torch: the same rows in the same order, everything else written anew."""
    encoding = trainer.encoding_
    form = InputForm(encoding, "float64")
    engine = LocalEngine(1)
    from braidwater.blocks import BlockSource

    with BlockSource(table(rows), encoding, passes=2, cache="memory") as source:
        store = engine.materialise(source)
        features = np.concatenate([form.dense(store.read(unit.number)) for unit in store.units])
        order = MiniBatches(store, form.rows, batch_size=trainer.batch_size, seed=trainer.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(trainer.seed)
            module = MLP(features.shape[1], trainer.module_.head.out_features, hidden=(8,)).double()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        X, y = torch.from_numpy(features), torch.from_numpy(rows[label].to_numpy().copy())
        w = torch.from_numpy(rows["weight"].to_numpy().copy()) if weighted else torch.ones(len(X), dtype=torch.float64)
        for epoch in range(trainer.epochs):
            for batch in order.epoch(epoch):
                index = torch.from_numpy(batch.numbers)
                output = module(X[index])
                if y.dtype == torch.int64:
                    losses = nn.functional.cross_entropy(output, y[index], reduction="none")
                else:
                    losses = (output[:, 0] - y[index]) ** 2
                optimizer.zero_grad()
                ((losses * w[index]).sum() / w[index].sum()).backward()
                optimizer.step()
    return module


EXACT = {
    "module_arguments": {"hidden": (8,)},
    "optimizer": "sgd",
    "optimizer_arguments": {"momentum": 0.9},
    "learning_rate": 0.1,
    "epochs": 2,
    "batch_size": 37,
    "precision": "float64",
    "strategy": "single",
    "seed": 11,
}


def assert_same(module, other, tolerance):
    for name, weights in module.state_dict().items():
        torch.testing.assert_close(weights, other.state_dict()[name], rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize(("label", "excluded"), [("late", "delay"), ("delay", "late")])
def test_weights_are_those_of_a_loop_written_by_hand(label, excluded):
    rows = flights(classes=3)
    trainer = Trainer(MLP, **EXACT).fit(rows, label=label, exclude=[excluded])
    assert_same(trainer.module_, by_hand(trainer, rows, label), 1e-10)


def test_row_weights_count_as_in_a_loop_written_by_hand():
    rows = flights().append_column("weight", pa.array(np.random.default_rng(1).random(ROWS)))
    trainer = Trainer(MLP, **EXACT).fit(rows, label="late", exclude=["delay"], weight="weight")
    assert_same(trainer.module_, by_hand(trainer, rows, "late", weighted=True), 1e-10)


def test_accumulation_changes_nothing():
    rows = flights()
    whole = Trainer(MLP, **EXACT).fit(rows, label="late", exclude=["delay"])
    pieces = Trainer(MLP, **EXACT, accumulate=5).fit(rows, label="late", exclude=["delay"])
    assert_same(whole.module_, pieces.module_, 1e-10)


def test_all_reduce_on_two_workers_equals_one_with_row_weights_and_pieces():
    rows = flights().append_column("weight", pa.array(np.random.default_rng(1).random(ROWS)))
    arguments = {"label": "late", "exclude": ["delay"], "weight": "weight"}
    alone = Trainer(MLP, **EXACT).fit(rows, **arguments)
    both = Trainer(MLP, **{**EXACT, "strategy": AllReduce(2)}, accumulate=3, metrics=["accuracy"])
    both.fit(rows, **arguments, validation=rows)
    assert_same(alone.module_, both.module_, 1e-10)
    found = both.evaluate(rows.drop_columns("weight").append_column("weight", pa.array(np.ones(ROWS))))
    assert both.history_[-1]["validation_accuracy"] == pytest.approx(found["accuracy"])


def test_gradients_are_clipped():
    module = nn.Linear(4, 1)
    rows = flights().select(["distance", "hour", "delay"]).append_column("far", pa.array(np.arange(ROWS) * 1e3))
    rows = rows.append_column("near", pa.array(np.arange(ROWS) * 1.0))
    steps = {"optimizer": "sgd", "learning_rate": 1.0, "epochs": 1, "batch_size": ROWS, "strategy": "single"}
    trainer = Trainer(module, **steps, clip_norm=0.5, standardise=False).fit(rows, label="delay")
    moved = [
        (after - before).detach()
        for after, before in zip(trainer.module_.parameters(), module.parameters(), strict=True)
    ]
    assert float(torch.sqrt(sum((part**2).sum() for part in moved))) == pytest.approx(0.5, rel=1e-3)


def test_frozen_parameters_stay_and_groups_have_their_own_rate():
    rows = flights()
    module = MLP(5, 2, hidden=(8,))
    rates = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 1, "batch_size": ROWS, "strategy": "single"}
    plain = Trainer(module, **rates).fit(rows, label="late", exclude=["delay"])
    tuned = Trainer(module, **rates, freeze=["layers.0.bias"], groups={"head.*": 0.01}).fit(
        rows, label="late", exclude=["delay"]
    )
    start = module.state_dict()
    step = {name: plain.module_.state_dict()[name] - start[name] for name in start}
    tuned_step = {name: tuned.module_.state_dict()[name] - start[name] for name in start}
    assert torch.equal(tuned_step["layers.0.bias"], torch.zeros(8))
    torch.testing.assert_close(tuned_step["layers.0.weight"], step["layers.0.weight"])
    torch.testing.assert_close(tuned_step["head.weight"], step["head.weight"] * 0.1, rtol=1e-3, atol=1e-6)


def test_a_head_is_replaced_and_the_body_kept(trained):
    body = replace_head(trained.module_, "head", nn.Linear(64, 3))
    tuned = Trainer(body, freeze=["layers.*"], epochs=2, strategy="single")
    tuned.fit(flights(classes=3), label="late", exclude=["delay"])
    replace_head(trained.module_, "head", nn.Linear(64, 2))
    assert torch.equal(tuned.module_.layers[0].weight, trained.module_.layers[0].weight)
    assert tuned.module_.head.out_features == 3
    with pytest.raises(OptionError, match="Did you mean 'head'"):
        replace_head(body, "haed", nn.Linear(64, 2))


def test_a_schedule_lowers_the_rate():
    found = mlp(epochs=3, strategy="single", schedule="linear", learning_rate=0.3, batch_size=100)
    found.fit(flights(), label="late", exclude=["delay"])
    assert [record["learning_rate"] for record in found.history_] == pytest.approx(
        [0.3 * (1 - s / 18) for s in (5, 11, 17)]
    )


def test_bf16_learns_nearly_the_same():
    losses = {
        precision: mlp(epochs=4, strategy="single", precision=precision)
        .fit(flights(), label="late", exclude=["delay"])
        .history_[-1]["loss"]
        for precision in ("float32", "bf16")
    }
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.02)


def test_early_stopping_keeps_the_best_weights():
    random = np.random.default_rng(0)
    noise = pa.table({**{f"x{j}": random.normal(size=80) for j in range(10)}, "y": random.integers(0, 2, 80)})
    held_out = pa.table({**{f"x{j}": random.normal(size=80) for j in range(10)}, "y": random.integers(0, 2, 80)})
    trainer = mlp(
        epochs=200, strategy="single", learning_rate=0.01, early_stopping=EarlyStopping(patience=4), batch_size=20
    )
    trainer.fit(noise, label="y", validation=held_out)
    losses = [record["validation_loss"] for record in trainer.history_]
    assert len(losses) == trainer.best_epoch_ + 4 < 200
    assert np.argmin(losses) == trainer.best_epoch_ - 1
    assert trainer.evaluate(held_out)["log_loss"] == pytest.approx(min(losses), rel=1e-4)


def test_a_regression_on_one_layer_comes_to_the_least_squares_line():
    rows = flights()
    trainer = mlp(hidden=(), optimizer="sgd", learning_rate=0.2, schedule="cosine", epochs=30, strategy="single")
    trainer.fit(rows, label="delay", exclude=["late"])
    X = np.column_stack(
        [rows["distance"], rows["hour"], *(np.array(rows["carrier"]) == c for c in ("AA", "BB", "CC"))]
    ).astype(float)
    weights, *_ = np.linalg.lstsq(X, rows["delay"].to_numpy(), rcond=None)
    best = reference.r2_score(rows["delay"], X @ weights)
    found = trainer.evaluate(rows)
    assert found["r2"] == pytest.approx(best, abs=2e-3)
    predicted = trainer.predict(rows).to_arrow()["prediction"].to_numpy()
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(rows["delay"], predicted))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(rows["delay"], predicted))


@pytest.mark.parametrize("form", ["bytes", "list", "vector"])
def test_images_are_learnt_from_bytes_lists_and_plain_vectors(form):
    random = np.random.default_rng(0)
    label = random.integers(0, 2, 300)
    pictures = random.integers(0, 100, (300, 8, 8)).astype(np.uint8)
    pictures[label == 1, 2:6, 2:6] += 100
    flat = [picture.tobytes() if form == "bytes" else picture.ravel() for picture in pictures]
    type_ = pa.binary() if form == "bytes" else pa.list_(pa.uint8(), 64)
    rows = pa.table({"picture": pa.array(flat, type_), "label": label})
    features = None if form == "vector" else {"picture": Image((1, 8, 8))}
    trainer = cnn(epochs=3, learning_rate=0.01, batch_size=30, strategy="single").fit(
        rows, label="label", features=features
    )
    assert trainer.evaluate(rows)["accuracy"] > 0.98
    assert isinstance(trainer.module_, CNN)


def test_the_given_module_and_random_numbers_are_left_alone():
    module = nn.Sequential(nn.Linear(5, 2), nn.Dropout(0.5))
    before = {name: weights.clone() for name, weights in module.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    Trainer(module, epochs=1, strategy="single").fit(flights(), label="late", exclude=["delay"])
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(weights, before[name]) for name, weights in module.state_dict().items())


def test_the_seed_decides_all():
    def weights(seed):
        found = mlp(dropout=0.2, epochs=2, strategy="single", seed=seed).fit(flights(), label="late", exclude=["delay"])
        return found.module_.head.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_planner_chooses_and_measures_where_nothing_is_asked_for():
    trainer = mlp(epochs=2).fit(flights(), label="late", exclude=["delay"])
    assert trainer.strategy_.name == trainer.plan_.chosen.strategy
    assert trainer.plan_.root.measured is not None
    explained = mlp(epochs=2).explain(flights(), label="late", exclude=["delay"])
    assert explained.chosen == trainer.plan_.chosen


def test_work_counts_the_operations_of_a_row():
    trainer = mlp(hidden=(16,))
    encoding = trainer.encode(table(flights()), "late", exclude=["delay"])
    work = trainer.work(table(flights()), encoding)
    passing = 6 * 4 * (16 + 16 + 2)  # of the bytes that the two layers and the ReLU between them give on
    assert work.flops_per_row == 3 * (2 * (5 * 16 + 16 * 2) + passing)
    assert work.state_bytes == 4 * (5 * 16 + 16 + 16 * 2 + 2)
    assert work.passes == 10


def test_a_saved_model_predicts_the_same(trained, tmp_path):
    trained.save(tmp_path / "model")
    loaded = Trainer.load(tmp_path / "model")
    assert loaded.kind == "mlp"
    assert loaded.history_ == trained.history_
    assert loaded.predict(flights(100)).to_arrow().equals(trained.predict(flights(100)).to_arrow())


def test_a_module_that_was_handed_in_is_handed_in_again_on_loading(tmp_path):
    trainer = Trainer(nn.Linear(5, 2), epochs=1, strategy="single").fit(flights(), label="late", exclude=["delay"])
    trainer.save(tmp_path / "model")
    with pytest.raises(ModelSchemaError, match=r"load\(path, module=\.\.\.\)"):
        Trainer.load(tmp_path / "model")
    with pytest.raises(ModelSchemaError, match="do not fit"):
        Trainer.load(tmp_path / "model", module=nn.Linear(5, 3))
    loaded = Trainer.load(tmp_path / "model", module=nn.Linear(5, 2))
    assert torch.equal(loaded.module_.weight, trainer.module_.weight)
    with pytest.raises(ModelFileError):
        Trainer.load(tmp_path / "nothing")


class Own(nn.Linear):
    """Stands for a module of the user's package."""


def test_loading_imports_nothing_that_is_not_trusted(tmp_path):
    Trainer(Own, epochs=1, strategy="single").fit(flights(), label="late", exclude=["delay"]).save(tmp_path / "model")
    with pytest.raises(UnsafeModelError, match="trust"):
        Trainer.load(tmp_path / "model")
    assert isinstance(Trainer.load(tmp_path / "model", trust=[__name__]).module_, Own)


@pytest.mark.parametrize("strategy", ["single", Averaging(2), Averaging(2, every=2)], ids=str)
def test_a_loss_that_is_not_finite_names_the_step_and_the_rows(strategy):
    rows = flights(100).set_column(3, "delay", pa.array(np.where(np.arange(100) == 42, 1e30, 0.0)))
    trainer = mlp(epochs=3, batch_size=20, learning_rate=1e-3, optimizer="sgd", strategy=strategy)
    with pytest.raises(NumericalError, match=r"loss became (inf|nan) in step \d+ of epoch 1") as caught:
        trainer.fit(rows, label="delay", exclude=["late"])
    assert "42" in str(caught.value)


def test_what_cannot_be_learnt_is_refused():
    rows = flights()
    trainer = mlp(epochs=1, strategy="single")
    with pytest.raises(ColumnNotFoundError, match="Did you mean 'late'"):
        trainer.fit(rows, label="lat")
    with pytest.raises(EmptyTableError):
        trainer.fit(rows.slice(0, 0), label="late")
    with pytest.raises(LabelError, match="one class only"):
        trainer.fit(rows.set_column(4, "late", pa.array([1] * ROWS)), label="late")
    with pytest.raises(LabelError, match="3 classes, but the module gives 2"):
        Trainer(nn.Linear(5, 2), strategy="single").fit(flights(classes=3), label="late", exclude=["delay"])
    with pytest.raises(NullValueError, match="distance"):
        trainer.fit(rows.set_column(0, "distance", pa.array([None] * ROWS, pa.float64())), label="late")
    trainer.fit(rows, label="late", exclude=["delay"])
    with pytest.raises(UnsupportedError, match="already"):
        trainer.predict(rows.append_column("prediction", pa.array([0] * ROWS)))
    with pytest.raises(UnsupportedError, match="not been fitted"):
        mlp().evaluate(rows)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1.5),
        ("loss", "hinge"),
        ("optimizer", "adma"),
        ("learning_rate", -1),
        ("schedule", "steps"),
        ("strategy", "ring"),
        ("precision", "int8"),
        ("clip_norm", 0),
        ("checkpoint_every", "hour"),
        ("early_stopping", 0),
        ("metrics", ["acuracy"]),
        ("freeze", ["*"]),
        ("freeze", ["heat.*"]),
    ],
)
def test_impossible_options_are_refused(option, value):
    with pytest.raises(OptionError):
        mlp(**{"strategy": "single", option: value}).fit(flights(), label="late", exclude=["delay"])
