"""Small modules for tables and images, and what transfer learning needs."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import isqrt, prod

from torch import Tensor, nn

from braidwater.errors import OptionError

Inputs = int | tuple[int, ...]


class MLP(nn.Module):
    """Fully connected layers with ReLU between them.

    `inputs` is the width of the design (or the shape of an image, which is laid flat), `outputs` the number of classes or 1.

    >>> import torch
    >>> MLP(4, 3, hidden=(8,))(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(self, inputs: Inputs, outputs: int, hidden: Sequence[int] = (64,), dropout: float = 0.0) -> None:
        super().__init__()
        if min(hidden, default=1) < 1:
            raise OptionError("hidden", tuple(hidden), "sizes of layers, such as (64, 32)")
        width = inputs if isinstance(inputs, int) else prod(inputs)
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = size
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, outputs)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.head(self.layers(features.flatten(1)))
        return found


class CNN(nn.Module):
    """3 × 3 convolutions, each followed by group normalisation, ReLU and a halving of the picture, then a linear head.

    `inputs` is the shape of an image: (height, width), or (channels, height, width). A number is the width of a vector
    whose entries are the pixels of a square picture in rows. Group normalisation (Wu and He 2018), not batch
    normalisation: it sees one row at a time, so the result does not depend on how rows are spread over workers.

    >>> import torch
    >>> CNN((1, 8, 8), 10)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(self, inputs: Inputs, outputs: int, channels: Sequence[int] = (16, 32)) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise OptionError("channels", tuple(channels), "numbers of channels, such as (16, 32)")
        self.shape = _picture(inputs)
        depth, height, width = self.shape
        layers: list[nn.Module] = []
        for size in channels:
            layers += [
                nn.Conv2d(depth, size, 3, padding=1),
                nn.GroupNorm(min(4, size) if size % min(4, size) == 0 else 1, size),
            ]
            layers.append(nn.ReLU())
            if min(height, width) >= 2:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            depth = size
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(depth * height * width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(self.layers(images.reshape(-1, *self.shape)).flatten(1))
        return found


def _picture(inputs: Inputs) -> tuple[int, int, int]:
    """Channels, height and width."""
    if isinstance(inputs, int):
        side = isqrt(inputs)
        if side * side != inputs:
            raise OptionError(
                "features",
                f"{inputs} numbers a row",
                "one image for a CNN: give its column an encoder, features={'pixels': Image(shape)}",
            )
        return 1, side, side
    if len(inputs) == 2:
        return 1, inputs[0], inputs[1]
    if len(inputs) == 3:
        return inputs[0], inputs[1], inputs[2]
    raise OptionError("shape", inputs, "(height, width) or (channels, height, width)")


def replace_head(module: nn.Module, pattern: str, new: nn.Module) -> nn.Module:
    """Put `new` in the place of the one submodule whose name fits the shell `pattern`, and return `module`.

    With ``freeze=["layers.*"]`` for the rest this is transfer learning: a trained body, and a head for other classes.

    >>> import torch
    >>> body = MLP(4, 3)
    >>> replace_head(body, "head", nn.Linear(64, 10))(torch.zeros(2, 4)).shape
    torch.Size([2, 10])
    """
    names = [name for name, _ in module.named_modules() if name]
    found = [name for name in names if fnmatchcase(name, pattern)]
    if len(found) != 1:
        near = get_close_matches(pattern, names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(names[:20])}."
        what = "no submodule" if not found else f"{len(found)} submodules"
        raise OptionError(
            "pattern", pattern, f"the name of one submodule; {what} of {type(module).__name__} fits. {hint}"
        )
    parent_name, _, name = found[0].rpartition(".")
    setattr(module.get_submodule(parent_name), name, new)
    return module
