"""Layers that add up over a picture: means, and normalisations whose statistics are those of all regions."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from braidwater.parallel.spatial.regions import Regions
from braidwater.parallel.spatial.rows import Plain, Rows, handles


@handles(functional.adaptive_avg_pool2d)
def _adaptive_avg_pool2d(input: Rows, output_size: Any) -> Any:
    if output_size not in (1, (1, 1), [1, 1]):
        return NotImplemented
    return _mean(input, (2, 3), True)


@handles(torch.mean, torch.Tensor.mean)
def _mean(input: Rows, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    dims = {d % 4 for d in (dim if isinstance(dim, tuple | list) else (dim,))} if dim is not None else set()
    if dims != {2, 3} or dtype is not None:
        return NotImplemented
    with Plain():
        own = input.own.sum((2, 3), keepdim=keepdim)
        return input.regions.total(own) / (input.height * input.shape[3])


@handles(functional.batch_norm)
def _batch_norm(
    input: Rows,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Rows:
    with Plain():
        own = input.own
        if not training:
            found = functional.batch_norm(own, running_mean, running_var, weight, bias, False, momentum, eps)
            return Rows.of(found, input.height, input.regions)
        count = own.shape[0] * input.height * own.shape[3]
        found, mean, variance = _standardised(own, (0, 2, 3), count, eps, input.regions)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.flatten().to(running_mean.dtype), momentum)
                running_var.lerp_(variance.flatten().to(running_var.dtype) * (count / max(count - 1, 1)), momentum)
        return Rows.of(_scaled(found, weight, bias), input.height, input.regions)


@handles(functional.group_norm)
def _group_norm(
    input: Rows,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Rows:
    with Plain():
        own = input.own
        grouped = own.reshape(own.shape[0], num_groups, -1, *own.shape[2:])
        count = grouped.shape[2] * input.height * own.shape[3]
        found, _, _ = _standardised(grouped, (2, 3, 4), count, eps, input.regions)
        return Rows.of(_scaled(found.flatten(1, 2), weight, bias), input.height, input.regions)


def _standardised(
    own: torch.Tensor, dims: tuple[int, ...], count: int, eps: float, regions: Regions
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Less the mean, over the deviation; both over all regions. Mean and variance too."""
    mean = regions.spread(regions.total(own.sum(dims, keepdim=True)) / count)
    centred = own - mean
    variance = regions.spread(regions.total(centred.square().sum(dims, keepdim=True)) / count)
    return centred * (variance + eps).rsqrt(), mean, variance


def _scaled(tensor: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    shape = (1, -1, 1, 1)
    found = tensor if weight is None else tensor * weight.view(shape)
    return found if bias is None else found + bias.view(shape)
