"""Messages inside a forward pass, and what they are on the way back.

Shoeybi et al. 2019 ("Megatron-LM", arXiv 1909.08053), section 3: `copied` is their f, `summed` their g.
"""

from __future__ import annotations

from typing import Any

import torch

from braidwater.parallel.talk import Talk


def copied(tensor: torch.Tensor, talk: Talk) -> torch.Tensor:
    """The tensor, which all workers have; its gradient is the sum of theirs."""
    return _apply(_Copied, tensor, talk)


def summed(tensor: torch.Tensor, talk: Talk) -> torch.Tensor:
    """The sum of the workers' tensors; each gets the gradient of the sum."""
    return _apply(_Summed, tensor, talk)


def joined(tensor: torch.Tensor, talk: Talk, width: int) -> torch.Tensor:
    """The workers' parts of the last dimension, together `width`; each gets its part of the gradient."""
    return _apply(_Joined, tensor, talk, width)


def parted(tensor: torch.Tensor, talk: Talk) -> torch.Tensor:
    """This worker's part of the last dimension; the gradient is joined from all parts."""
    return _apply(_Parted, tensor, talk)


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> torch.Tensor:
    found: torch.Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return found


class _Copied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, talk: Talk) -> torch.Tensor:
        ctx.talk = talk
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ctx.talk.sum(gradients[0]), None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, talk: Talk) -> torch.Tensor:
        return talk.sum(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0], None


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, talk: Talk, width: int) -> torch.Tensor:
        ctx.talk = talk
        return talk.gather(tensor, -1, width)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return _own_part(gradients[0], ctx.talk), None, None


class _Parted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, talk: Talk) -> torch.Tensor:
        ctx.talk, ctx.width = talk, tensor.shape[-1]
        return _own_part(tensor, talk)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ctx.talk.gather(gradients[0], -1, ctx.width), None


def _own_part(tensor: torch.Tensor, talk: Talk) -> torch.Tensor:
    begin, end = talk.own(tensor.shape[-1])
    return tensor[..., begin:end].contiguous()
