"""Weights that a net takes over from another one, and new layers that change nothing at first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from braidwater.model_selection.architecture.modules import Added

_SAME = 1e-5  # of outputs of size 1: rounding of float32 over some layers


def inherit(module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy, bit for bit, every tensor of `weights` that `module` has by the same name, shape and dtype; the names of those."""
    own = module.state_dict()
    taken = [
        name for name, tensor in own.items()
        if name in weights and weights[name].shape == tensor.shape and weights[name].dtype == tensor.dtype
    ]  # fmt: skip
    with torch.no_grad():
        for name in taken:
            own[name].copy_(weights[name])
    return taken


def morph(child: nn.Module, parent: nn.Module, inherited: Iterable[str], probe: Tensor) -> bool:
    """Make the layers that are new in `child` change nothing, where that is possible; whether it now answers as `parent` does.

    A new residual block begins as zero, a new layer of as many outputs as inputs as the identity (Chen, Goodfellow and Shlens
    2016, "Net2Net"; Wei, Wang, Rui and Chen 2016, "Network Morphism"). That is exact for some nets only (a ReLU after an identity
    cuts off what is below zero), so both nets are asked for the rows of `probe`; where they differ `child` is left as it was.
    """
    with torch.no_grad():
        if _agree(child, parent, probe):
            return True
        before = {name: tensor.clone() for name, tensor in child.state_dict().items()}
        _begin_as_nothing(child, set(inherited))
        if _agree(child, parent, probe):
            return True
        child.load_state_dict(before)
    return False


def _begin_as_nothing(module: nn.Module, inherited: set[str]) -> None:
    new = {
        name for name, layer in module.named_modules()
        if any(True for _ in layer.parameters(recurse=False)) and not _has_any(name, inherited)
    }  # fmt: skip
    for name, layer in module.named_modules():
        inner = [own for own in new if own.startswith(f"{name}.")]
        weighted = [own for own, one in layer.named_modules(prefix=name) if list(one.parameters(recurse=False))]
        if isinstance(layer, Added) and inner and set(inner) == set(weighted):
            for parameter in module.get_submodule(weighted[-1]).parameters(recurse=False):
                parameter.zero_()
            new -= set(inner)
    for name in new:
        _make_identity(module.get_submodule(name))


def _make_identity(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear) and layer.in_features == layer.out_features:
        nn.init.eye_(layer.weight)
    elif isinstance(layer, nn.Conv2d) and layer.in_channels == layer.out_channels and layer.stride == (1, 1):
        nn.init.dirac_(layer.weight)
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _has_any(name: str, inherited: set[str]) -> bool:
    return any(own.rpartition(".")[0] == name for own in inherited)


def _agree(one: nn.Module, other: nn.Module, probe: Tensor) -> bool:
    modes = one.training, other.training
    try:
        first, second = one.eval()(probe), other.eval()(probe)
    finally:
        one.train(modes[0])
        other.train(modes[1])
    return bool(torch.allclose(first, second, rtol=_SAME, atol=_SAME))
