"""Random numbers of a layer that do not depend on the stage, and so the worker, that it lies in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch

_DRAW: ContextVar[tuple[int, ...]] = ContextVar("draw")


@contextmanager
def drawing(*place: int) -> Iterator[None]:
    """Around a forward pass: what `reseed` adds the layer's number to, such as the seed and the number of the micro-batch.

    The generator is put back: workers draw the same numbers outside of their layers.
    """
    token = _DRAW.set(place)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        _DRAW.reset(token)


def reseed(layer: int) -> None:
    """Before layer number `layer`: seed the generators from the layer and the place that `drawing` told."""
    seed = np.random.SeedSequence([*_DRAW.get(), layer]).generate_state(1)[0]
    torch.manual_seed(int(seed))
