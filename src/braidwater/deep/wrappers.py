"""The modules that have a name on the command line, as trainers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from braidwater.deep.trainer import Trainer


def mlp(hidden: Sequence[int] = (64,), dropout: float = 0.0, **settings: Any) -> Trainer:
    """A trainer of fully connected layers; `settings` are those of `Trainer`.

    >>> mlp(hidden=(32, 16), epochs=3).kind
    'mlp'
    """
    arguments = {"hidden": list(hidden), "dropout": dropout}
    return Trainer("braidwater.deep.modules:MLP", module_arguments=arguments, kind="mlp", **settings)


def cnn(channels: Sequence[int] = (16, 32), **settings: Any) -> Trainer:
    """A trainer of a small convolutional net for one image a row; `settings` are those of `Trainer`.

    >>> cnn(epochs=3).kind
    'cnn'
    """
    return Trainer("braidwater.deep.modules:CNN", module_arguments={"channels": list(channels)}, kind="cnn", **settings)
