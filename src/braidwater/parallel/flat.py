"""Several tensors as one vector: one message instead of many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch


def flatten(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The numbers of all tensors one after another, in memory of their own.

    >>> flatten([torch.ones(2, 1), torch.zeros(1)])
    tensor([1., 1., 0.])
    """
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]) if tensors else torch.empty(0)


def spread(flat: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    """Put the numbers that `flatten` laid out back into the tensors."""
    parts = torch.split(flat, [tensor.numel() for tensor in tensors]) if tensors else ()
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.detach().copy_(part.view_as(tensor))


def trained_parameters(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that training changes."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def floating_buffers(module: torch.nn.Module) -> list[torch.Tensor]:
    """What a module keeps beside its parameters and can be averaged, such as the means of batch normalisation."""
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]


def cut(sizes: Sequence[int], parts: int) -> list[slice]:
    """At most `parts` runs of neighbours, none empty, of about the same total size.

    >>> cut([4, 1, 1, 2], 2)
    [slice(0, 1, None), slice(1, 4, None)]
    """
    total = max(sum(sizes), 1)
    middles = [end - size / 2 for end, size in zip(accumulate(sizes), sizes, strict=True)]
    owners = [min(int(middle * parts / total), parts - 1) for middle in middles]
    begins = [place for place, owner in enumerate(owners) if place == 0 or owner != owners[place - 1]]
    return [slice(begin, end) for begin, end in zip(begins, [*begins[1:], len(sizes)], strict=True)]
