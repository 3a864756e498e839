"""Small trainings, and what tests of model parallelism do with them: all of them in one gang, compared with one process."""

from functools import partial

import numpy as np
import torch
from torch import nn

from braidwater.blocks.windows import RowForm
from braidwater.deep.losses import LOSSES
from braidwater.encoding.design import NumberTerm, design_of
from braidwater.engines.local.gang import run_gang
from braidwater.parallel import Data, Training
from braidwater.parallel.base import Replica
from braidwater.parallel.loop import run_epochs
from braidwater.testing.strategies import uneven_store

CLASSES = 3


def sgd(module, rate=0.1, momentum=0.9):
    return torch.optim.SGD(module.parameters(), lr=rate, momentum=momentum)


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=0.01)


def training(make, *, width=6, weights=False, image=None, seed=0, **changes):
    """A training of the module that `make()` gives, on rows of `width` numbers (or of the stored column `image`)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make()
    names = [] if image else [f"x{j}" for j in range(width)]
    terms = [NumberTerm(tuple(names), 0)] if names else []
    design = design_of(terms, names, label="y", weight="w" if weights else None)
    settings = {
        "form": RowForm(design, whole=image, dtype="float64"),
        "optimizer": partial(sgd, momentum=0.9),
        "epochs": 2,
        "batch_size": 13,
        "precision": "float64",
        "seed": 3,
    }
    return Training(module, LOSSES["cross_entropy"].function, **{**settings, **changes})


def rows(*, width=6, image_shape=None, units=(20, 9, 30)):
    """Rows with a label of three classes and a weight, some weights 0."""
    random = np.random.default_rng(4)
    total = sum(units)
    columns = {"y": random.integers(0, CLASSES, total).astype(np.uint8)}
    columns["w"] = random.integers(0, 3, total).astype(np.float64)
    if image_shape:
        columns["pixels"] = random.standard_normal((total, *image_shape))
    else:
        columns |= {f"x{j}": random.standard_normal(total) for j in range(width)}
    return uneven_store(columns, units)


def in_gang(workers, replica, cases):
    """Each case ``{name: (training, store, ...)}`` trained by `replica(member, name)`, all in one gang: trained, by name."""

    def member(told):
        return {name: run_epochs(made, data, replica(told, name)) for name, (made, data) in cases.items()}

    return run_gang(member, workers)[0]


def alone(cases):
    return {name: run_epochs(made, data, Replica()) for name, (made, data) in cases.items()}


def data(store, validation=None):
    return Data(store, validation)


def apart(one, other):
    """The largest difference of two trainings in weights and losses."""
    assert one.weights.keys() == other.weights.keys()
    weights = max(
        (float((one.weights[n].double() - w.double()).abs().max()) for n, w in other.weights.items()), default=0
    )
    losses = [
        abs(mine[key] - theirs[key])
        for mine, theirs in zip(one.history, other.history, strict=True)
        for key in theirs
        if "loss" in key or "accuracy" in key
    ]
    return max(weights, *losses)


class OwnAttention(nn.Module):
    """Attention with separate projections, that works on whole heads however many there are."""

    def __init__(self, width, head_width):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.head_width = head_width

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2) for p in (self.q, self.k, self.v))
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
