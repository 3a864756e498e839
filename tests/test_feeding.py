"""Mini-batches of sequences and of augmented images."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from braidwater.blocks.mini_batches import MiniBatches, by_length
from braidwater.blocks.windows import RowForm, sequence_lengths
from braidwater.deep import Crop, Erase, Flip, Trainer
from braidwater.encoding import Encoding, Image, Sequence
from braidwater.encoding.design import WideTerm, design_of
from braidwater.errors import ColumnTypeError, OptionError
from braidwater.parallel.augmentation import augmented
from braidwater.tables import table
from braidwater.testing.strategies import uneven_store

LONGEST = 40


def texts(rows=300):
    """Sequences of tokens 1 to 9; the label says whether token 7 is among them."""
    random = np.random.default_rng(0)
    tokens = [random.integers(1, 10, random.integers(1, LONGEST + 1)).tolist() for _ in range(rows - 1)]
    tokens.append(list(range(1, 10)) * 4 + [1, 2, 3, 4])
    label = [int(7 in row) for row in tokens]
    return pa.table({"words": pa.array(tokens, pa.list_(pa.int64())), "seven": label})


class Bag(nn.Module):
    """The largest embedding of the tokens of a row."""

    seen: list[int] = []  # noqa: RUF012

    def __init__(self, inputs, outputs):
        super().__init__()
        self.embed = nn.Embedding(10, 8, padding_idx=0)
        self.head = nn.Linear(8, outputs)

    def forward(self, tokens):
        if isinstance(tokens, torch.Tensor):  # and not traced
            Bag.seen.append(tokens.shape[1])
        return self.head(self.embed(tokens).amax(1))


def test_sequences_are_filled_up_and_their_length_comes_from_the_table():
    rows = texts()
    fitted = Encoding(features={"words": Sequence()}, label="seven").fit(table(rows))
    block, _ = fitted.block(rows.to_batches()[0])
    assert fitted.whole.shape == (LONGEST,)
    found = block["words"]
    for stored, row in zip(found, rows["words"].to_pylist(), strict=True):
        assert stored.tolist() == row + [0] * (LONGEST - len(row))
    assert sequence_lengths(found, 0).tolist() == [len(row) for row in rows["words"].to_pylist()]


def test_longer_rows_are_refused_or_cut_as_declared():
    rows = texts()
    with pytest.raises(ColumnTypeError, match=f"list of {LONGEST} tokens where 10"):
        Trainer(Bag).fit(rows, label="seven", features={"words": Sequence(length=10)})
    fitted = Encoding(features={"words": Sequence(length=10, longer="cut")}).fit(table(rows))
    block, _ = fitted.block(rows.to_batches()[0])
    assert [row[:10] + [0] * (10 - len(row)) for row in rows["words"].to_pylist()] == block["words"].tolist()


def test_a_token_beyond_the_type_and_a_list_of_fractions_are_refused():
    big = pa.table({"words": pa.array([[1, 70_000]], pa.list_(pa.int64())), "y": [0]})
    fitted = Encoding(features={"words": Sequence(dtype="int16")}).fit(table(big))
    with pytest.raises(ColumnTypeError, match="token 70000"):
        fitted.block(big.to_batches()[0])
    with pytest.raises(ColumnTypeError, match="whole numbers"):
        Encoding(features={"words": Sequence()}).fit(table(pa.table({"words": [[0.5]]})))


def test_steps_hold_rows_of_like_length_and_every_row_once():
    random = np.random.default_rng(0)
    lengths = random.integers(1, 101, 5000)
    order = by_length(random.permutation(5000), lengths, 32, random)
    assert np.array_equal(np.sort(order), np.arange(5000))
    longest = [lengths[order[at : at + 32]].max() for at in range(0, 5000, 32)]
    padded = sum(most * 32 for most in longest)
    assert padded < 1.05 * lengths.sum()
    assert np.corrcoef(longest[:-1], longest[1:])[0, 1] < 0.3, "steps come in the order of their lengths"


@pytest.mark.parametrize("window_bytes", [2**26, 1])  # rows turned once, and picked from blocks
def test_mini_batches_are_cut_behind_their_longest_row(window_bytes):
    lengths = np.random.default_rng(1).integers(1, 21, 120)
    tokens = np.where(np.arange(20) < lengths[:, None], 5, 0).astype(np.int32)
    store = uneven_store({"words": tokens, "y": np.arange(120)}, units=(50, 64, 6))
    form = RowForm(design_of([WideTerm("words", 0, 20)], [f"w{i}" for i in range(20)], label="y"), whole="words", pad=0)
    batches = list(MiniBatches(store, form, batch_size=10, window_bytes=window_bytes).epoch(0))
    assert sorted(np.concatenate([batch.labels for batch in batches])) == list(range(120))
    for batch in batches:
        assert batch.features.shape[1] == lengths[batch.labels].max()
        assert np.array_equal((batch.features != 0).sum(1), lengths[batch.labels])


def test_a_module_of_tokens_learns_and_never_sees_needless_padding(tmp_path):
    Bag.seen.clear()
    rows = texts(600)
    trainer = Trainer(Bag, learning_rate=0.05, epochs=8, batch_size=20, strategy="single")
    trainer.fit(rows, label="seven", features={"words": Sequence()})
    assert trainer.evaluate(rows)["accuracy"] > 0.97
    assert np.mean(Bag.seen) < 0.75 * LONGEST
    assert trainer.predict(rows).to_arrow()["prediction"].type == pa.int64()
    again = Trainer.load(trainer.save(tmp_path / "model"), module=Bag)
    assert again.evaluate(rows) == trainer.evaluate(rows)


def pictures(rows, channels=3, size=8):
    return torch.arange(1, rows * channels * size * size + 1, dtype=torch.float64).view(rows, channels, size, size)


def test_a_flip_mirrors_the_rows_that_it_is_told_to():
    images = pictures(4)
    found = Flip()(images, torch.tensor([[0.1], [0.9], [0.4], [0.5]]))
    assert torch.equal(found[[0, 2]], images[[0, 2]].flip(-1))
    assert torch.equal(found[[1, 3]], images[[1, 3]])


@pytest.mark.parametrize("images", [pictures(3), pictures(3)[:, 0]], ids=["channels", "plain"])
def test_a_crop_shifts_each_image_as_a_whole(images):
    numbers = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.999, 0.2]], dtype=torch.float64)
    found = Crop(2)(images, numbers)
    assert torch.equal(found[1], images[1])  # the middle of five places
    assert torch.equal(found[0][..., 2:, 2:], images[0][..., :-2, :-2])
    assert not found[0][..., :2, :].any()
    assert torch.equal(found[2][..., :-2, 1:], images[2][..., 2:, :-1])


def test_an_erased_square_lies_inside_and_the_rest_is_left():
    images = pictures(50)
    found = Erase(3)(images, torch.from_numpy(np.random.default_rng(0).random((50, 2))))
    gone = found == 0
    assert gone.any((1, 2, 3)).all()
    assert int(gone[:, 0].sum((1, 2)).max()) == 9
    assert torch.equal(gone[:, 0], gone[:, 2])
    assert torch.equal(found[~gone], images[~gone])


def test_a_row_is_changed_alike_on_any_number_of_workers_and_anew_in_each_epoch():
    images = np.random.default_rng(0).random((60, 6, 6)).astype(np.float32)
    store = uneven_store({"image": images, "y": np.arange(60)}, units=(30, 30))
    form = RowForm(design_of([WideTerm("image", 0, 36)], [f"p{i}" for i in range(36)], label="y"), whole="image")

    def seen(size, epoch):
        found = {}
        for rank in range(size):
            for batch in MiniBatches(store, form, batch_size=8, rank=rank, size=size).epoch(epoch):
                changed = augmented(
                    torch.from_numpy(batch.features), [Flip(), Crop(1)], seed=3, epoch=epoch, rows=batch.numbers
                )
                found |= dict(zip(batch.labels.tolist(), changed.numpy(), strict=False))
        return np.stack([found[row] for row in range(60)])

    assert np.array_equal(seen(1, 0), seen(3, 0))
    assert not np.array_equal(seen(1, 0), seen(1, 1))


def test_a_trainer_augments_in_training_alone():
    random = np.random.default_rng(0)
    images = random.random((80, 16)).astype(np.float32)
    rows = pa.table({"image": pa.FixedSizeListArray.from_arrays(images.ravel(), 16), "y": random.integers(0, 2, 80)})
    settings = {"module_arguments": {"channels": [2]}, "strategy": "single", "epochs": 2, "batch_size": 20}
    shape = {"features": {"image": Image((1, 4, 4), dtype="float32")}, "label": "y"}
    plain, changed = (
        Trainer("braidwater.deep:CNN", **settings, **more).fit(rows, **shape) for more in ({}, {"augment": Flip()})
    )
    assert plain.history_[-1]["loss"] != changed.history_[-1]["loss"]
    assert changed.evaluate(rows) == changed.evaluate(rows)
    with pytest.raises(OptionError):
        Flip(probability=2)
