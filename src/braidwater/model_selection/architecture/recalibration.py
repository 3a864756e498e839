"""Statistics of batches of one path of a supernet, whose own are a mixture of all paths that were trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The layers that keep statistics of batches."""
    return [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Sequence[Tensor]) -> None:
    """Compute mean and variance of each batch normalisation anew from these batches alone; the module is left in evaluation mode.

    Guo et al. 2019, section 3.4: without that the shared weights of a path say nothing about it. Each layer's statistics are the
    plain average over the batches. Cost: a forward pass of them.
    """
    norms = batch_norms(module)
    module.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain average
        norm.train()
    try:
        for batch in batches:
            module(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
