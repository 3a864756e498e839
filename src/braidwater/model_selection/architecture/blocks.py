"""Layers for architectures. Sizes may be ranges: ``linear(width=Choice([32, 64]))``; input sizes follow from the rows."""

from __future__ import annotations

from math import gcd
from typing import Any

from torch import nn

from braidwater.errors import OptionError
from braidwater.model_selection.architecture.nodes import Layer, Shape

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


def linear(width: Any) -> Layer:
    """A fully connected layer; rows are laid flat."""
    return Layer(_linear, width=width)


def conv(channels: Any, kernel: Any = 3, stride: Any = 1) -> Layer:
    """A convolution of pictures ``(channels, height, width)``, padded so that stride 1 keeps their size; odd kernels."""
    return Layer(_conv, channels=channels, kernel=kernel, stride=stride)


def pool(size: Any = 2, kind: Any = "max") -> Layer:
    """The largest (``"max"``) or mean (``"mean"``) of squares of pixels."""
    return Layer(_pool, size=size, kind=kind)


def activation(kind: Any = "relu") -> Layer:
    """``"relu"``, ``"gelu"``, ``"tanh"`` or ``"silu"``."""
    return Layer(_activation, kind=kind)


def norm(groups: Any = 4) -> Layer:
    """Group normalisation (Wu and He 2018): it sees one row at a time, so weights that nets share fit all of them."""
    return Layer(_norm, groups=groups)


def batch_norm() -> Layer:
    """Normalisation over the rows of a step (Ioffe and Szegedy 2015). In a supernet its statistics mix those of all paths;
    `one_shot` computes them anew for each path that it ranks."""
    return Layer(_batch_norm)


def dropout(rate: Any = 0.1) -> Layer:
    """Leaves out that share of the numbers during training."""
    return Layer(_dropout, rate=rate)


def identity() -> Layer:
    """Gives what it takes."""
    return Layer(_identity)


def _linear(shape: Shape, width: int) -> nn.Module:
    flat = 1
    for size in shape:
        flat *= size
    return nn.Linear(flat, width) if len(shape) == 1 else nn.Sequential(nn.Flatten(), nn.Linear(flat, width))


def _conv(shape: Shape, channels: int, kernel: int, stride: int) -> nn.Module:
    if kernel % 2 == 0:
        raise OptionError("kernel", kernel, "an odd number of pixels")
    return nn.Conv2d(shape[0], channels, kernel, stride=stride, padding=kernel // 2)


def _pool(shape: Shape, size: int, kind: str) -> nn.Module:
    if kind not in ("max", "mean"):
        raise OptionError("kind", kind, "max or mean")
    return nn.MaxPool2d(size) if kind == "max" else nn.AvgPool2d(size)


def _activation(shape: Shape, kind: str) -> nn.Module:
    if kind not in _ACTIVATIONS:
        raise OptionError("activation", kind, f"one of {', '.join(_ACTIVATIONS)}")
    make: type[nn.Module] = _ACTIVATIONS[kind]
    return make()


def _norm(shape: Shape, groups: int) -> nn.Module:
    return nn.GroupNorm(gcd(groups, shape[0]), shape[0])


def _batch_norm(shape: Shape) -> nn.Module:
    return nn.BatchNorm1d(shape[0]) if len(shape) == 1 else nn.BatchNorm2d(shape[0])


def _dropout(shape: Shape, rate: float) -> nn.Module:
    return nn.Dropout(rate)


def _identity(shape: Shape) -> nn.Module:
    return nn.Identity()
