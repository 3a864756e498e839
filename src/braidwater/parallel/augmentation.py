"""Augmentation: training rows changed at random, on the worker that computes on them.

The random numbers of a row follow from the seed, the epoch and the number of the row, so that the same rows are changed in
the same way on any number of workers, and after a checkpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn.functional import pad

from braidwater.blocks.base import Array
from braidwater.errors import OptionError
from braidwater.tables.split import random_numbers_of


class Augmentation(ABC):
    """Changes features ``(rows, ...)`` given `draws` numbers from 0 to 1 for each row."""

    draws: ClassVar[int]

    @abstractmethod
    def __call__(self, features: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """New features of the same shape; `numbers` is ``(rows, draws)``, float64, on the features' device."""


@dataclass(frozen=True)
class Flip(Augmentation):
    """Mirror images from left to right with a `probability`."""

    draws: ClassVar[int] = 1
    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise OptionError("probability", self.probability, "from 0 to 1")

    def __call__(self, features: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        mirrored = (numbers[:, 0] < self.probability).view(-1, *[1] * (features.ndim - 1))
        return torch.where(mirrored, features.flip(-1), features)


@dataclass(frozen=True)
class Crop(Augmentation):
    """Shift images by up to `padding` pixels in height and width; what comes in from outside is 0."""

    draws: ClassVar[int] = 2
    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise OptionError("padding", self.padding, "at least 1 pixel")

    def __call__(self, features: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        height, width = features.shape[-2:]
        size = 2 * self.padding + 1
        wide = pad(features, [self.padding] * 4).flatten(0, -3)
        by = (numbers * size).long().clamp(max=size - 1)
        by = by.repeat_interleave(len(wide) // len(features), 0)  # all channels of an image alike
        down = (by[:, :1] + torch.arange(height, device=by.device))[:, :, None]
        right = (by[:, 1:] + torch.arange(width, device=by.device))[:, None, :]
        found = wide[torch.arange(len(wide), device=by.device)[:, None, None], down, right]
        return found.view(features.shape)


@dataclass(frozen=True)
class Erase(Augmentation):
    """Set a square of `size` pixels to 0, at a random place (DeVries and Taylor 2017, "Cutout", arXiv 1708.04552)."""

    draws: ClassVar[int] = 2
    size: int = 8

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError("size", self.size, "at least 1 pixel")

    def __call__(self, features: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        inside = []
        for place, length in enumerate(features.shape[-2:]):
            first = (numbers[:, place] * (length + self.size - 1)).long() - self.size + 1
            positions = torch.arange(length, device=features.device) - first[:, None]
            inside.append((positions >= 0) & (positions < self.size))
        square = inside[0][:, :, None] & inside[1][:, None, :]
        return features.masked_fill(square.view(len(features), *[1] * (features.ndim - 3), *square.shape[1:]), 0.0)


AUGMENTATIONS: dict[str, Callable[[], Augmentation]] = {"flip": Flip, "crop": Crop, "erase": Erase}


def find_augmentations(wish: str | Augmentation | Sequence[str | Augmentation]) -> tuple[Augmentation, ...]:
    """Augmentations, some of them by name.

    >>> find_augmentations(["flip", Crop(2)])
    (Flip(probability=0.5), Crop(padding=2))
    """
    found = []
    for one in [wish] if isinstance(wish, str | Augmentation) else wish:
        if isinstance(one, str) and one not in AUGMENTATIONS:
            raise OptionError("augment", one, f"one of {', '.join(AUGMENTATIONS)}, or an Augmentation")
        found.append(AUGMENTATIONS[one]() if isinstance(one, str) else one)
    return tuple(found)


def augmented(
    features: torch.Tensor, augmentations: Sequence[Augmentation], *, seed: int, epoch: int, rows: Array
) -> torch.Tensor:
    """`features` after all `augmentations`, one after the other. `rows` are the numbers of the rows in their table."""
    stream = 0
    for augmentation in augmentations:
        columns = []
        for _ in range(augmentation.draws):
            stream += 1
            own = int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1)[0])
            columns.append(random_numbers_of(own, rows) / 2.0**64)
        numbers = torch.from_numpy(np.stack(columns, 1)).to(features.device)
        features = augmentation(features, numbers)
    return features
