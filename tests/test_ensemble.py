"""Ensembles: their rows, how they combine, and that they are better than their members."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from braidwater.blocks.mini_batches import MiniBatches
from braidwater.deep import MLP, Trainer, ensemble
from braidwater.errors import OptionError, UnsupportedError
from braidwater.parallel import Ensemble
from braidwater.parallel.ensemble import EnsembleModule
from braidwater.parallel.ensemble.rows import RowPick
from braidwater.tables import table, train_test_split
from braidwater.testing.strategies import _mlp_training, _row_training, uneven_store

ROWS = np.arange(100_000)


class Fixed(nn.Module):
    """Gives the same probabilities for every row."""

    def __init__(self, *probabilities):
        super().__init__()
        self.register_buffer("odds", torch.tensor(probabilities).log() + 3.0)

    def forward(self, features):
        return self.odds.expand(len(features), -1)


MEMBERS = [Fixed(0.6, 0.4), Fixed(0.6, 0.4), Fixed(0.01, 0.99)]


def combined(combine, members=MEMBERS, outputs=2):
    return EnsembleModule(members, combine, outputs=outputs)(torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("combine", "first"), [("mean", 1.21 / 3), ("vote", (2 / 3 + 1e-3 * 1.21 / 3) / 1.001), ("learned", 1.21 / 3)]
)
def test_probabilities_are_combined(combine, first):
    expected = torch.tensor([first, 1 - first]).expand(3, 2)
    torch.testing.assert_close(combined(combine).softmax(1), expected)


def test_stacking_begins_with_the_mean_of_logarithms():
    expected = torch.stack([m.odds.log_softmax(0) for m in MEMBERS]).mean(0).softmax(0).expand(3, 2)
    torch.testing.assert_close(combined("stacking").softmax(1), expected)


def test_an_even_vote_goes_to_the_larger_mean_probability():
    assert combined("vote", [Fixed(0.55, 0.45), Fixed(0.2, 0.8)]).argmax(1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("combine", ["mean", "learned", "stacking"])
def test_numbers_are_combined(combine):
    features = torch.randn(7, 1)
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    found = EnsembleModule([one, other], combine, outputs=1)(features)
    torch.testing.assert_close(found, (one(features) + other(features)) / 2)


def test_parts_are_disjoint_and_whole():
    found = sum(RowPick("parts", 3, member, 4).counts(ROWS) for member in range(4))
    assert (found == 1).all()


def test_bags_are_drawn_with_replacement_each_on_its_own():
    one, other = (RowPick("bags", 3, member, 2).counts(ROWS) for member in range(2))
    assert one.mean() == pytest.approx(1, abs=0.02)
    assert (one == 0).mean() == pytest.approx(np.exp(-1), abs=0.01)
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(0, abs=0.02)


def test_held_out_rows_are_no_members():
    held_out = RowPick("held out", 3, held_out=0.2).counts(ROWS)
    assert held_out.mean() == pytest.approx(0.2, abs=0.01)
    for share in ("parts", "bags", "all"):
        assert not (RowPick(share, 3, 0, 2, 0.2).counts(ROWS) * held_out).any()


@pytest.mark.parametrize("share", ["parts", "bags", "all", "held out"])
def test_mini_batches_hold_each_row_as_often_as_it_counts(share):
    """Over mini-batches whose rows come from two windows, and those of which no row is taken."""
    training, columns = _row_training()
    rows = RowPick(share, 3, 1, 3, 0.2)
    batches = MiniBatches(uneven_store(columns), training.form, batch_size=9, window_rows=60)
    seen = np.zeros(201, np.int64)
    for batch in batches.epoch(0):
        picked = rows.pick(batch)
        assert picked.features[: picked.rows, 0].tolist() == picked.numbers.tolist()
        assert len(picked.features) == len(picked.labels) == max(picked.rows, 1)
        np.add.at(seen, picked.numbers, 1)
    assert seen.tolist() == rows.counts(np.arange(201)).tolist()


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    columns = {f"pixel{place}": column for place, column in enumerate(images.T)}
    return train_test_split(table(pa.table({**columns, "digit": labels}), name="digits"), 0.3, seed=1)


@pytest.fixture(scope="module")
def fitted(digits):
    trainer = Trainer(
        ensemble,
        module_arguments={"members": 4, "arguments": {"MLP": {"hidden": [24]}}},
        strategy=Ensemble(workers=2, data="parts"),
        learning_rate=0.01,
        epochs=12,
        batch_size=32,
        metrics=["accuracy"],
    )
    return trainer.fit(digits[0], label="digit", validation=digits[1])


def accuracy_of(trainer, module, rows):
    whole, trainer.module_ = trainer.module_, module
    try:
        return trainer.evaluate(rows)["accuracy"]
    finally:
        trainer.module_ = whole


def test_an_ensemble_is_more_accurate_than_each_of_its_members(fitted, digits):
    members = [accuracy_of(fitted, member, digits[1]) for member in fitted.module_.members]
    assert fitted.evaluate(digits[1])["accuracy"] > max(members) > 0.8
    assert fitted.history_[-1]["validation_accuracy"] == pytest.approx(fitted.evaluate(digits[1])["accuracy"], abs=1e-6)


def test_it_is_saved_and_loaded_as_any_model(fitted, digits, tmp_path):
    fitted.save(tmp_path / "model")
    again = Trainer.load(tmp_path / "model")
    assert again.evaluate(digits[1]) == fitted.evaluate(digits[1])
    assert "deep.ensembles:ensemble" in json.dumps(json.loads((tmp_path / "model" / "model.json").read_text()))


def different(inputs, outputs):
    """A good member and one that knows nothing; what combines them is to find out which is which."""
    return EnsembleModule([MLP(inputs, outputs, hidden=[24]), Fixed(*([0.91] + [0.01] * 9))], "learned")


def test_learned_weights_trust_the_better_member(digits):
    trainer = Trainer(different, strategy=Ensemble(workers=2, data="all"), learning_rate=0.05, epochs=6, batch_size=32)
    trainer.fit(digits[0], label="digit")
    shares = trainer.module_.shares.softmax(0)
    assert shares[0] > 0.8
    assert trainer.evaluate(digits[1])["accuracy"] > 0.85


def test_a_module_without_members_is_refused():
    with pytest.raises(UnsupportedError, match=r"Sequential has none"):
        Ensemble().train(_mlp_training(), None, None)


@pytest.mark.parametrize("options", [{"workers": 0}, {"data": "half"}, {"held_out": 0.0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(OptionError):
        Ensemble(**options)


@pytest.mark.parametrize("arguments", [{"modules": ["os:system"]}, {"members": 0}, {"combine": "sum"}])
def test_impossible_ensembles_are_refused(arguments):
    with pytest.raises(OptionError):
        ensemble(3, 2, **arguments)
