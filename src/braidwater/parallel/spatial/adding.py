"""Layers that add up over a picture: means, and normalisations whose statistics are those of all regions."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.nn import functional

from braidwater.parallel.parts import cut
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
        found, mean, variance = _standardised(own, (0, 2, 3), input, eps)
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
        found, _, _ = _standardised(grouped, (2, 3, 4), input, eps)
        return Rows.of(_scaled(found.flatten(1, 2), weight, bias), input.height, input.regions)


def _standardised(
    own: torch.Tensor, dims: tuple[int, ...], picture: Rows, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Less the mean, over the deviation; both over all regions of `picture`. Mean and variance too."""
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _Standardise.apply(  # type: ignore[no-untyped-call]
        own, dims, picture.height, eps, picture.regions
    )
    return found


class _Standardise(torch.autograd.Function):
    """One message forward and one back: regions tell their means and variances, which are put together as by Chan, Golub and
    LeVeque (1983). Left to autograd it would be two each way, and thrice the passes over the picture."""

    @staticmethod
    def forward(
        ctx: Any, own: torch.Tensor, dims: tuple[int, ...], height: int, eps: float, regions: Regions
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        heights = [end - begin for begin, end in (cut(height, part, regions.parts) for part in range(regions.parts))]
        count = prod(own.shape[d] for d in dims)
        first = own.sum(dims, keepdim=True) / max(count, 1)
        found = own - first
        spread = torch.linalg.vector_norm(found, dim=dims, keepdim=True).square() / max(count, 1)
        told = own.new_zeros(regions.parts, 2, *first.shape)
        told[regions.part, 0], told[regions.part, 1] = first, spread
        means, variances = regions.total(told).unbind(1)
        share = (own.new_tensor(heights) / height).view(-1, *[1] * own.ndim)
        mean = (share * means).sum(0)
        variance = (share * (variances + (means - mean).square())).sum(0)
        scale = (variance + eps).rsqrt()
        found.sub_(mean - first).mul_(scale)
        ctx.save_for_backward(found, scale)
        ctx.dims, ctx.regions, ctx.count = dims, regions, count / heights[regions.part] * height if count else 1
        ctx.mark_non_differentiable(mean, variance)
        return found, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (found, scale), gradient = ctx.saved_tensors, gradients[0]
        sums = [values.sum(ctx.dims, keepdim=True) for values in (gradient, gradient * found)]
        level, slope = ctx.regions.total(torch.stack(sums)) / ctx.count
        return torch.addcmul(gradient - level, found, slope, value=-1).mul_(scale), None, None, None, None


def _scaled(tensor: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    shape = (1, -1, 1, 1)
    found = tensor if weight is None else tensor * weight.view(shape)
    return found if bias is None else found + bias.view(shape)
