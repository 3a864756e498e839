"""Activation checkpointing: layers that keep only their input, and are computed a second time on the way back.

Chen et al. 2016 ("Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174). The gradients are the same bit for bit,
random numbers included; a step takes about a forward pass longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from braidwater.errors import OptionError


def recompute_layers(module: torch.nn.Module, layers: bool | Sequence[str]) -> None:
    """Make layers of `module` keep no activations; in place, names of parameters stay.

    `layers` is True for the children of the module (those of a list or sequence among them instead), or patterns of names
    such as ``"blocks.*"``.
    """
    named = _children(module) if layers is True else _matching(module, layers or ())
    for layer in named:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _children(module: torch.nn.Module) -> list[torch.nn.Module]:
    found: list[torch.nn.Module] = []
    for child in module.children():
        opened = isinstance(child, torch.nn.ModuleList | torch.nn.ModuleDict | torch.nn.Sequential)
        found += _children(child) if opened else [child]
    return [layer for layer in found if any(True for _ in layer.parameters())]


def _matching(module: torch.nn.Module, patterns: Sequence[str]) -> Iterator[torch.nn.Module]:
    names = {name: layer for name, layer in module.named_modules() if name}
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise OptionError("recompute", pattern, f"True, or patterns of the layers' names: {', '.join(names)}")
        for name in found:
            # a layer inside one that is computed again anyway would be computed three times
            if not any(name.startswith(f"{other}.") for other in found):
                yield names[name]
