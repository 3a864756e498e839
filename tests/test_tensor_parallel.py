"""Layers parted over workers train to the weights of one process."""

import pytest
import torch
from torch import nn

from braidwater.deep.modules import CNN, MLP
from braidwater.errors import OptionError, UnsupportedError
from braidwater.parallel import TensorParallel
from braidwater.parallel.grid import Grid
from braidwater.parallel.model_replica import TENSOR
from braidwater.parallel.tensor_parallel.plan import make_plan
from braidwater.parallel.tensor_parallel.strategy import TensorReplica
from model_parallel import OwnAttention, adam, alone, apart, data, in_gang, rows, training

WORKERS = 2


class Tokens(nn.Module):
    """Features taken for words: embedding, two transformer layers of torch with 3 heads, one own attention, a head."""

    def __init__(self, layers=2):
        super().__init__()
        self.words = nn.Embedding(11, 6, padding_idx=2)
        layer = nn.TransformerEncoderLayer(6, 3, 7, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.attention = OwnAttention(6, 3)
        self.weighing = nn.MultiheadAttention(6, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        words = (x.abs() * 3).long().clamp(max=10)
        found = self.attention(self.encoder(self.words(words), src_key_padding_mask=words == 10))
        across = found.transpose(0, 1)
        mixed, weights = self.weighing(across, across, across)
        return self.head((mixed.transpose(0, 1) + found).mean(1)) + weights.sum((1, 2), keepdim=True)[:, 0]


def deep():
    return nn.Sequential(
        nn.Linear(6, 7), nn.Tanh(), nn.Dropout(0.3), nn.Linear(7, 5), nn.ReLU(), nn.LayerNorm(5), nn.Linear(5, 3)
    )


BY_HAND = {
    "attention.[qkv]": "column",
    "attention.out": "row",
    "words": "embedding",
    "*.linear1": "column",
    "*.linear2": "row",
}
CASES = {
    "mlp": (training(lambda: MLP(6, 3, hidden=(7, 5, 9))), "auto"),
    "dropout, clip, weights, pieces": (training(deep, weights=True, clip_norm=0.05, accumulate=2), "auto"),
    "one linear layer": (training(lambda: nn.Linear(6, 3), optimizer=adam), "auto"),
    "wide head": (training(lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 9)), optimizer=adam), "auto"),
    "cnn": (training(lambda: CNN((1, 2, 3), 3, channels=(4,))), "auto"),
    "tokens": (training(Tokens, epochs=1), "auto"),
    "tokens by hand": (training(Tokens, epochs=1, optimizer=adam, clip_norm=0.1), BY_HAND),
    "float32": (training(lambda: MLP(6, 3), precision="float32"), "auto"),
}


@pytest.fixture(scope="module")
def found():
    stores = data(rows(), rows(units=(9, 8)))
    cases = {name: (made, stores) for name, (made, _) in CASES.items()}
    plans = {name: make_plan(made.module, plan, WORKERS) for name, (made, plan) in CASES.items()}

    def replica(member, name):
        return TensorReplica(member, Grid({TENSOR: WORKERS}), plans[name])

    return in_gang(WORKERS, replica, cases), alone(cases)


@pytest.mark.parametrize("name", CASES)
def test_training_equals_one_process(found, name):
    parted, whole = found
    assert apart(parted[name], whole[name]) < (1e-6 if name == "float32" else 1e-10)


def test_the_automatic_plan_pairs_linear_layers():
    assert make_plan(MLP(6, 3, hidden=(8, 8, 8), dropout=0.5), "auto", 2).styles == {
        "layers.0": "column",
        "layers.3": "row",
        "layers.6": "column",
        "head": "row",
    }
    assert make_plan(MLP(6, 3, hidden=(8,), dropout=0.5), "auto", 2).dropouts == {"layers.2": 8}
    assert make_plan(CNN((1, 8, 8), 3), "auto", 2).styles == {"head": "single"}
    tokens = make_plan(Tokens(1), "auto", 2).styles
    assert tokens == {
        "words": "embedding",
        "encoder.layers.0.self_attn": "heads",
        "encoder.layers.0.linear1": "column",
        "encoder.layers.0.linear2": "row",
        **dict.fromkeys(("attention.q", "attention.k", "attention.v", "attention.out", "head"), "single"),
        "weighing": "heads",
    }


def test_a_layer_that_is_used_twice_is_not_paired():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.two(self.one(x).relu()) + self.one(x)

    assert set(make_plan(Twice(), "auto", 2).styles.values()) == {"single"}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"layers.9": "column"}, r"'layers.9'.*layers.0, head"),
        ({"head": "columns"}, "'columns'.*column, row"),
        ({"head": "heads"}, "'heads' is for MultiheadAttention"),
        ({}, "styles for patterns"),
        ({"layers.*": "column"}, "at most 3: layer 'layers.0' has no more outputs"),
    ],
)
def test_impossible_plans_are_refused(plan, said):
    with pytest.raises(OptionError, match=said):
        make_plan(MLP(6, 4, hidden=(3,)), plan, 4)


def test_modules_that_cannot_be_parted_are_refused():
    with pytest.raises(OptionError, match="none to part"):
        make_plan(nn.Conv2d(1, 1, 3), "auto", 2)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(UnsupportedError, match="shares its weights"):
        make_plan(tied, {"0": "column"}, 2)
    with pytest.raises(OptionError, match="at least 1"):
        TensorParallel(workers=0)
    assert torch.equal(tied[0].weight, tied[1].weight)
